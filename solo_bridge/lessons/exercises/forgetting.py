"""Lesson 1: forgetting as a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from solo_bridge.lessons.exercises.answers import number, wrong_value


def forgetting(answer: Callable[[list[list[float]]], Any]) -> str | None:
    """Check the mean forgetting of an accuracy matrix.

    :param answer: from the rows of the matrix to a number.
    """
    # Column 0 is best after its own experience, column 1 before it, column 2 at the end.
    rows = [[0.6, 0.8, 0.1, 0.1], [0.9, 0.6, 0.2, 0.2], [0.8, 0.5, 0.5, 0.3], [0.7, 0.5, 0.6, 0.9]]
    found = number(answer(rows))
    if isinstance(found, str):
        return found
    negative = "Can forgetting be negative? The best ever includes the end."
    hints = {
        -0.5 / 3: "The sign: what was lost counts as positive.",
        0.5: "A sum? It should not grow with the number of experiences.",
        50 / 3: "Percent? The matrix holds shares between 0 and 1; so should the answer.",
        0.5 / 4: "How often can the last experience have been forgotten? Leave it out.",
        -0.1 / 3: "You begin with the accuracy right after an experience. Was it ever better?",
        0.3: "The worst experience? Take the mean.",
        0.4 / 3: negative,
        0.2 / 3: negative,
        0.3 / 3: "Best ever: also before its own experience, where it was still to come.",
    }
    return wrong_value(found, 0.5 / 3, hints, "of a small matrix")
