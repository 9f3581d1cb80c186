"""Data sets in a checkpoint: they are not written, but found again in the process that reads."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from avalanche.benchmarks import CLExperience, CLStream
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.benchmarks.utils.flat_data import FlatData
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from torch import Tensor
from torch.utils.data import Dataset

DATA = (AvalancheDataset, FlatData, DataAttribute, Dataset, CLExperience, CLStream)
"""Classes of what holds samples."""


def found_again(value: Any) -> bool:
    """Tell whether an object is not written: it holds samples, or what is computed of them.

    :param value: that the script has made; one that a checkpoint made is another object.
    """
    return isinstance(value, DATA) or getattr(type(value), "computed_again", False)


@functools.cache
def _is_named(kind: type) -> bool:
    """Tell whether objects of a class have names; Avalanche's classes are slow to ask."""
    return issubclass(kind, (*DATA, list, TransformGroups)) and not issubclass(kind, Tensor)


@functools.cache
def _has_parts(kind: type) -> bool:
    return issubclass(kind, (AvalancheDataset, FlatData, DataAttribute, TransformGroups))


class NamedData:
    """The data of experiences by names that they have in another process too.

    A buffer of samples refers to these, by the places of its samples in them.  Each experience is
    looked into once.
    """

    def __init__(self) -> None:
        """See the class."""
        self._experiences: list[Any] = []
        self._found: dict[str, Any] = {}
        self._seen: dict[int, Any] = {}  # kept, so that no id is given again

    def of(self, experiences: Sequence[Any]) -> Mapping[str, Any]:
        """Return the data of experiences by their names.

        :param experiences: in the order in which a strategy was trained on them.
        """
        known = len(self._experiences)
        if any(a is not b for a, b in zip_longest(self._experiences, experiences[:known])):
            self._experiences, self._found, self._seen = [], {}, {}
        for i in range(len(self._experiences), len(experiences)):
            self._name(experiences[i].dataset, f"experience {i}")
            self._experiences.append(experiences[i])
        return self._found

    def _name(self, value: Any, path: str) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        kind: Any = type(value)
        if _is_named(kind):
            self._found[path] = value
        if _has_parts(kind):
            for key, part in vars(value).items():
                self._name(part, f"{path}.{key}")
        elif isinstance(value, list | tuple) and len(value) < 100:
            for i, part in enumerate(value):
                self._name(part, f"{path}[{i}]")
        elif isinstance(value, Mapping):
            for key, part in value.items():
                self._name(part, f"{path}[{key!r}]")


def within(value: Any) -> list[Any]:
    """Return all objects that can be reached from one; samples and tensors are not looked into.

    :param value: for example a strategy.
    """
    found: list[Any] = []
    seen: set[int] = set()
    left = [value]
    while left:
        part = left.pop()
        if id(part) in seen or isinstance(part, str | bytes | int | float | type | Tensor):
            continue
        seen.add(id(part))
        found.append(part)
        if isinstance(part, DATA):
            continue
        if isinstance(part, Mapping):
            left.extend([*part.values(), getattr(part, "default_factory", None)])
        elif isinstance(part, list | tuple | set):
            left.extend(part)
        elif hasattr(part, "__dict__"):
            left.extend(vars(part).values())
    return found
