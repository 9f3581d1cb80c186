"""Keys of a configuration, sorted into known and unknown ones, and values of the expected types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from avalanche_branchtune.errors import ConfigError
from solo_bridge.compat.config_keys import KNOWN, changes_training


@dataclass
class Values:
    """Values of a configuration by full path.

    :param read: the values.
    :param ignored: keys that are not read.
    :param unknown: keys that nobody knows, with the likely ones that are known.
    :param lost: those of the ignored that would change training, and their values.
    :param needed: keys whose value is to be given, ``???``.
    """

    read: dict[str, Any] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    lost: dict[str, Any] = field(default_factory=dict)
    needed: list[str] = field(default_factory=list)

    def sort(self, section: Any, known: Mapping[str, Any], path: str = "") -> None:
        """Take up a section of a configuration.

        :param section: the section.
        :param known: what solo-learn knows in it.
        :param path: its full path, ending with a dot.
        """
        if not isinstance(section, Mapping):
            names = ", ".join(known)
            raise ConfigError(f"{path.rstrip('.')}: expected a mapping of {names}; got {section!r}")
        for key, value in section.items():
            status = known.get(key, "unknown")
            if status == "unknown":
                self.unknown.append(path + str(key) + suggestion(str(key), known, path))
            elif status is False:
                self.ignore(f"{path}{key}", value)
            elif value == "???":
                self.needed.append(f"{path}{key}")
            elif value is None:
                continue
            elif isinstance(status, Mapping):
                self.sort(value, status, f"{path}{key}.")
            else:
                self.read[f"{path}{key}"] = value

    def ignore(self, key: str, value: Any) -> None:
        """Take up a key that has no meaning here.

        :param key: its full path.
        :param value: what it says.
        """
        self.ignored.append(key)
        if value is not None and changes_training(key, value):
            self.lost[key] = value

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """Return a value of a type, or the default.

        :param key: its full path.
        :param kind: bool, dict, float, int, list or str; a number may be a text:
            yaml takes ``1e-4`` for one.
        :param default: what to return if the key is not there.
        """
        value = self.read.get(key)
        if value is None:
            return default
        number = kind in (float, int) and not isinstance(value, bool)
        with suppress(TypeError, ValueError, OverflowError):
            if number and kind(float(value)) == float(value):
                return kind(float(value))
        if number or not isinstance(value, kind):
            raise ConfigError(f"{key}: expected {_KINDS[kind]}, got {value!r}")
        return value

    def need(self, key: str, kind: type) -> Any:
        """Return a value that must be there."""
        value = self.get(key, kind)
        if value is None:
            raise ConfigError(f"{key} is missing")
        return value


_KINDS = {
    bool: "true or false",
    dict: "a mapping",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "a name",
}


def suggestion(key: str, known: Mapping[str, Any], path: str) -> str:
    """Return `` (did you mean …?)`` if there is a likely key in or outside a section.

    :param key: the unknown key.
    :param known: what solo-learn knows in the section.
    :param path: the section's full path, ending with a dot.
    """
    near = [path + k for k in get_close_matches(key, known, 1)]
    elsewhere = [p for p in _paths(KNOWN) if p.rpartition(".")[2] == key]
    return f" (did you mean {(near or elsewhere)[0]}?)" if near or elsewhere else ""


def _paths(known: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, status in known.items():
        yield path + key
        if isinstance(status, Mapping):
            yield from _paths(status, f"{path}{key}.")
