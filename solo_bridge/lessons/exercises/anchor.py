"""Lesson 5: a penalty of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from solo_bridge.lessons.exercises.answers import number, wrong_value


def by_importance(answer: Callable[[list[Tensor], list[Tensor], list[Tensor]], Any]) -> str | None:
    """Check the penalty on the way from earlier weights, important ones pulled harder.

    :param answer: from parameters, their earlier values and importances to a scalar.
    """
    now = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)]
    earlier = [torch.tensor([0.0, 4.0]), torch.tensor([[0.0]])]
    importance = [torch.tensor([2.0, 1.0]), torch.tensor([[3.0]])]
    loss = answer(now, earlier, importance)
    found = number(loss)
    if isinstance(found, str):
        return found
    hints = {
        7.0: "Every weight is pulled alike: where are the importances?",
        33.0: "The half is missing: with it the gradient is importance times the way.",
        44.5: "The importances are squared: only the way should be.",
        33 / 6: "A mean? Every weight counts: take the sum.",
        3.0: "Only the first parameter? Add them all.",
        13.5: "Only the last parameter? Add them all.",
    }
    wrong = wrong_value(found, 16.5, hints, "of two parameters")
    if wrong is None and not (isinstance(loss, Tensor) and loss.requires_grad):
        return "The number is right, but nothing is pulled back by it: return the tensor."
    return wrong
