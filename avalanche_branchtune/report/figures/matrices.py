"""Accuracy matrices as heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Patch, Rectangle

from avalanche_branchtune.report.figures.style import GREY, Picture, figure, styled, wrapped
from avalanche_branchtune.report.formats import number, one_line, slug
from avalanche_branchtune.report.groups import Group, Statistic

MOST_WITH_NUMBERS = 16
COLOURS, SCALE = matplotlib.colormaps["YlGnBu"], Normalize(0, 100)
NOT_MEASURED: dict[str, Any] = {
    "facecolor": "#ededed",
    "edgecolor": "#9a9a9a",
    "hatch": "////",
    "linewidth": 0.0,
}


@styled
def matrix(group: Group, probe: str) -> Picture | None:
    """Draw the accuracy on every test experience after every training experience.

    :param group: of one strategy.
    :param probe: whose accuracies.
    :return: None if the probe was not run.
    """
    cells = group.cells(probe)
    if not cells:
        return None
    names = ["all"] if group.at_once else [str(t) for t in range(group.n_experiences)]
    unfinished: list[Statistic | None] = [None] * len(cells[0])
    rows = [*cells, *[unfinished] * (group.n_experiences - len(cells))]
    before = group.before_cells(probe)
    if before is not None:
        rows, names = [before, *rows], ["none", *names]
    height, width = len(rows), len(rows[0])
    side = min(0.55, 3.4 / width, 20 / height)  # inches; a stream may have 1000 experiences
    hatched = any(c is None for row in rows for c in row)
    drawing = figure(1.15 + side * height + 0.25 * hatched, max(3.9, side * width + 0.9))
    axes = drawing.add_subplot()
    values = np.array([[np.nan if c is None else 100 * c.mean for c in row] for row in rows])
    axes.imshow(np.ma.masked_invalid(values), cmap=COLOURS, norm=SCALE, aspect="equal")
    _mark(axes, values)
    _tick(axes, names, width)
    axes.set_xlabel("test experience" if width > 1 else "common test set")
    axes.set_ylabel("trained up to")
    axes.set_title(f"{wrapped(group.label, 44)}\nprobe {one_line(probe)}")
    if before is not None:
        axes.axhline(0.5, color="white", linewidth=3)
    if width > MOST_WITH_NUMBERS:
        bar = ScalarMappable(SCALE, COLOURS)
        drawing.colorbar(bar, ax=axes, label="accuracy in %", fraction=0.05, pad=0.03)
    if hatched:
        drawing.legend(
            handles=[Patch(**NOT_MEASURED, label="not measured")],
            loc="outside lower center",
            frameon=False,
        )
    runs = "the only run" if len(group.runs) == 1 else f"{len(group.runs)} runs"
    caption = (
        f"{group.label}: accuracy in percent on each test experience (column) after each training "
        f"experience (row), probe {probe}; mean over {runs}."
    )
    if before is not None:
        caption += " Row “none”: the network before training."
    alt = [f"Heatmap of the accuracy matrix of {group.label}, probe {probe}, in percent."]
    for name, row in zip(names, rows, strict=True):
        known = ["not measured" if c is None else number(100 * c.mean) for c in row]
        if any(c is not None for c in row):
            alt.append(f"After {name if name != 'none' else 'no training'}: {', '.join(known)}.")
    return Picture(
        f"matrix-{slug(probe)}-{slug(group.name)}", drawing, caption, " ".join(alt), group.name
    )


def _mark(axes: Axes, values: np.ndarray) -> None:
    height, width = values.shape
    with_numbers = width <= MOST_WITH_NUMBERS
    for t in range(height):
        edges = np.flatnonzero(np.diff(np.isnan(values[t]).astype(int), prepend=0, append=0))
        for begin, end in edges.reshape(-1, 2):
            axes.add_patch(Rectangle((begin - 0.5, t - 0.5), end - begin, 1, **NOT_MEASURED))
        for i in np.flatnonzero(~np.isnan(values[t])).tolist() if with_numbers else ():
            axes.text(
                i,
                t,
                number(values[t, i], 0 if width > 8 else 1),
                ha="center",
                va="center_baseline",
                fontsize=7.5 if width > 14 else 8.5,
                color=_readable_on(COLOURS(SCALE(values[t, i]))),
            )
    axes.set_xticks(np.arange(width + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(height + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)


def _tick(axes: Axes, names: Sequence[str], width: int) -> None:
    step = 1 + width // 16
    axes.set_xticks(range(0, width, step), [str(i) for i in range(0, width, step)])
    if width == 1:
        axes.set_xticks([])
    rows = range(0, len(names), 1 + len(names) // 18)
    axes.set_yticks(list(rows), [names[t] for t in rows])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=GREY, labelcolor="black")


def _readable_on(colour: Sequence[float]) -> str:
    """Return black or white, whichever contrasts more (WCAG's relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"
