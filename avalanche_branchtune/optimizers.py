"""Keeping an optimizer right while branches come and go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from avalanche_branchtune.branches import Branched
from avalanche_branchtune.errors import OptimizerMismatchError


def learning_branches(model: nn.Module) -> list[nn.Parameter]:
    """Return the branch parameters of a model that learn.

    :param model: an expanded model.
    """
    layers = [m for m in model.modules() if isinstance(m, Branched)]
    return [b for m in layers for b in m.branches.values() if b.requires_grad]


def join_optimizer(optimizer: Optimizer, model: nn.Module) -> None:
    """Put the trainable branches of a model into the groups of their kernels, if they are in none.

    :param optimizer: holds the model's own parameters.
    :param model: an expanded model.
    :raises OptimizerMismatchError: if a branched kernel is in no group.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, Branched)}
    trainable = {
        name: [b for b in layer.branches.values() if b.requires_grad]
        for name, layer in layers.items()
    }
    missing = [n for n, b in trainable.items() if b and id(layers[n].weight) not in groups]
    if missing:
        raise missing_parameters([f"{n}.weight" for n in missing])
    for name, branches in trainable.items():
        for branch in branches:
            if id(branch) not in groups:
                groups[id(layers[name].weight)]["params"].append(branch)


def leave_optimizer(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> int:
    """Take parameters and their state out of an optimizer; all other state stays.

    :param optimizer: any optimizer.
    :param parameters: what leaves.
    :return: number of parameters that were removed.
    """
    leaving = {id(p): p for p in parameters}
    removed = 0
    for group in optimizer.param_groups:
        kept = [p for p in group["params"] if id(p) not in leaving]
        removed += len(group["params"]) - len(kept)
        group["params"][:] = kept
    for p in leaving.values():
        optimizer.state.pop(p, None)
    return removed


def missing_parameters(names: list[str]) -> OptimizerMismatchError:
    """Build the error for an optimizer that does not hold the model's parameters.

    :param names: qualified names of the parameters it misses.
    :return: the error, to be raised by the caller.
    """
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return OptimizerMismatchError(
        f"the optimizer misses {len(names)} of the parameters that learn: {shown}. Build it from "
        "the parameters of the very model that the strategy trains (not of a copy), or freeze with "
        "requires_grad_(False) what must not learn"
    )


def join_as_group(optimizer: Optimizer, module: nn.Module, name: str, **settings: object) -> None:
    """Let a module of a plugin's own learn with an optimizer, as a parameter group of its own.

    :param optimizer: any optimizer.
    :param module: on the optimizer's device.
    :param name: of the group, by which :func:`leave_group` finds it.
    :param settings: of the group, for example ``lr``.
    """
    optimizer.add_param_group({"params": list(module.parameters()), "name": name, **settings})


def leave_group(optimizer: Optimizer, module: nn.Module, name: str) -> None:
    """Take a module, its state and its group out of an optimizer; nothing if it is in none.

    :param optimizer: any optimizer.
    :param module: see :func:`join_as_group`.
    :param name: of the group.
    """
    leave_optimizer(optimizer, module.parameters())
    groups = optimizer.param_groups
    groups[:] = [g for g in groups if g["params"] or g.get("name") != name]


def renew_groups(optimizer: Optimizer, groups: Iterable[Mapping[str, Any]]) -> None:
    """Let an optimizer go on with a model's groups of parameters as they are now.

    The state of parameters that stay, stays.  Groups that plugins have added leave, and their state
    waits for them to join again; what has left the model leaves with its state.

    :param optimizer: that was made of such groups.
    :param groups: as many, in the same order.
    :raises OptimizerMismatchError: for other groups.
    """
    now = [{**group, "params": list(group["params"])} for group in groups]
    kept, others = optimizer.param_groups[: len(now)], optimizer.param_groups[len(now) :]
    names = [group.get("name") for group in now]
    if [group.get("name") for group in kept] != names:
        raise OptimizerMismatchError(
            f"the optimizer was made of the groups {[g.get('name') for g in kept]}, and the model "
            f"has {names} now: it cannot be kept over the stream; use optimizer_per='experience'"
        )
    for group, new in zip(kept, now, strict=True):
        group["params"][:] = new["params"]
    optimizer.param_groups[:] = kept
    held = {id(p) for group in [*kept, *others] for p in group["params"]}
    for parameter in [p for p in optimizer.state if id(p) not in held]:
        del optimizer.state[parameter]
