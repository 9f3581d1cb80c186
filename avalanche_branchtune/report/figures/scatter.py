"""Features in the plane, coloured by experience."""

from __future__ import annotations

import numpy as np

from avalanche_branchtune.report.embedding import embed
from avalanche_branchtune.report.figures.style import (
    Picture,
    figure,
    legend,
    legend_height,
    looks_in_order,
    styled,
    wrapped,
)
from avalanche_branchtune.report.formats import slug
from avalanche_branchtune.report.groups import Group


@styled
def embedding(group: Group) -> Picture | None:
    """Draw the features of a group's first run that has some.

    :param group: of one strategy.
    :return: None if no run kept features.
    """
    run = next((run for run in group.furthest if run.sample is not None), None)
    if run is None or run.sample is None or len(run.sample.features) == 0:
        return None
    found = embed(run.sample.features)
    where = np.asarray(run.sample.experiences)[found.taken]
    present = [int(e) for e in np.unique(where)]
    labels = [f"test experience {e}" for e in present]
    drawing = figure(4.0 + legend_height(labels), width=4.5)
    axes = drawing.add_subplot()
    handles = [
        axes.scatter(
            found.points[where == e, 0],
            found.points[where == e, 1],
            s=16,
            color=style.colour,
            marker=style.marker,
            alpha=0.75,
            linewidths=0,
        )
        for e, style in zip(present, looks_in_order(len(present)), strict=True)
    ]
    name = group.shown if run.seed is None else f"{group.shown}, seed {run.seed}"
    axes.set_title(wrapped(name, 44))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(wrapped(found.method, 46))
    axes.set_aspect("equal", adjustable="datalim")
    legend(drawing, handles, labels)
    total, taken = len(run.sample.features), len(found.taken)
    samples = f"{total}" if taken == total else f"{taken} of {total}"
    progress = "" if run.complete else f" ({run.finished} of {run.n_experiences} experiences)"
    caption = (
        f"{name}{progress}: {samples} test samples' features after the last finished experience, "
        f"by {found.method}. Colours and markers: the experience a sample belongs to. Distances "
        "between groups of points are a hint, not a measurement."
    )
    counts = ", ".join(f"{int((where == e).sum())} of experience {e}" for e in present)
    alt = f"Scatter plot of {name}: features of {taken} test samples ({counts}) by {found.method}."
    return Picture(f"embedding-{slug(group.name)}", drawing, caption, alt)
