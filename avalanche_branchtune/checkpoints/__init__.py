"""Runs that last: what is saved of a run, and how it goes on after an interruption."""

from typing import TYPE_CHECKING

from avalanche_branchtune.lazy import exports

if TYPE_CHECKING:
    from avalanche_branchtune.checkpoints.plugin import Checkpoints

__all__ = ["Checkpoints"]

__getattr__ = exports(__name__, {"Checkpoints": "plugin"})
