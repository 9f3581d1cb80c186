"""Lesson 2: how alike two networks are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from avalanche_branchtune.analysis import linear_cka
from solo_bridge.lessons.exercises.answers import number, wrong_value


def alignment(answer: Callable[[Tensor, Tensor], Any]) -> str | None:
    """Check linear CKA of two sets of features.

    :param answer: from features ``(N, D)`` and ``(N, E)`` to a number.
    """
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=draw, dtype=torch.float64) + 1
    y = x[:, :3] @ torch.randn(3, 4, generator=draw, dtype=torch.float64) - 2
    before = x.clone(), y.clone()
    found = number(answer(x, y))
    if isinstance(found, str):
        return found
    if not (torch.equal(x, before[0]) and torch.equal(y, before[1])):
        return "It changes the features that it is given: use x = x - …, not x -= …"
    right = float(linear_cka(*before))
    centred = x - x.mean(dim=0), y - y.mean(dim=0)
    of_rows = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    hints = {
        _cka(*before): "Does the answer stay the same if every feature is moved by 5? It should.",
        _cka(*of_rows): "The mean of what? Each feature has its own, over the images.",
        _cka(*centred, squared=False): "One number is squared in the formula, two are not.",
        math.sqrt(right): "A root too many.",
    }
    return wrong_value(found, right, hints, "of two sets of features")


def of_a_frozen_network(answer: Any) -> str | None:
    """Check the stability of a network that does not learn any more.

    :param answer: a number.
    """
    if answer is None or answer is ...:
        return "There is no answer: put a number in place of None."
    found = number(answer)
    if isinstance(found, str):
        return found
    hint = "S compares the network after the last experience with the one before it. What changed?"
    return None if math.isclose(found, 1.0, abs_tol=1e-9) else hint


def _cka(x: Tensor, y: Tensor, squared: bool = True) -> float:
    power = 2 if squared else 1
    norms = [float((a.T @ b).norm()) for a, b in ((x, y), (x, x), (y, y))]
    return norms[0] ** power / (norms[1] * norms[2])
