"""Feature distillation: hold the features of the experience before, without a predictor."""

from __future__ import annotations

from torch import Tensor

from solo_bridge.plugins.distillation.forms import mse
from solo_bridge.plugins.distillation.teacher import Outputs, TeacherPlugin, in_full_precision
from solo_bridge.registry import register


@register("feature_distillation", "feature distillation")
class FeatureDistillationPlugin(TeacherPlugin):
    """Smith et al., "A Closer Look at Rehearsal-Free Continual Learning", arXiv 2203.17269.

    From the second experience on ``strategy.loss`` gets λ · mean((f − f̄)²): f the current and
    f̄ the frozen backbone's features ``(N, D)`` of the same view, mean over entries, samples and
    views.  There is no predictor: the features themselves are held.

    Authors' code: shaunak27/data-free-continual-learning 8d34b78, learners/kd.py, LWF_MC_FEATKD
    (a repository of the first author's that does not name the paper).
    Differs: theirs has network and teacher in eval mode, ours the network in training mode and the
    teacher as ``teacher_bn`` says.
    Differs: the λ of their script (experiments/cifar100-continual.sh) is 5, ours 1, the default of
    their run_ucl.py.

    :param weight: λ.
    :param teacher_bn: ``"train"`` or ``"eval"``, see
        :class:`~solo_bridge.plugins.distillation.teacher.Teacher`.
    """

    def __init__(self, weight: float = 1.0, *, teacher_bn: str = "train") -> None:
        """See the class."""
        super().__init__(weight, teacher_bn)

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return the mean squared difference of the features."""
        return in_full_precision(mse, student.features, teacher.features)
