"""CaSSLe: distil the embeddings of the experience before in the method's own form."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.options import at_least_one, one_of
from solo_bridge.plugins.distillation.forms import FORMS, Form, form_of
from solo_bridge.plugins.distillation.teacher import (
    Outputs,
    TeacherPlugin,
    float32,
    in_full_precision,
)
from solo_bridge.registry import register


@register("cassle", "CaSSLe")
class CaSSLePlugin(TeacherPlugin):
    """Fini et al., "Self-Supervised Models are Continual Learners", arXiv 2112.04215.

    From the second experience on ``strategy.loss`` gets λ · D(g(z), z̄): z the
    current and z̄ the teacher's embeddings of the same view, g a predictor
    (Linear, BN, ReLU, Linear) that is new in each experience, D the form of the
    self-supervised method: contrastive, cosine, MSE, cross-correlation, or
    cross-entropy on prototypes.

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/distillers/*.py, ``…_distill_wrapper``.
    Differs: their contrastive form has two halves, ours one, see
    :func:`~solo_bridge.plugins.distillation.forms.contrastive`.
    Differs: their g goes on from its weights of the experience before, ours is new in each.
    Differs: for MoCo v2+ their g gets normalised embeddings (cassle/methods/mocov2plus.py), ours
    the projector's output.
    Differs: theirs scores g(z) on prototypes that learn (cassle/distillers/knowledge.py,
    distill_prototypes), ours on the teacher's.

    :param form: name of the form, see :data:`solo_bridge.plugins.distillation.forms.FORMS`;
        by default that of the method.
    :param weight: λ; by default the form's (1; 25 for MSE).
    :param hidden: hidden width of the predictor.
    :param teacher_bn: ``"train"`` or ``"eval"``, see
        :class:`~solo_bridge.plugins.distillation.teacher.Teacher`.
    :raises UnknownOptionError: for an unknown form.
    """

    def __init__(
        self,
        form: str | None = None,
        *,
        weight: float | None = None,
        hidden: int = 2048,
        teacher_bn: str = "train",
    ) -> None:
        """See the class."""
        if form is not None:
            one_of(f"{type(self).__name__}(form=…)", form, FORMS)
        super().__init__(1.0 if weight is None else weight, teacher_bn)
        self.form_name = form
        self._weight = weight
        self.hidden = at_least_one(f"{type(self).__name__}(hidden=…)", hidden)
        self.predictor: nn.Module | None = None
        self._form: Form | None = None

    def refuse(self, strategy: Any) -> None:
        """Choose the form, and refuse what has none."""
        super().refuse(strategy)
        model = strategy.model
        if model.part("projector") is None:
            raise IncompatiblePluginError(
                f"{type(self).__name__}: {model.name} has no projector, whose embeddings are "
                "distilled"
            )
        self._form = form_of(model.name) if self.form_name is None else FORMS[self.form_name]
        if self._form.on_prototypes and not model.prototype_layers():
            raise IncompatiblePluginError(
                f"{type(self).__name__}(form='prototypes'): {model.name} has no prototypes"
            )
        self.weight = self._form.weight if self._weight is None else self._weight

    def begin(self, strategy: Any, example: Outputs | None) -> None:
        """Put a new predictor in place."""
        self.predictor = None
        if example is not None:
            self.predictor = mlp(example.embeddings[0].shape[1], self.hidden)
            self.join(strategy, self.predictor)

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return D(g(z), z̄) over the views."""
        assert self.predictor is not None and self._form is not None and self.teacher is not None
        p = float32(self.predictor(z) for z in student.embeddings)
        z = float32(teacher.embeddings[: len(p)])
        if not self._form.on_prototypes:
            return in_full_precision(self._form.distance, p, z)
        p, z = [F.normalize(a, dim=1) for a in p], [F.normalize(a, dim=1) for a in z]
        distances = [
            in_full_precision(self._form.distance, map(prototypes, p), map(prototypes, z))
            for prototypes in self.teacher.prototypes
        ]
        return torch.stack(distances).mean()


def mlp(width: int, hidden: int) -> nn.Sequential:
    """Return a predictor: Linear, BN, ReLU, Linear, from and to the same width.

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/distillers/predictive.py,
    PredictiveDistillWrapper (distill_predictor).

    :param width: of the embeddings.
    :param hidden: of its hidden layer.
    """
    return nn.Sequential(
        nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width)
    )
