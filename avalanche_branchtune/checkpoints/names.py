"""Classes and functions by name: which of them a file can mean."""

from __future__ import annotations

import sys
from typing import Any

TRUSTED = frozenset(
    {"avalanche", "avalanche_branchtune", "builtins", "collections", "solo", "solo_bridge"}
    | {"timm", "torch", "torchmetrics", "torchvision"}
)
"""Packages of whose classes objects are made, and whose functions are looked up."""

OWN = ("avalanche.", "avalanche_branchtune.", "solo_bridge.")
"""Packages of whose functions calls with arguments are made."""


def find(name: str) -> Any:
    """Return a class or function by its name, None if it is not one of those that are trusted.

    :param name: ``"module:qualified name"``.
    """
    module, _, qualified = name.partition(":")
    found = sys.modules.get(module) if module.split(".")[0] in TRUSTED else None
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return found


def name_of(cls: type) -> str:
    """Return the name of a class.

    :param cls: the class.
    """
    return f"{cls.__module__}:{cls.__qualname__}"
