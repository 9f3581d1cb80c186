"""PFR: functional regularisation of backbone features through a learnt projection."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from solo_bridge.plugins.distillation.forms import Embeddings
from solo_bridge.plugins.distillation.predictor import PredictingPlugin
from solo_bridge.plugins.distillation.teacher import Outputs, in_full_precision
from solo_bridge.registry import register
from solo_bridge.spreading import norms_in_step


@register("pfr", "PFR")
class PFRPlugin(PredictingPlugin):
    """Gomez-Villa et al., "Continually Learning Self-Supervised Representations with Projected
    Functional Regularization", arXiv 2112.15022.

    From the second experience on ``strategy.loss`` gets λ · mean(1 − cos(g(f), f̄)): f the
    current and f̄ the frozen *backbone's* features ``(N, D)`` of the same view, g a predictor
    (Linear, BN, ReLU, Linear), mean over samples and views.  Methods without a projector work as
    well.

    Authors' code: alviur/CVPR_PFR b95f701, cassle/distillers/pfr.py, PfrDistillWrapper.

    :param weight: λ, 1 in the authors' code; 25 before 0.1.0, with ``hidden=2048``: final accuracy
        40.5 % there and 48.4 % now, docs/authors_forms.md.
    :param hidden: hidden width of g; D / 2 by default, as in the authors' code.
    :param predictor: ``"kept"`` or ``"new"``, see
        :class:`~solo_bridge.plugins.distillation.predictor.PredictingPlugin`.
    :param teacher_bn: ``"train"`` or ``"eval"``, see
        :class:`~solo_bridge.plugins.distillation.teacher.Teacher`.
    :raises UnknownOptionError: for another ``predictor`` or ``teacher_bn``.
    """

    def __init__(
        self,
        weight: float = 1.0,
        *,
        hidden: int | None = None,
        predictor: str = "kept",
        teacher_bn: str = "train",
    ) -> None:
        """See the class."""
        super().__init__(weight, hidden=hidden, predictor=predictor, teacher_bn=teacher_bn)

    def width(self, example: Outputs) -> int:
        """Return the number of features, D."""
        return example.features[0].shape[1]

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return mean(1 − cos(g(f), f̄)) over samples and views."""
        assert self.predictor is not None
        with norms_in_step():
            predicted = [self.predictor(f) for f in student.features]
        return in_full_precision(one_minus_cosine, predicted, teacher.features)


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
