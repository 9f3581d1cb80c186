"""Checks of options: each returns the value, or refuses it as the user wrote it."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Real
from typing import TypeVar

from avalanche_branchtune.errors import UnknownOptionError, expected_one_of

T = TypeVar("T")


def one_of(argument: str, value: T, known: Collection[T]) -> T:
    """Return one of the known values.

    :param argument: what was set, as the user wrote it, for example
        ``BranchTuningPlugin(branch=…)``.
    :param value: what was given.
    :param known: what may be given.
    :raises UnknownOptionError: for anything else.

    Example::

        >>> from avalanche_branchtune.options import one_of
        >>> one_of("Plugin(mode=…)", "evel", ("eval", "train"))
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...one of eval, train; got 'evel'; did...
    """
    if value not in known:
        raise expected_one_of(argument, value, [str(k) for k in known])
    return value


def at_least(least: int, argument: str, value: int) -> int:
    """Return a whole number that is large enough.

    :param least: the smallest one.
    :param argument: see :func:`one_of`.
    :param value: what was given.
    :raises UnknownOptionError: if it is smaller, or no whole number.

    Example::

        >>> from avalanche_branchtune.options import at_least
        >>> at_least(2, "Plugin(memory=…)", 2)
        2
        >>> at_least(2, "Plugin(memory=…)", 2.5)
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...of at least 2; got 2.5
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _refused(argument, f"a whole number of at least {least}", value)
    return value


def at_least_one(argument: str, value: int) -> int:
    """Return a number of things, see :func:`at_least`.

    :param argument: see :func:`one_of`.
    :param value: what was given.

    Example::

        >>> from avalanche_branchtune.options import at_least_one
        >>> at_least_one("Plugin(steps=…)", 0)
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...of at least 1; got 0
    """
    return at_least(1, argument, value)


def positive(argument: str, value: float) -> float:
    """Return a number above 0.

    :param argument: see :func:`one_of`.
    :param value: what was given.
    :raises UnknownOptionError: unless it is above 0 and finite.

    Example::

        >>> from avalanche_branchtune.options import positive
        >>> positive("Plugin(weight=…)", float("inf"))
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...a finite number above 0; got inf
    """
    if not (_is_number(value) and value > 0 and math.isfinite(value)):
        raise _refused(argument, "a finite number above 0", value)
    return value


def not_negative(argument: str, value: float) -> float:
    """Return a number that may be 0: a rate, a weight decay.

    :param argument: see :func:`one_of`.
    :param value: what was given.
    :raises UnknownOptionError: unless it is 0 or above, and finite.

    Example::

        >>> from avalanche_branchtune.options import not_negative
        >>> not_negative("Plugin(lr=…)", 0.0)
        0.0
    """
    if not (_is_number(value) and value >= 0 and math.isfinite(value)):
        raise _refused(argument, "a finite number of at least 0", value)
    return value


def between(low: float, high: float, argument: str, value: float) -> float:
    """Return a number within bounds, which belong to them.

    :param low: the smallest one.
    :param high: the largest one.
    :param argument: see :func:`one_of`.
    :param value: what was given.
    :raises UnknownOptionError: for a number outside of them, or NaN.

    Example::

        >>> from avalanche_branchtune.options import between
        >>> between(0, 1, "Augmentation(flip_prob=…)", 1.5)
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...a number from 0 to 1; got 1.5
    """
    if not low <= value <= high:
        raise _refused(argument, f"a number from {low:g} to {high:g}", value)
    return value


def fraction(argument: str, value: float) -> float:
    """Return a share of something.

    :param argument: see :func:`one_of`.
    :param value: what was given.
    :raises UnknownOptionError: unless it is above 0 and at most 1.

    Example::

        >>> from avalanche_branchtune.options import fraction
        >>> fraction("Plugin(share=…)", 1)
        1
        >>> fraction("Plugin(share=…)", 0)
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...expected a share in (0, 1]; got 0
    """
    if not (_is_number(value) and 0 < value <= 1):
        raise _refused(argument, "a share in (0, 1]", value)
    return value


def true_or_false(argument: str, value: bool) -> bool:
    """Return a switch: a name or a number is no answer, although Python takes it for one.

    :param argument: see :func:`one_of`.
    :param value: what was given.
    :raises UnknownOptionError: unless it is True or False.

    Example::

        >>> from avalanche_branchtune.options import true_or_false
        >>> true_or_false("Plugin(pretrained=…)", "a file")
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...expected True or False; got 'a file'
    """
    if not isinstance(value, bool):
        raise _refused(argument, "True or False", value)
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _refused(argument: str, expected: str, value: object) -> UnknownOptionError:
    return UnknownOptionError(f"{argument}: expected {expected}; got {value!r}")
