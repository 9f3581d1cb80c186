"""Numbers of layers: stability, plasticity, and the norms of what branches added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from avalanche_branchtune.report.figures.style import (
    Look,
    Picture,
    figure,
    legend,
    legend_height,
    looks,
    looks_in_order,
    styled,
    whole_ticks,
    wrapped,
)
from avalanche_branchtune.report.formats import number, one_line, slug
from avalanche_branchtune.report.groups import Group, Layers, Statistic
from avalanche_branchtune.report.tables import shown

MOST_NAMES = 24
MOST_STEPS = 6
KINDS: dict[Layers, str] = {"stability": "stability S", "plasticity": "plasticity P"}


@styled
def last_stability_plasticity(groups: Sequence[Group]) -> Picture | None:
    """Draw S and P of every layer, of each group after the last experience that has them.

    :param groups: a line each.
    :return: None if nothing was measured.
    """
    drawn = [(s, g, _steps(g)[-1]) for s, g in zip(looks(groups), groups, strict=True) if _steps(g)]
    if not drawn:
        return None
    names = _layer_names([g.layers(kind, t) for _, g, t in drawn for kind in KINDS])
    last = max(t for _, _, t in drawn)
    labels = [
        group.label if t == last else f"{group.label}, after experience {t}"
        for _, group, t in drawn
    ]
    kinds = {
        kind: title for kind, title in KINDS.items() if any(g.layers(kind, t) for _, g, t in drawn)
    }
    drawing = figure(0.8 + 1.9 * len(kinds) + _room(names) + legend_height(labels))
    panels = drawing.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
    handles: list[Any] = []
    for axes, (kind, title) in zip(panels, kinds.items(), strict=True):
        handles = [_line(axes, names, g.layers(kind, t), style) for style, g, t in drawn]
        axes.set_ylabel("CKA")
        axes.set_title(title)
        axes.grid(axis="y")
    _name_layers(panels[-1], names)
    legend(drawing, handles, labels)
    alt = [f"Line charts over {len(names)} layers, after experience {last}."]
    for kind, title in KINDS.items():
        alt += [
            f"{title} of {label}: {_extremes(group.layers(kind, t))}."
            for (_, group, t), label in zip(drawn, labels, strict=True)
            if group.layers(kind, t)
        ]
    caption = (
        f"{' and '.join(t.split()[0] for t in kinds.values()).capitalize()} of each layer after "
        f"experience {last}, from the input (left) to the output. Lines: mean over runs; bands: ± "
        "one standard deviation."
    )
    return Picture("layers", drawing, caption, " ".join(alt))


@styled
def stability_plasticity_steps(groups: Sequence[Group]) -> Picture | None:
    """Draw S and P of every layer after each experience, small.

    :param groups: a line each.
    :return: None if they were measured after fewer than two experiences.
    """
    every = sorted({t for group in groups for t in _steps(group)})
    if len(every) < 2:
        return None
    steps = _some(every)
    chosen = [(s, g) for s, g in zip(looks(groups), groups, strict=True) if _steps(g)]
    names = _layer_names([g.layers(kind, t) for _, g in chosen for kind in KINDS for t in steps])
    labels = [group.label for _, group in chosen]
    drawing = figure(1.0 + 1.35 * len(steps) + legend_height(labels))
    kinds = [kind for kind in KINDS if any(g.layers(kind, t) for _, g in chosen for t in steps)]
    panels = drawing.subplots(len(steps), len(kinds), sharex=True, sharey="col", squeeze=False)
    handles: list[Any] = []
    for column, kind in zip(panels.T, kinds, strict=True):
        measured = [t for t in steps if any(g.layers(kind, t) for _, g in chosen)]
        for axes, t in zip(column, steps, strict=True):
            if t not in measured:  # stability after the first experience is not defined
                axes.set_visible(False)
                continue
            handles = [
                _line(axes, names, g.layers(kind, t), style, small=True) for style, g in chosen
            ]
            axes.grid(axis="y")
            whole_ticks(axes, len(names))
            axes.set_ylabel(f"after {t}")
            axes.set_title(KINDS[kind] if t == measured[0] else "")
        column[steps.index(measured[-1])].set_xlabel("layer, by position")
    legend(drawing, handles, labels)
    alt = [f"Small line charts over {len(names)} layers after experiences {_listed(steps)}."]
    for kind, title in KINDS.items():
        for _, group in chosen:
            means = [_mean(group.layers(kind, t)) for t in steps]
            known = [
                f"{number(m, 3)} after {t}"
                for m, t in zip(means, steps, strict=True)
                if m is not None
            ]
            if known:
                alt.append(f"Mean {title} of {group.label}: {', '.join(known)}.")
    shown_kinds = " and ".join(KINDS[kind].split()[0] for kind in kinds)
    caption = f"{shown_kinds.capitalize()} of each layer after each experience."
    if len(steps) < len(every):
        caption += f" Shown: {_listed(steps)} of {len(every)} experiences."
    return Picture("layers-experiences", drawing, caption, " ".join(alt))


@styled
def likeness(curves: Mapping[str, Mapping[str, float]]) -> Picture:
    """Draw how alike networks are, layer by layer.

    :param curves: what is compared, for the legend → layer → CKA; a line each.
    """
    values = [{n: Statistic(v, None, 1) for n, v in layers.items()} for layers in curves.values()]
    names, labels = _layer_names(values), list(curves)
    drawing = figure(2.7 + _room(names) + legend_height(labels, 1))
    axes = drawing.add_subplot()
    handles = [
        _line(axes, names, layers, style)
        for layers, style in zip(values, looks_in_order(len(values)), strict=True)
    ]
    axes.set_ylabel("CKA")
    axes.grid(axis="y")
    _name_layers(axes, names)
    legend(drawing, handles, labels, 1)
    alt = [f"Line chart over {len(names)} layers."]
    alt += [f"{label}: {_extremes(v)}." for label, v in zip(labels, values, strict=True)]
    caption = "Linear CKA of each layer, from the input (left) to the output."
    return Picture("likeness", drawing, caption, " ".join(alt))


@styled
def branch_norms(group: Group) -> Picture | None:
    """Draw the norm of what branches added to each layer, a line per experience.

    :param group: of one strategy.
    :return: None if it had no branches.
    """
    every = group.layer_steps("branch_norms")
    if not every:
        return None
    steps = _some(every)
    names = _layer_names([group.layers("branch_norms", t) for t in steps])
    labels = [f"experience {t}" for t in steps]
    drawing = figure(2.7 + _room(names) + legend_height(labels, 3))
    axes = drawing.add_subplot()
    handles = [
        _line(axes, names, group.layers("branch_norms", t), style)
        for t, style in zip(steps, looks_in_order(len(steps)), strict=True)
    ]
    axes.set_ylim(bottom=0)
    axes.set_ylabel("Frobenius norm")
    axes.set_title(wrapped(f"Branch norms: {group.label}", 46))
    axes.grid(axis="y")
    _name_layers(axes, names)
    legend(drawing, handles, labels, 3)
    alt = [f"Line chart of branch norms over {len(names)} layers of {group.label}."]
    alt += [f"Experience {t}: {_extremes(group.layers('branch_norms', t))}." for t in steps]
    caption = (
        f"{group.label}: Frobenius norm of what the branches added to each layer's weights in an "
        "experience."
    )
    if len(steps) < len(every):
        caption += f" Shown: experiences {_listed(steps)} of {len(every)}."
    return Picture(f"branch-norms-{slug(group.name)}", drawing, caption, " ".join(alt), group.name)


def _line(
    axes: Axes, names: list[str], values: dict[str, Statistic], style: Look, small: bool = False
) -> Any:
    known = [values.get(name) for name in names]
    mean = np.array([np.nan if v is None else v.mean for v in known])
    spread = np.array([np.nan if v is None else v.deviation or 0 for v in known])
    x = np.arange(len(names))
    axes.fill_between(x, mean - spread, mean + spread, color=style.colour, alpha=0.16, linewidth=0)
    (line,) = axes.plot(
        x,
        mean,
        color=style.colour,
        linestyle=style.dashes,
        marker="" if small and len(names) > 1 else style.marker,
        markersize=3.5,
        markevery=max(1, len(names) // 16),
        linewidth=1.2 if small else 1.4,
    )
    return line


def _name_layers(axes: Axes, names: list[str]) -> None:
    step = -(-len(names) // MOST_NAMES)
    places = range(0, len(names), step)
    short = _short(names)
    axes.set_xticks(list(places), [short[i] for i in places], rotation=90, fontsize=8)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xlabel("layer" if step == 1 else f"layer (every {_ordinal(step)} is named)")


def _room(names: list[str]) -> float:
    return 0.075 * max(map(len, _short(names)))


def _short(names: list[str], most: int = 18) -> list[str]:
    """Return names of layers without the modules that all are in, and cut on the left."""
    parts = [one_line(name).split(".") for name in names]
    common = 0
    while all(len(p) > common + 1 and p[common] == parts[0][common] for p in parts):
        common += 1
    rest = [".".join(p[common:]) for p in parts]
    return [name if len(name) <= most else f"…{name[1 - most :]}" for name in rest]


def _layer_names(parts: Sequence[dict[str, Statistic]]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))


def _steps(group: Group) -> list[int]:
    return sorted({t for kind in KINDS for t in group.layer_steps(kind)})


def _some(steps: list[int]) -> list[int]:
    """Return the steps, or a few of many at equal distances with the first and the last."""
    if len(steps) <= MOST_STEPS:
        return steps
    places = np.linspace(0, len(steps) - 1, MOST_STEPS).round().astype(int)
    return [steps[i] for i in places]


def _mean(values: dict[str, Statistic]) -> float | None:
    return fmean(v.mean for v in values.values()) if values else None


def _extremes(values: dict[str, Statistic]) -> str:
    low = min(values, key=lambda name: values[name].mean)
    high = max(values, key=lambda name: values[name].mean)
    least, most = (shown(values[name], values[name].n, decimals=3) for name in (low, high))
    mean = number(fmean(v.mean for v in values.values()), 3)
    return f"mean {mean}, least {least} at {low}, most {most} at {high}"


def _listed(steps: list[int]) -> str:
    return ", ".join(str(t) for t in steps)


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third"}.get(n, f"{n}th")
