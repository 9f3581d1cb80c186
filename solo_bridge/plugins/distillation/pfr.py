"""PFR: functional regularisation of backbone features through a learnt projection."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from avalanche_branchtune.options import at_least_one
from solo_bridge.plugins.distillation.cassle import mlp
from solo_bridge.plugins.distillation.forms import Embeddings
from solo_bridge.plugins.distillation.teacher import Outputs, TeacherPlugin, in_full_precision
from solo_bridge.registry import register


@register("pfr", "PFR")
class PFRPlugin(TeacherPlugin):
    """Gomez-Villa et al., "Continually Learning Self-Supervised Representations with Projected
    Functional Regularization", arXiv 2112.15022.

    From the second experience on ``strategy.loss`` gets λ · mean(1 − cos(g(f), f̄)): f the
    current and f̄ the frozen *backbone's* features ``(N, D)`` of the same view, g a predictor
    (Linear, BN, ReLU, Linear) that is new in each experience, mean over samples and views.
    Methods without a projector work as well.

    Authors' code: alviur/CVPR_PFR b95f701, cassle/distillers/pfr.py, PfrDistillWrapper.
    Differs: their λ is 1, ours 25 by default.
    Differs: their predictor's hidden width is D / 2, ours 2048 by default.
    Differs: their predictor goes on from its weights of the experience before, ours is new in each.

    :param weight: λ.
    :param hidden: hidden width of the predictor.
    :param teacher_bn: ``"train"`` or ``"eval"``, see
        :class:`~solo_bridge.plugins.distillation.teacher.Teacher`.
    """

    def __init__(
        self, weight: float = 25.0, *, hidden: int = 2048, teacher_bn: str = "train"
    ) -> None:
        """See the class."""
        super().__init__(weight, teacher_bn)
        self.hidden = at_least_one("PFRPlugin(hidden=…)", hidden)
        self.predictor: nn.Module | None = None

    def begin(self, strategy: Any, example: Outputs | None) -> None:
        """Put a new predictor in place."""
        self.predictor = None
        if example is not None:
            self.predictor = mlp(example.features[0].shape[1], self.hidden)
            self.join(strategy, self.predictor)

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return mean(1 − cos(g(f), f̄)) over samples and views."""
        assert self.predictor is not None
        return in_full_precision(
            one_minus_cosine, map(self.predictor, student.features), teacher.features
        )


def one_minus_cosine(p: Embeddings, z: Embeddings) -> Tensor:
    """``1 − cos(p, z)``, mean over samples and views.

    Authors' code: alviur/CVPR_PFR b95f701, cassle/distillers/pfr.py, training_step.
    Differs: theirs is ``−cos(p, z)``, ours has the constant 1: the same gradient.

    :param p: predicted features, one ``(N, D)`` for each view.
    :param z: the teacher's.
    :return: scalar.
    """
    views = [1 - F.cosine_similarity(a, b, dim=1).mean() for a, b in zip(p, z, strict=True)]
    return sum(views[1:], views[0]) / len(views)
