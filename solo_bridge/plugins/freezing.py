"""What the plugins that train a part of a network share: finding the backbone, and freezing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.norms import NORM_LAYERS, fix_norms
from avalanche_branchtune.optimizers import leave_optimizer
from avalanche_branchtune.surgery import backbone_scope
from solo_bridge.plugins.teacher import part


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
        for p in new:
            p.requires_grad_(False)
            p.grad = None
        self.parameters += new
        if strategy is not None:
            leave_optimizer(strategy.optimizer, new)

    def release(self) -> None:
        """Let them learn again; the next experience's optimizer holds them by itself."""
        for p in self.parameters:
            p.requires_grad_(True)
        self.parameters = []


def backbones(model: nn.Module, plugin: str) -> dict[str, nn.Module]:
    """Return a method's online backbone, first, and its momentum backbones, by qualified name.

    :param model: the method.
    :param plugin: who asks, for the message.
    :raises IncompatiblePluginError: if the method has no backbone.
    """
    online = part(model, "backbone")
    names = {id(m): n for n, m in model.named_modules()}
    if online is None or id(online) not in names:
        raise IncompatiblePluginError(
            f"{plugin}: {type(model).__name__} has no module called backbone: train a "
            "SelfSupervisedMethod that has one"
        )
    momentum = [n for n in backbone_scope(model) if n.split(".")[-1].startswith("momentum_")]
    return {names[id(online)]: online, **{n: model.get_submodule(n) for n in momentum}}


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
    :param found: its :func:`backbones`.
    """
    inside = {id(m) for backbone in found.values() for m in backbone.modules()}
    fix_norms(model, "eval", norms=NORM_LAYERS, scope=lambda name, m: id(m) in inside)
