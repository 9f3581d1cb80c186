"""Features in the plane, coloured by class, on the same axes for all strategies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avalanche_branchtune.records import Run
from avalanche_branchtune.report.embedding import Embedding, embed
from avalanche_branchtune.report.figures.style import (
    Picture,
    figure,
    legend,
    legend_height,
    looks_of_classes,
    styled,
    wrapped,
)
from avalanche_branchtune.report.formats import slug
from avalanche_branchtune.report.groups import Group

MOST_NAMED = 20


def embeddings(groups: Sequence[Group]) -> list[Picture]:
    """Draw the features of each group's first run that has some, all to one scale.

    :param groups: a picture each; none for those without features.
    """
    chosen = []
    for group in groups:
        run = next(
            (r for r in group.furthest if r.sample is not None and len(r.sample.labels)), None
        )
        if run is not None:
            chosen.append((group, run, _placed(run)))
    if not chosen:
        return []
    every = np.concatenate([found.points for _, _, found in chosen])
    low, high = every.min(axis=0), every.max(axis=0)
    room = np.maximum(0.05 * (high - low), 1e-3)
    classes = np.unique(np.concatenate([run.sample.labels for _, run, _ in chosen if run.sample]))
    return [_picture(*one, (low - room, high + room), classes.tolist()) for one in chosen]


def _placed(run: Run) -> Embedding:
    """Return the features in the plane, each of length 1 first, so that networks compare."""
    assert run.sample is not None
    features = np.asarray(run.sample.features, dtype=np.float64)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    found = embed(features / np.where(length > 0, length, 1))
    return Embedding(found.points - found.points.mean(axis=0), found.taken, found.method)


@styled
def _picture(
    group: Group,
    run: Run,
    found: Embedding,
    limits: tuple[np.ndarray, np.ndarray],
    classes: list[int],
) -> Picture:
    assert run.sample is not None
    of = np.asarray(run.sample.labels)[found.taken]
    labels = [f"class {c}" for c in classes]
    named = len(classes) <= MOST_NAMED
    drawing = figure(4.0 + (legend_height(labels, 4) if named else 0), width=4.5)
    axes = drawing.add_subplot()
    handles = [
        axes.scatter(
            found.points[of == c, 0],
            found.points[of == c, 1],
            s=16,
            color=style.colour,
            marker=style.marker,
            alpha=0.75,
            linewidths=0,
        )
        for c, style in zip(classes, looks_of_classes(len(classes)), strict=True)
    ]
    name = group.shown if run.seed is None else f"{group.shown}, seed {run.seed}"
    axes.set_title(wrapped(name, 44))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(wrapped(found.method, 46))
    axes.set_xlim(limits[0][0], limits[1][0])
    axes.set_ylim(limits[0][1], limits[1][1])
    axes.set_aspect("equal", adjustable="box")
    if named:
        legend(drawing, handles, labels, 4)
    total, taken = len(run.sample.features), len(found.taken)
    samples = f"{total}" if taken == total else f"{taken} of {total}"
    progress = "" if run.complete else f" ({run.finished} of {run.n_experiences} experiences)"
    caption = (
        f"{name}{progress}: {samples} test samples' features of length 1 after the last finished "
        f"experience, by {found.method}. Colours and markers: the class of a sample. The axes have "
        "the same limits for all strategies. Distances between groups of points are a hint, not a "
        "measurement."
    )
    counts = ", ".join(f"{int((of == c).sum())} of class {c}" for c in classes)
    alt = f"Scatter plot of {name}: features of {taken} test samples ({counts}) by {found.method}."
    return Picture(f"embedding-{slug(group.name)}", drawing, caption, alt, group.name)
