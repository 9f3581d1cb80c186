"""How much a configuration may become: aliases and interpolations can double it line by line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from avalanche_branchtune.errors import ConfigError

MOST_BYTES = 2**18
"""Of a file; solo-learn's own have 2 KiB."""
MOST_PARTS = 20_000
"""Values, with those that aliases repeat."""
MOST_LETTERS = 200_000
"""With those that interpolations repeat."""
MOST_NESTED = 50

Path = tuple[str, ...]

_REFERENCE = re.compile(r"\$\{([^${}]*)\}")
_PATH = re.compile(r"(\.*)([\w/-]+(?:\.[\w/-]+|\[[\w/-]+\])*)")
_OUTSIDE = ("oc.env:", "now:")  # what they give is no part of the configuration


def check_yaml(text: str) -> None:
    """Refuse a text of which too much would come, before anything is made of it.

    :param text: of a yaml file.
    :raises ConfigError: with the number.
    :raises YAMLError: if it is no yaml.
    """
    sizes: dict[str, int] = {}
    within: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            within.append((event.anchor, 1))
            if len(within) > MOST_NESTED:
                raise ConfigError(f"more than {MOST_NESTED} levels inside one another")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = within.pop()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ConfigError(f"alias *{event.anchor} stands for nothing, or for itself")
            anchor, size = None, sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        within[-1] = (within[-1][0], within[-1][1] + size)
        if within[-1][1] > MOST_PARTS:
            raise ConfigError(f"more than {MOST_PARTS} values, with those of aliases")


def check_interpolations(content: Any, sections: Iterable[Path] = ((),)) -> None:
    """Refuse a configuration of which too much would come when it is resolved.

    :param content: what is in it, not resolved.
    :param sections: those that will be resolved.
    :raises ConfigError: with the path of the value; also for other interpolations
        than of a value by its path.
    """
    sizes: dict[Path, int | None] = {}
    try:
        total = sum(_size(content, path, sizes) for path in sections)
    except RecursionError as error:
        raise ConfigError("its interpolations lead too far from one to another") from error
    if total > MOST_LETTERS:
        raise ConfigError(f"more than {MOST_LETTERS} letters, with those of interpolations")


def _size(content: Any, path: Path, sizes: dict[Path, int | None]) -> int:
    """Return the letters of a value when it is resolved, with one for each part."""
    if path in sizes:
        known = sizes[path]
        if known is None:
            raise ConfigError(f"{'.'.join(path)}: its interpolations lead back to it")
        return known
    sizes[path] = None
    value, size = _found(content, path)[1], 1
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        size += sum(len(str(k)) + _size(content, (*path, str(k)), sizes) for k in keys)
    elif isinstance(value, str):
        size += len(value)
        for there in _references(value, path):
            size += _size(content, _found(content, there)[0], sizes)
    if size > MOST_LETTERS:
        raise ConfigError(
            f"{'.'.join(path) or 'all of it'}: more than {MOST_LETTERS} letters, with those of "
            "interpolations"
        )
    sizes[path] = size
    return size


def _references(text: str, path: Path) -> list[Path]:
    """Return the paths that a text refers to."""
    found: list[Path] = []
    for reference in _REFERENCE.findall(text):
        match = _PATH.fullmatch(reference.strip())
        if match is not None:
            dots, keys = match.groups()
            base = path[: max(0, len(path) - len(dots))] if dots else ()
            found.append((*base, *re.split(r"\.|\[", keys.replace("]", ""))))
        elif not reference.strip().startswith(_OUTSIDE):
            raise ConfigError(
                f"{'.'.join(path)}: {'${'}{reference[:80]}}}: only values of the configuration can "
                "be referred to, by their path"
            )
    if "${" in _REFERENCE.sub("", text):
        raise ConfigError(f"{'.'.join(path)}: {text[:80]!r}: an interpolation inside of another")
    return found


def _found(content: Any, path: Path) -> tuple[Path, Any]:
    """Return the value at a path, or the one that stands in its way, each with its path."""
    for i, step in enumerate(path):
        if isinstance(content, dict):
            content = next((v for k, v in content.items() if str(k) == step), None)
        elif isinstance(content, list):
            content = content[int(step)] if step.isdecimal() and int(step) < len(content) else None
        else:
            return path[:i], content
    return path, content
