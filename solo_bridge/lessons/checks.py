"""Checks of the lessons' exercises: they say what is wrong, not what is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avalanche_branchtune.options import one_of
from solo_bridge.lessons.exercises import anchor, branches, forgetting, labels, layers

EXERCISES: dict[str, Callable[[Any], str | None]] = {
    "forgetting": forgetting.forgetting,
    "alignment": layers.alignment,
    "stability of a frozen network": layers.of_a_frozen_network,
    "branch as a kernel": branches.as_kernel,
    "merge": branches.merged,
    "how many numbers learn": branches.learning,
    "classification": labels.classification,
    "class distillation": labels.class_distillation,
    "anchor by importance": anchor.by_importance,
}
"""Exercise → what is wrong with an answer; None if it is right."""


def check(exercise: str, answer: Any) -> None:
    """Print whether an answer is right, and if it is not, what to look at.

    :param exercise: name of the exercise, as the lesson gives it.
    :param answer: what the exercise asks for, a function or a value.
    :raises UnknownOptionError: for an exercise that no lesson has.
    """
    one_of("check(exercise=…)", exercise, EXERCISES)
    try:
        wrong = EXERCISES[exercise](answer)
    except Exception as error:
        wrong = f"It stops with {type(error).__name__}: {error}"
    print(f"{exercise}: {'right!' if wrong is None else f'not yet. {wrong}'}")
