"""Accuracy during training."""

from __future__ import annotations

import math

from avalanche_branchtune.report.figures.style import (
    GREY,
    Picture,
    figure,
    legend,
    legend_height,
    looks_in_order,
    styled,
    wrapped,
)
from avalanche_branchtune.report.formats import number, slug
from avalanche_branchtune.report.groups import Group


@styled
def trace(group: Group) -> Picture | None:
    """Draw the accuracy on every test experience against the training iterations.

    :param group: of one strategy.
    :return: None if nothing was measured during training.
    """
    found = group.trace
    if found is None:
        return None
    measured, n = found
    tests = len(measured.accuracies[0])
    labels = [f"test experience {i}" for i in range(tests)] if tests > 1 else ["common test set"]
    drawing = figure(3.1 + legend_height(labels))
    axes = drawing.add_subplot()
    handles, alt = [], [f"Line chart of the accuracy of {group.shown} during training, in percent."]
    for i, (label, style) in enumerate(zip(labels, looks_in_order(tests), strict=True)):
        values = [100 * row[i] for row in measured.accuracies]
        (line,) = axes.plot(
            measured.iterations,
            values,
            color=style.colour,
            linestyle=style.dashes,
            marker=style.marker,
            markersize=3.5,
            markevery=max(1, len(values) // 12),
            linewidth=1.3,
        )
        handles.append(line)
        known = [v for v in values if not math.isnan(v)]
        if known:
            alt.append(
                f"{label}: first {number(known[0])}, highest {number(max(known))}, last "
                f"{number(known[-1])}."
            )
    begins = [float(measured.iterations[0])]
    for k in range(1, len(measured.iterations)):
        if measured.experiences[k] != measured.experiences[k - 1]:
            begins.append((measured.iterations[k - 1] + measured.iterations[k]) / 2)
            axes.axvline(begins[-1], color=GREY, linewidth=0.9, linestyle=(0, (4, 2)))
    ends = [*begins[1:], float(measured.iterations[-1])]
    trained = list(dict.fromkeys(measured.experiences))
    if len(begins) == len(trained) <= 12:
        for begin, end, experience in zip(begins, ends, trained, strict=True):
            axes.text(
                (begin + end) / 2,
                1.01,
                str(experience),
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=8.5,
                color=GREY,
            )
    axes.grid(axis="y")
    axes.set_xlabel("training iteration")
    axes.set_ylabel("accuracy in %")
    axes.set_title(wrapped(f"{group.shown} (n = {n}): accuracy during training", 46), pad=18)
    legend(drawing, handles, labels)
    runs = "one run" if n == 1 else f"mean over {n} runs"
    caption = (
        f"{group.label}: accuracy on each test experience during training, {runs}. Dashed vertical "
        "lines: a new experience begins; the numbers above them: which one is trained."
    )
    return Picture(f"training-{slug(group.name)}", drawing, caption, " ".join(alt), group.name)
