"""Show an expanded model to parameter regularisers as if it were not expanded.

EWC, SI and MAS compare named parameters with their earlier values.  While a
model is expanded its kernels stand still and branches move instead, so such a
penalty would be blind to what is learnt.  Under this view the kernel's name
stands for the folded kernel, ``W + Σ pad(B)``: penalties then reach the
branches through it, and importances keep the names of the plain network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from avalanche.training.plugins import (
    CWRStarPlugin,
    EWCPlugin,
    FromScratchTrainingPlugin,
    GDumbPlugin,
    MASPlugin,
    MIRPlugin,
    RARPlugin,
    RWalkPlugin,
    SynapticIntelligencePlugin,
)
from torch import Tensor, nn

from avalanche_branchtune.branches import Branched
from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.norms import requires_grad_before

_EVENTS: dict[type, tuple[str, ...]] = {
    EWCPlugin: ("before_backward",),
    MASPlugin: ("before_backward",),
    SynapticIntelligencePlugin: (
        "before_training_exp",
        "before_training_iteration",
        "before_backward",
        "after_training_iteration",
    ),
}
"""Events of each regulariser that read the model's named parameters during an experience."""


_REFUSED: dict[type, str] = {
    MIRPlugin: "it differentiates by all parameters, of which the kernels do not learn",
    RARPlugin: "it traces a copy of the network with torch.fx, which branches cannot follow",
    RWalkPlugin: "it scores named parameters along the path, on which the kernels stand still",
    FromScratchTrainingPlugin: "it puts the untrained weights back, which would then stand still",
    GDumbPlugin: "it begins each experience with an untrained network, which would stand still",
}
"""Plugins that cannot do their work while kernels stand still, with the reason."""


class PlainView:
    """A model's modules and parameters under the names of the plain network.

    With gradients enabled the folded kernels are differentiable; without,
    they are detached copies whose ``grad`` is the gradient for the folded
    kernel.  Everything else is passed on to the model.

    :param model: an expanded model.
    """

    def __init__(self, model: nn.Module) -> None:
        """See the class."""
        self._model = model

    def __getattr__(self, name: str) -> Any:
        """Pass everything else on to the model."""
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        return self._model(*args, **kwargs)

    def parameters(self, recurse: bool = True) -> Iterator[Tensor]:
        """Iterate over the plain network's parameters."""
        for _, p in self.named_parameters(recurse=recurse):
            yield p

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Iterate over the plain network's parameters with their names, in its order."""
        layers = dict(self._model.named_modules()) if recurse else {"": self._model}
        for name, p in self._model.named_parameters(recurse=recurse):
            owner, _, own_name = name.rpartition(".")
            layer = layers.get(owner)
            full_name = f"{prefix}.{name}" if prefix else name
            if isinstance(layer, Branched):
                if own_name == "weight":
                    yield full_name, self._kernel(layer)
                elif own_name not in layer.branches:
                    yield full_name, self._still(p, layer.original_requires_grad[own_name])
            elif layer is not None and own_name in (fixed := requires_grad_before(layer)):
                yield full_name, self._still(p, fixed[own_name])
            else:
                yield full_name, p

    @staticmethod
    def _kernel(layer: Branched) -> Tensor:
        if torch.is_grad_enabled():
            return layer.folded_weight()
        kernel = PlainView._still(layer.folded_weight(), layer.original_requires_grad["weight"])
        if kernel.requires_grad:
            kernel.grad = layer.folded_gradient()
        return kernel

    @staticmethod
    def _still(p: Tensor, requires_grad: bool) -> Tensor:
        # A frozen parameter that would be trainable in the plain network: present, not moving.
        alias = p.detach().requires_grad_(requires_grad)
        if requires_grad:
            alias.grad = torch.zeros_like(alias)
        return alias


class _OnPlainView:
    """A plugin's callback, run with ``strategy.model`` shown as the plain network."""

    def __init__(self, plugin: Any, event: str) -> None:
        self.plugin = plugin
        self.event = event

    def __call__(self, strategy: Any, *args: Any, **kwargs: Any) -> Any:
        model = strategy.model
        try:
            strategy.model = PlainView(model)
            return getattr(type(self.plugin), self.event)(self.plugin, strategy, *args, **kwargs)
        finally:
            strategy.model = model


def check_plugins(plugins: list[Any], linear: Any) -> None:
    """Refuse plugins that cannot work beside branches.

    :param plugins: a strategy's plugins.
    :param linear: the branch of linear layers, see
        :func:`avalanche_branchtune.expand`.
    :raises IncompatiblePluginError: for MIR, RWalk, FromScratchTraining and
        GDumb; for CWR* that freezes all but the classifier, hence the branches;
        and for SI beside low-rank branches: SI needs the gradient of the folded
        weight, which low-rank factors do not give.
    """
    for plugin in plugins:
        for kind, reason in _REFUSED.items():
            if isinstance(plugin, kind):
                raise IncompatiblePluginError(
                    f"{kind.__name__} beside BranchTuningPlugin: {reason}"
                )
        if isinstance(plugin, CWRStarPlugin) and plugin.freeze_remaining_model:
            raise IncompatiblePluginError(
                "CWRStarPlugin beside BranchTuningPlugin: it freezes all but the classifier, and "
                "the branches with them; use CWRStarPlugin(freeze_remaining_model=False)"
            )
        if isinstance(plugin, SynapticIntelligencePlugin) and isinstance(linear, int):
            raise IncompatiblePluginError(
                "SynapticIntelligencePlugin beside low-rank branches: the gradient of the folded "
                'weight is not known; use BranchTuningPlugin(linear="full")'
            )


def show_plain(plugins: list[Any]) -> None:
    """Let the regularisers among some plugins see the expanded model as the plain one.

    :param plugins: a strategy's plugins.
    """
    for plugin in plugins:
        for kind, events in _EVENTS.items():
            if not isinstance(plugin, kind):
                continue
            for event in events:
                setattr(plugin, event, _OnPlainView(plugin, event))


def show_as_is(strategy: Any) -> None:
    """Undo :func:`show_plain`, and what an interrupted callback left.

    :param strategy: the strategy.
    """
    if isinstance(strategy.model, PlainView):
        strategy.model = strategy.model._model
    for plugin in strategy.plugins:
        for event, callback in list(vars(plugin).items()):
            if isinstance(callback, _OnPlainView):
                delattr(plugin, event)
