"""Whether settings fit what takes them: their names, and the types that its signature says."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from avalanche_branchtune.errors import ConfigError, UnknownOptionError, did_you_mean


def known(where: str, given: Iterable[Any], names: Iterable[str]) -> None:
    """Refuse names that are none.

    :param where: their full path, ``""`` at the top.
    :param given: names that are given.
    :param names: those that there are.
    :raises UnknownOptionError: with the nearest name.
    """
    names = list(dict.fromkeys(names))
    for name in given:
        if name not in names:
            path = f"{where}.{name}" if where else str(name)
            raise UnknownOptionError(
                f"unknown {path}{did_you_mean(name, names)}; there are {', '.join(names) or 'none'}"
            )


def mapping(where: str, given: Any) -> dict[str, Any]:
    """Return a section of settings.

    :param where: its full path.
    :param given: what stands there; None for nothing.
    :raises ConfigError: for anything but a mapping.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected settings, as {where}.NAME=…; got {given!r}")
    return dict(given)


def fits(where: str, value: Any, hint: Any) -> Any:
    """Return a value of a type; a list may stand for a tuple, a whole number for any.

    :param where: its full path.
    :param value: plain data.
    :param hint: the type, as an annotation says it; what cannot be checked is not.
    :raises ConfigError: naming what was expected.
    """
    checks = _checks(hint)
    if checks is None:
        return value
    try:
        checks.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        said = [one["msg"].removeprefix("Input should be ") for one in error.errors()]
        told = [one for one in dict.fromkeys(said) if "JSON" not in one]
        raise ConfigError(
            f"{where}: expected {' or '.join(told) or hint}; got {value!r}"
        ) from error
    return value


def arguments(
    where: str, given: Mapping[str, Any], function: Callable[..., Any], skip: Iterable[str] = ()
) -> None:
    """Refuse settings that are no arguments of a function, or of another type than it says.

    :param where: their full path.
    :param given: argument → plain data.
    :param function: or a class.
    :param skip: arguments that cannot be given.
    :raises UnknownOptionError: see :func:`known`.
    :raises ConfigError: see :func:`fits`.
    """
    parameters = inspect.signature(function).parameters
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not any_name:
        known(where, given, [name for name in parameters if name not in {*skip, "self"}])
    hints = _hints(function)
    for name, value in given.items():
        if name in hints and name in parameters:
            fits(f"{where}.{name}", value, hints[name])


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    called = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    called = getattr(called, "func", called)  # of a partial
    try:
        return get_type_hints(called)
    except (NameError, TypeError):
        return {}


@cache
def _checker(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a type that has settings of its own
        try:
            return TypeAdapter(hint)
        except PydanticUserError:
            return None


def _checks(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return _checker(hint)
    except TypeError:  # an annotation that cannot be hashed
        return None
