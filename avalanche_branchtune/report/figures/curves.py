"""Accuracy over experiences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from avalanche_branchtune.report.figures.style import (
    GREY,
    Picture,
    figure,
    legend,
    legend_height,
    looks,
    styled,
    whole_ticks,
    wrapped,
)
from avalanche_branchtune.report.formats import number, one_line, slug
from avalanche_branchtune.report.groups import Group
from avalanche_branchtune.report.tables import percent


@styled
def curves(groups: Sequence[Group], probe: str) -> Picture | None:
    """Draw the accuracy after each experience.

    :param groups: a line each; a level one for what has a single experience.
    :param probe: whose accuracies.
    :return: None if no group has more than one experience.
    """
    shown = [(style, g) for style, g in zip(looks(groups), groups, strict=True) if g.overall(probe)]
    last = max((group.n_experiences for _, group in shown), default=1)
    if last == 1:
        return None
    labels = [group.label for _, group in shown]
    levels = _before([group for _, group in shown], probe)
    labels += [name for name, _ in levels]
    drawing = figure(3.0 + legend_height(labels))
    axes = drawing.add_subplot()
    handles = []
    for style, group in shown:
        steps = group.overall(probe)
        mean = [100 * step.mean for step in steps]
        spread = [100 * (step.deviation or 0) for step in steps]
        x = [-0.15, last - 0.85] if group.at_once else list(range(len(steps)))
        if group.at_once:
            mean, spread = mean * 2, spread * 2
        low = [m - s for m, s in zip(mean, spread, strict=True)]
        high = [m + s for m, s in zip(mean, spread, strict=True)]
        axes.fill_between(x, low, high, color=style.colour, alpha=0.16, linewidth=0)
        (line,) = axes.plot(
            x,
            mean,
            color=style.colour,
            linestyle=style.dashes,
            marker="" if group.at_once else style.marker,
        )
        handles.append(line)
        for t, step in enumerate(steps):
            if step.n < len(group.runs):
                axes.plot(t, mean[t], style.marker, color=style.colour, mfc="white", mew=1.4)
    for _, level in levels:
        handles.append(axes.axhline(100 * level, color=GREY, linewidth=0.9, linestyle=":"))
    axes.set_xlim(-0.15, last - 0.85)
    whole_ticks(axes, last)
    axes.grid(axis="y")
    axes.set_xlabel("after experience")
    axes.set_ylabel("accuracy in %")
    axes.set_title(wrapped(f"Accuracy over experiences, probe {one_line(probe)}", 46))
    legend(drawing, handles, labels)
    caption = (
        f"Accuracy on the test samples of all measured experiences, probe {probe}. Lines: mean "
        "over n runs; bands: ± one standard deviation, where there are two runs or more."
    )
    if any(group.at_once for _, group in shown):
        caption += " Level lines: one experience only, such as joint training."
    if any(step.n < len(g.runs) for _, g in shown for step in g.overall(probe)):
        caption += " Hollow markers: over fewer runs, because some are partial."
    alt = [f"Line chart of the accuracy after each experience, probe {probe}."]
    for _, group in shown:
        known = [percent(step, len(group.runs)) for step in group.overall(probe)]
        if group.at_once:
            alt.append(f"{group.label}: level at {known[0]} %.")
        else:
            last_known = len(known) - 1
            alt.append(f"{group.label}: {', '.join(known)} % after experience 0 to {last_known}.")
    alt += [f"{name}: level at {number(100 * level)} %." for name, level in levels]
    return Picture(f"curves-{slug(probe)}", drawing, caption, " ".join(alt))


def _before(groups: Sequence[Group], probe: str) -> list[tuple[str, float]]:
    """Return the levels before training: one, if equal seeds start alike in all groups."""
    known: dict[int | None, set[float]] = {}
    for group in groups:
        for run in group.runs:
            level = run.probes[probe].random_overall if probe in run.probes else None
            if level is not None:
                known.setdefault(run.seed, set()).add(round(level, 6))
    if not known:
        return []
    if all(len(levels) == 1 for levels in known.values()):
        return [("before training", fmean(level for levels in known.values() for level in levels))]
    starts = [(group.shown, group.before(probe)) for group in groups]
    return [(f"{name} before training", start.mean) for name, start in starts if start]
