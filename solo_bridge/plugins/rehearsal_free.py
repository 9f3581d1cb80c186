"""Rehearsal-free baselines: hold the features, or the weights, of the experience before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.options import one_of
from avalanche_branchtune.parts import needed_backbone
from avalanche_branchtune.plain_view import PlainView
from solo_bridge.plugins.forms import mse
from solo_bridge.plugins.teacher import Outputs, TeacherPlugin, in_full_precision


class FeatureDistillationPlugin(TeacherPlugin):
    """Smith et al., "A Closer Look at Rehearsal-Free Continual Learning", arXiv 2203.17269.

    From the second experience on ``strategy.loss`` gets λ · mean((f − f̄)²): f the current and
    f̄ the frozen backbone's features ``(N, D)`` of the same view, mean over entries, samples and
    views.  There is no predictor: the features themselves are held.

    :param weight: λ.
    :param teacher_bn: ``"train"`` or ``"eval"``, see
        :class:`~solo_bridge.plugins.teacher.Teacher`.
    """

    def __init__(self, weight: float = 1.0, *, teacher_bn: str = "train") -> None:
        """See the class."""
        super().__init__(weight, teacher_bn)

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return the mean squared difference of the features."""
        return in_full_precision(mse, student.features, teacher.features)


class L2Plugin(SupervisedPlugin):
    """The L2 penalty of Smith et al., arXiv 2203.17269, on the way from the previous weights.

    From the second experience on ``strategy.loss`` gets λ / 2 · ‖θ − θ'‖²: θ the parameters that
    learn and θ' one copy of them from the end of the experience before (so memory does not grow).
    While the network is branched θ holds the folded kernels, W + Σ pad(B), and the penalty
    reaches the branches through them.

    :param weight: λ.
    :param scope: ``"backbone"``, or ``"method"`` for all parameters that learn.
    :raises UnknownOptionError: for another scope.
    """

    supports_distributed = False

    conflicts: ClassVar[dict[str, str]] = {}
    """Class names of plugins that this one must not be beside, with the reason."""

    def __init__(self, weight: float = 1.0, *, scope: str = "backbone") -> None:
        """See the class."""
        super().__init__()
        self.weight = weight
        self.scope = one_of("L2Plugin(scope=…)", scope, ("backbone", "method"))
        self.anchor: dict[str, Tensor] = {}
        """θ' by name; empty in the first experience."""

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse a method without a backbone before anything is trained."""
        if self.scope == "backbone" and strategy.model.part("backbone") is None:
            raise IncompatiblePluginError(
                f"L2Plugin: {type(strategy.model).__name__} has no module called backbone: "
                'pass scope="method"'
            )

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add the penalty to the loss."""
        if self.anchor:
            strategy.loss = strategy.loss + self.weight * self.penalty(strategy.model)

    def penalty(self, model: Any) -> Tensor:
        """Return ``½ Σ (θ − θ')²``, with a graph.

        :param model: the method, branched or not.
        :return: scalar.
        """
        squares = [
            (p - self.anchor[name].to(p.device)).square().sum()
            for name, p in self._parameters(model)
            if name in self.anchor
        ]
        return torch.stack(squares).sum() / 2

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Copy the parameters in the place of the copy before."""
        self.anchor = {
            name: p.detach().clone()
            for name, p in self._parameters(strategy.model)
            if p.requires_grad
        }

    def _parameters(self, model: Any) -> Iterator[tuple[str, Tensor]]:
        held = needed_backbone(model, "L2Plugin") if self.scope == "backbone" else model
        return PlainView(held).named_parameters()
