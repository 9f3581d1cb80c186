"""The figures of a report, without pyplot: no display, no global state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from avalanche_branchtune.report.figures.curves import curves
from avalanche_branchtune.report.figures.layers import (
    branch_norms,
    last_stability_plasticity,
    stability_plasticity_steps,
)
from avalanche_branchtune.report.figures.matrices import matrix
from avalanche_branchtune.report.figures.scatter import embeddings
from avalanche_branchtune.report.figures.style import Picture, save
from avalanche_branchtune.report.figures.traces import trace
from avalanche_branchtune.report.groups import Group
from avalanche_branchtune.report.tables import probes_of

__all__ = ["Picture", "all_pictures", "save"]


def all_pictures(groups: Sequence[Group]) -> dict[str, list[Picture]]:
    """Draw everything for which there are numbers.

    :param groups: each in its own colour.
    :return: kind of figure → its figures; kinds without any are left out.
    """
    probes = probes_of(groups)
    drawn: dict[str, Iterable[Picture | None]] = {
        "curves": [curves(groups, probe) for probe in probes],
        "matrices": [matrix(group, probe) for probe in probes for group in groups],
        "layers": [last_stability_plasticity(groups), stability_plasticity_steps(groups)],
        "embeddings": embeddings(groups),
        "branch_norms": [branch_norms(group) for group in groups],
        "traces": [trace(group) for group in groups],
    }
    found = {kind: [p for p in pictures if p is not None] for kind, pictures in drawn.items()}
    _name_apart([picture for pictures in found.values() for picture in pictures])
    return {kind: pictures for kind, pictures in found.items() if pictures}


def _name_apart(pictures: Sequence[Picture]) -> None:
    """Number the files whose names would be the same."""
    taken: set[str] = set()
    for picture in pictures:
        name, key, number = picture.key.strip("-"), picture.key.strip("-"), 2
        while key in taken:
            key, number = f"{name}-{number}", number + 1
        taken.add(key)
        picture.key = key
