"""What the plugins that train a part of a network share: letting things stand still."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from avalanche_branchtune.norms import NORM_LAYERS, fix_norms
from avalanche_branchtune.optimizers import leave_optimizer


class Freezer:
    """Parameters that stand still until they are released."""

    def __init__(self) -> None:
        """See the class."""
        self.parameters: list[nn.Parameter] = []

    def freeze(self, parameters: Iterable[nn.Parameter], strategy: Any = None) -> None:
        """Let parameters stand still, also against weight decay and momentum.

        They get no gradient, and leave the optimizer: one that skips parameters
        without gradient (torch's, and LARS) would not move them in any case.

        :param parameters: those that do not require gradients are left alone.
        :param strategy: whose optimizer they leave; None to leave them there.
        """
        new = list({id(p): p for p in parameters if p.requires_grad}.values())
        self.parameters += new  # first: whatever is interrupted, release() knows them
        for p in new:
            p.requires_grad_(False)
            p.grad = None
        if strategy is not None:
            leave_optimizer(strategy.optimizer, new)

    def release(self) -> None:
        """Let them learn again; the next experience's optimizer holds them by itself."""
        for p in self.parameters:
            p.requires_grad_(True)
        self.parameters = []


def outside(model: nn.Module, module: nn.Module) -> list[nn.Parameter]:
    """Return a model's parameters that do not belong to one of its modules.

    :param model: the model.
    :param module: the module.
    """
    own = {id(p) for p in module.parameters()}
    return [p for p in model.parameters() if id(p) not in own]


def hold_statistics(model: nn.Module, found: Mapping[str, nn.Module]) -> None:
    """Let the normalisation layers of backbones stand still, until ``restore_norms(model)``.

    :param model: the method.
    :param found: its :func:`~avalanche_branchtune.parts.online_and_momentum` backbones.
    """
    inside = {id(m) for backbone in found.values() for m in backbone.modules()}
    fix_norms(model, "eval", norms=NORM_LAYERS, scope=lambda name, m: id(m) in inside)
