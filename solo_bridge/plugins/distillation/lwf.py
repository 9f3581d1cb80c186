"""LwF without classes: keep the soft distribution over the entries of an embedding."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from avalanche_branchtune.options import positive
from solo_bridge.plugins.distillation.forms import Embeddings
from solo_bridge.plugins.distillation.teacher import Outputs, TeacherPlugin, in_full_precision
from solo_bridge.registry import register


@register("lwf", "LwF")
class LwFPlugin(TeacherPlugin):
    """Li and Hoiem, "Learning without Forgetting", arXiv 1606.09282, on embeddings.

    There are no class outputs to keep, so the projector's take their place (the backbone's
    features where there is no projector): from the second experience on ``strategy.loss`` gets
    ``λ · T² · KL(softmax(z̄ / T) ‖ softmax(z / T))``, z the current and z̄ the teacher's
    embeddings ``(N, P)`` of the same view, mean over samples and views.  There is no predictor.

    Authors' code: lizhitwo/LearningWithoutForgetting 795176d, vl_nnsoftmaxdiff.m, mode MI; T:
    forkAlexNet.m, opts.distillation_temp; λ: snippets/PASCALkeeporig.m, keep_response_lambda.
    Differs: theirs keeps the outputs of old classes, ours the entries of embeddings.
    Differs: theirs has no factor T², ours has it: 4 at T = 2.
    Differs: theirs is a cross-entropy, ours KL: but for the factor the same gradient.
    Avalanche's code: ContinualAI/avalanche eb075be, avalanche/training/regularization.py,
    LearningWithoutForgetting: without T² as well.

    :param weight: λ.
    :param temperature: T.
    :param teacher_bn: ``"train"`` or ``"eval"``, see
        :class:`~solo_bridge.plugins.distillation.teacher.Teacher`.
    :raises UnknownOptionError: for a temperature that is not positive.
    """

    def __init__(
        self, weight: float = 1.0, *, temperature: float = 2.0, teacher_bn: str = "train"
    ) -> None:
        """See the class."""
        super().__init__(weight, teacher_bn)
        self.temperature = positive("LwFPlugin(temperature=…)", temperature)

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return T² · KL between the soft distributions, mean over samples and views."""
        current = student.embeddings or student.features
        old = teacher.embeddings or teacher.features
        divergence = partial(soft_divergence, temperature=self.temperature)
        return in_full_precision(divergence, current, old[: len(current)])


def soft_divergence(z: Embeddings, old: Embeddings, temperature: float = 2.0) -> Tensor:
    """``T² · Σ_k q_k (log q_k − log p_k)``, q the old and p the current softmax at temperature T.

    :param z: current outputs, one ``(N, P)`` for each view.
    :param old: the teacher's.
    :param temperature: T.
    :return: scalar, mean over samples and views.
    """
    views = []
    for a, b in zip(z, old, strict=True):
        p, q = (a / temperature).log_softmax(dim=1), (b / temperature).log_softmax(dim=1)
        views.append((q.exp() * (q - p)).sum(dim=1).mean())
    return temperature**2 * torch.stack(views).mean()
