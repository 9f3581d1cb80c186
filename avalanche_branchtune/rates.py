"""Branches at a multiple of their kernels' learning rate: parameter groups that follow others.

A schedule need not be proportional to a group's own rate (a warm-up begins, and a cosine may end,
at a rate that is the same for all), and one that was made before a group joined knows nothing of
it.  So the rates of branches are not left to schedules: :func:`follow` sets them before each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

PLACE = "branches_of"
"""Setting of a group of branches: the place of their kernels' group in the optimizer."""

_OWN = frozenset({"params", "param_names", "name", PLACE})
_RATES = frozenset({"lr", "initial_lr"})
_PER_GROUP = ("base_lrs", "lr_lambdas", "max_lrs", "min_lrs", "base_momentums", "max_momentums")
"""Lists of torch's schedulers that have one entry for each group."""


def set_apart(
    optimizer: Optimizer,
    branches: Mapping[str, nn.Parameter],
    factor: float,
    schedulers: Iterable[Any] = (),
) -> None:
    """Move branches from their kernels' groups into groups of their own, which :func:`follow`.

    :param optimizer: holds them, see :func:`~avalanche_branchtune.optimizers.join_optimizer`; those
        that have groups of their own keep them.
    :param branches: by their qualified names.
    :param factor: their rate as a multiple of their kernels'.
    :param schedulers: that were made for this optimizer, see :func:`schedulers_of`; those that are
        made later need nothing.
    """
    names = {id(branch): name for name, branch in branches.items()}
    for place, group in enumerate(list(optimizer.param_groups)):
        own = [p for p in group["params"] if id(p) in names]
        if not own or PLACE in group:
            continue
        group["params"][:] = [p for p in group["params"] if id(p) not in names]
        params = [(names[id(p)], p) for p in own] if "param_names" in group else own
        name = {"name": f"branches of {group['name']}"} if "name" in group else {}
        optimizer.add_param_group({**_settings(group), **name, "params": params, PLACE: place})
    follow(optimizer, factor)
    added = [g[PLACE] for g in optimizer.param_groups if PLACE in g]
    kernels = len(optimizer.param_groups) - len(added)
    for values in _lists(schedulers, kernels):
        values[kernels:] = [values[place] for place in added]  # else torch refuses to step


def follow(optimizer: Optimizer, factor: float) -> None:
    """Give groups of branches what their kernels' groups have now: the rate times a factor.

    :param optimizer: whichever; one without such groups is left alone.
    :param factor: see :func:`set_apart`.
    """
    for group in optimizer.param_groups:
        if PLACE in group:
            settings = _settings(optimizer.param_groups[group[PLACE]])
            group |= {k: v * factor if k in _RATES else v for k, v in settings.items()}


def drop_groups(optimizer: Optimizer, schedulers: Iterable[Any] = ()) -> None:
    """Undo :func:`set_apart`; the branches are gone with the groups.

    :param optimizer: one without groups of branches is left alone.
    :param schedulers: see :func:`set_apart`.
    """
    kernels = [g for g in optimizer.param_groups if PLACE not in g]
    if len(kernels) < len(optimizer.param_groups):
        for values in _lists(schedulers, len(kernels)):
            del values[len(kernels) :]
        optimizer.param_groups[:] = kernels  # last: what is interrupted here is done once more


def schedulers_of(strategy: Any) -> list[Any]:
    """Return the schedulers of a strategy's optimizer that it or its plugins hold.

    :param strategy: any template.
    """
    held = [v for holder in (strategy, *strategy.plugins) for v in vars(holder).values()]
    found = [s for s in held if isinstance(s, LRScheduler | ReduceLROnPlateau)]
    for scheduler in found:  # it grows: some are made of others
        found += getattr(scheduler, "_schedulers", ())
    return [s for s in found if getattr(s, "optimizer", None) is strategy.optimizer]


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in _OWN}


def _lists(schedulers: Iterable[Any], groups: int) -> list[list[Any]]:
    """Return schedulers' lists that have an entry for each of so many groups, or for more."""
    found = [getattr(s, name, None) for s in schedulers for name in _PER_GROUP]
    return [v for v in found if isinstance(v, list) and len(v) >= groups]
