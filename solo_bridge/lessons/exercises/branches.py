"""Lesson 3: branches of a convolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from solo_bridge.lessons.exercises.answers import number, wrong_tensor


def as_kernel(answer: Callable[[Tensor, int], Any]) -> str | None:
    """Check a branch that is written as a kernel of full size.

    :param answer: from a branch ``(O, I, h, w)`` and k to ``(O, I, k, k)``.
    """
    for k, size in ((3, (1, 3)), (3, (3, 1)), (3, (1, 1)), (5, (1, 5))):
        branch = 1 + torch.arange(6.0 * size[0] * size[1]).reshape(2, 3, *size)
        found = answer(branch, k)
        shape = f"a {size[0]}×{size[1]} branch as a {k}×{k} kernel"
        wrong = wrong_tensor(found, (2, 3, k, k))
        if wrong:
            return f"{shape}: {wrong}"
        if not math.isclose(float(found.sum()), float(branch.sum())):
            return f"{shape}: the numbers around the branch should be zero, and its own all there."
        images = torch.arange(3.0 * 7 * 7).reshape(1, 3, 7, 7).sin()
        alone = F.conv2d(images, branch, padding=(size[0] // 2, size[1] // 2))
        if not torch.allclose(F.conv2d(images, found, padding=k // 2), alone, atol=1e-3):
            return f"{shape}: it computes something else than the branch. Is it in the middle?"
    return None


def merged(answer: Callable[[Tensor, list[Tensor]], Any]) -> str | None:
    """Check a kernel with its branches merged.

    :param answer: from a kernel ``(O, I, 3, 3)`` and a list of branches to a kernel.
    """
    kernel = torch.arange(54.0).reshape(2, 3, 3, 3)
    wide, high = torch.full((2, 3, 1, 3), 2.0), torch.full((2, 3, 3, 1), 3.0)
    before = kernel.clone()
    found = answer(kernel, [wide, high])
    wrong = wrong_tensor(found, (2, 3, 3, 3))
    if wrong:
        return wrong
    if not torch.equal(kernel, before):
        return "It changes the kernel that it is given: make a new one."
    right = torch.zeros(3, 3)
    right[1], right[:, 1] = 2, 3
    right[1, 1] = 5
    if torch.equal(found, right.expand_as(found)):
        return "It is the sum of the branches. And the kernel itself?"
    change = found - before
    if not change.any():
        return "It is the kernel as it was: where are the branches?"
    if change[:, :, ::2, ::2].any():
        return "A corner of the kernel changed. Neither branch reaches one."
    if not bool((change[:, :, 1, 1] == 5).all()):
        return "Look at the middle: how many branches reach it?"
    return None if torch.equal(change, right.expand_as(change)) else "A branch lies elsewhere."


def learning(answer: Callable[[int, int, int], Any]) -> str | None:
    """Check how many numbers the branches of a convolution have.

    :param answer: from input channels, output channels and k to their number.
    """
    for channels, outputs, k in ((16, 32, 3), (4, 4, 5), (16, 32, 1)):
        found = number(answer(channels, outputs, k))
        if isinstance(found, str):
            return found
        right = channels * outputs * (2 * k if k > 1 else 1)
        if found == right:
            continue
        case = f"{channels} channels to {outputs}, {k}×{k}"
        if k == 1:
            return f"{case}: here both branches would be the same 1×1 kernel. One is enough."
        if found == channels * outputs * k * k:
            return f"{case}: those are the kernel's own. Count the branches'."
        if found == 2 * k:
            return f"{case}: for one pair of channels, yes. How many pairs are there?"
        return f"{case}: {found:g} is not their number. Write down the shape of each branch first."
    return None
