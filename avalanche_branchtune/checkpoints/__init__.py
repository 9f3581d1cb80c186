"""Runs that last: what is saved of a run, and how it goes on after an interruption."""

from avalanche_branchtune.checkpoints.plugin import Checkpoints

__all__ = ["Checkpoints"]
