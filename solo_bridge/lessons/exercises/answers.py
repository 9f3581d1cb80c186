"""What answers have in common: numbers and tensors, or nothing yet."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

NOTHING = "There is no answer: write its lines, and `return` what they give."


def number(found: Any) -> float | str:
    """Return an answer as a number, or say why it is none.

    :param found: what the student's function gave.
    """
    if found is None or found is ...:
        return NOTHING
    if isinstance(found, Tensor) and found.numel() != 1:
        return f"It gives a tensor of shape {tuple(found.shape)}: one number is asked for."
    try:
        value = float(found.detach() if isinstance(found, Tensor) else found)
    except (TypeError, ValueError):
        return f"It gives {type(found).__name__}: a number is asked for."
    return value if math.isfinite(value) else f"It gives {value}."


def wrong_tensor(found: Any, shape: tuple[int, ...]) -> str | None:
    """Return what is wrong with a tensor before its values are looked at.

    :param found: what the student's function gave.
    :param shape: that it should have.
    """
    if found is None or found is ...:
        return NOTHING
    if not isinstance(found, Tensor):
        return f"It gives {type(found).__name__}: a tensor is asked for."
    if tuple(found.shape) != shape:
        return f"It gives the shape {tuple(found.shape)}: {shape} is asked for."
    return None


def wrong_value(found: float, right: float, hints: dict[float, str], of: str) -> str | None:
    """Return what is wrong with a number.

    :param found: by the student.
    :param right: what is right.
    :param hints: value that a known slip gives → what to look at.
    :param of: what it is the number of.
    """
    if math.isclose(found, right, rel_tol=1e-4, abs_tol=1e-6):
        return None
    for wrong, hint in hints.items():
        if math.isclose(found, wrong, rel_tol=1e-4, abs_tol=1e-6):
            return hint
    return f"It gives {found:.4g} {of}, which is not it: do the same by hand."
