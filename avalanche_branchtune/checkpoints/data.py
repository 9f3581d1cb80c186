"""Data sets in a checkpoint: they are not written, but found again in the process that reads."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
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


def named_data(experiences: Iterable[Any]) -> dict[str, Any]:
    """Return the data of experiences by names that they have in another process too.

    A buffer of samples refers to these, by the places of its samples in them.

    :param experiences: in the order in which a strategy was trained on them.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def name(value: Any, path: str) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        kind: Any = type(value)
        if _is_named(kind):
            found[path] = value
        if _has_parts(kind):
            for key, part in vars(value).items():
                name(part, f"{path}.{key}")
        elif isinstance(value, list | tuple) and len(value) < 100:
            for i, part in enumerate(value):
                name(part, f"{path}[{i}]")
        elif isinstance(value, Mapping):
            for key, part in value.items():
                name(part, f"{path}[{key!r}]")

    for i, experience in enumerate(experiences):
        name(experience.dataset, f"experience {i}")
    return found


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
            left.extend(part.values())
        elif isinstance(part, list | tuple | set):
            left.extend(part)
        elif hasattr(part, "__dict__"):
            left.extend(vars(part).values())
    return found
