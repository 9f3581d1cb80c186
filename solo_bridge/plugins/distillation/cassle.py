"""CaSSLe: distil the embeddings of the experience before in the method's own form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError
from avalanche_branchtune.options import one_of, true_or_false
from solo_bridge.plugins.distillation.forms import (
    FORMS,
    NORMALISED,
    Form,
    contrastive_half,
    form_of,
)
from solo_bridge.plugins.distillation.predictor import PredictingPlugin
from solo_bridge.plugins.distillation.prototypes import NormedPrototypes
from solo_bridge.plugins.distillation.teacher import Outputs, float32, in_full_precision
from solo_bridge.registry import register

HALVES = ("both", "one")
PROTOTYPES = ("learnt", "teacher")


@register("cassle", "CaSSLe")
class CaSSLePlugin(PredictingPlugin):
    """Fini et al., "Self-Supervised Models are Continual Learners", arXiv 2112.04215.

    From the second experience on ``strategy.loss`` gets λ · D(g(z), z̄): z the
    current and z̄ the teacher's embeddings of the same view, g a predictor
    (Linear, BN, ReLU, Linear), D the form of the self-supervised method:
    contrastive, cosine, MSE, cross-correlation, or cross-entropy on prototypes.

    On prototypes (SwAV) z̄ is scored by the teacher's, g(z) by a layer of prototypes that learns
    with g.  For MoCo v2+ z is scaled to length 1 before g.

    Authors' code: DonkeyShot21/cassle b5b0929, ``cassle/distillers/*.py``, ``…_distill_wrapper``.
    Their code has no form for DINO, DeepClusterV2 and others, see
    :data:`~solo_bridge.plugins.distillation.forms.FORM_OF`.

    :param form: name of the form, see :data:`solo_bridge.plugins.distillation.forms.FORMS`;
        by default that of the method.
    :param weight: λ; by default the form's (1; 25 for MSE).
    :param hidden: hidden width of g.
    :param predictor: ``"kept"`` or ``"new"``, see
        :class:`~solo_bridge.plugins.distillation.predictor.PredictingPlugin`.
    :param halves: of the contrastive form: ``"both"``, the mean of g(z) among z̄ and z̄ among
        g(z), as in the authors' code; ``"one"``, the first alone, the default before 0.1.0: its
        gradient's cosine to that of both is .92 to .99 at batch 128.
    :param prototypes: what scores g(z): ``"learnt"``, prototypes that learn with g, as in the
        authors' code; ``"teacher"``, the teacher's, the default before 0.1.0.
    :param normalise: whether z is scaled to length 1 before g; by default for MoCo v2+, as in the
        authors' code; before 0.1.0 it never was.
    :param teacher_bn: ``"train"`` or ``"eval"``, see
        :class:`~solo_bridge.plugins.distillation.teacher.Teacher`.
    :raises UnknownOptionError: for an unknown form or another option that is none, and when
        training begins for ``halves="one"`` or ``prototypes="teacher"`` where the form has no
        halves or prototypes.
    """

    def __init__(
        self,
        form: str | None = None,
        *,
        weight: float | None = None,
        hidden: int = 2048,
        predictor: str = "kept",
        halves: str = "both",
        prototypes: str = "learnt",
        normalise: bool | None = None,
        teacher_bn: str = "train",
    ) -> None:
        """See the class."""
        name = type(self).__name__
        if form is not None:
            one_of(f"{name}(form=…)", form, FORMS)
        if normalise is not None:
            true_or_false(f"{name}(normalise=…)", normalise)
        super().__init__(
            1.0 if weight is None else weight,
            hidden=hidden,
            predictor=predictor,
            teacher_bn=teacher_bn,
        )
        self.form_name = form
        self.halves = one_of(f"{name}(halves=…)", halves, HALVES)
        self.scored_by = one_of(f"{name}(prototypes=…)", prototypes, PROTOTYPES)
        self.normalise = normalise
        self.prototypes: nn.ModuleList | None = None
        self._weight = weight
        self._form: Form | None = None
        self._normalised = False

    def refuse(self, strategy: Any) -> None:
        """Choose the form, and refuse what has none."""
        super().refuse(strategy)
        model, name = strategy.model, type(self).__name__
        if model.part("projector") is None:
            raise IncompatiblePluginError(
                f"{name}: {model.name} has no projector, whose embeddings are distilled"
            )
        form = form_of(model.name) if self.form_name is None else FORMS[self.form_name]
        if form.on_prototypes and not model.prototype_layers():
            raise IncompatiblePluginError(
                f"{name}(form='prototypes'): {model.name} has no prototypes"
            )
        if self.halves == "one" and form is not FORMS["contrastive"]:
            raise UnknownOptionError(
                f"{name}(halves='one'): only the contrastive form has halves, {model.name} has "
                "another"
            )
        if self.scored_by == "teacher" and not form.on_prototypes:
            raise UnknownOptionError(
                f"{name}(prototypes='teacher'): the form of {model.name} has no prototypes"
            )
        self._form = replace(form, distance=contrastive_half) if self.halves == "one" else form
        self._normalised = model.name in NORMALISED if self.normalise is None else self.normalise
        self.weight = form.weight if self._weight is None else self._weight

    def width(self, example: Outputs) -> int:
        """Return the width of the embeddings, P."""
        return example.embeddings[0].shape[1]

    def begin(self, strategy: Any, example: Outputs | None) -> None:
        """Let g learn, and prototypes with it."""
        super().begin(strategy, example)
        assert self._form is not None
        if example is None or not self._form.on_prototypes or self.scored_by == "teacher":
            return
        if self.prototypes is None or self.begins_with == "new":
            assert self.teacher is not None
            z = example.embeddings[0]
            made = nn.ModuleList(
                NormedPrototypes(z.shape[1], layer(z).shape[1]) for layer in self.teacher.prototypes
            )
            self.make("prototypes", made)
        assert self.prototypes is not None
        self.join(strategy, self.prototypes)

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return D(g(z), z̄) over the views."""
        assert self.predictor is not None and self._form is not None
        student_z = [F.normalize(z, dim=1) if self._normalised else z for z in student.embeddings]
        p = float32(map(self.predictor, student_z))
        z = float32(teacher.embeddings[: len(p)])
        if not self._form.on_prototypes:
            return in_full_precision(self._form.distance, p, z)
        p, z = [F.normalize(a, dim=1) for a in p], [F.normalize(a, dim=1) for a in z]
        assert self.teacher is not None
        theirs = self.teacher.prototypes
        ours = theirs if self.prototypes is None else self.prototypes
        distances = [
            in_full_precision(self._form.distance, map(score, p), map(score_old, z))
            for score, score_old in zip(ours, theirs, strict=True)
        ]
        return torch.stack(distances).mean()
