"""Kaizen: a classifier that is fine-tuned along the stream, distilled with its features."""

from __future__ import annotations

import copy
import logging
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import LabelError
from avalanche_branchtune.options import at_least_one, not_negative, true_or_false
from avalanche_branchtune.parts import needed_backbone
from solo_bridge.conflicts import Conflicts
from solo_bridge.plugins.distillation.cassle import CaSSLePlugin
from solo_bridge.plugins.distillation.teacher import Outputs, Teacher, float32
from solo_bridge.plugins.labels import LearnsLabels
from solo_bridge.registry import register

logger = logging.getLogger(__name__)


@register("kaizen", "Kaizen")
class KaizenPlugin(CaSSLePlugin, LearnsLabels):
    """Tang et al., "Kaizen: Practical Self-supervised Continual Learning …", arXiv 2303.17235.

    ``L = L_FE + λ_FE · L_FE_distill + L_C + λ_C · L_C_distill``: the method's own
    loss; CaSSLe's; cross-entropy of a classifier on *detached* features, summed
    over the views, samples without a label (−1) left out; and cross-entropy
    between the classifier and the teacher's softmax over all classes, mean over
    the views.  The distillation terms begin with the second experience.  The
    classifier is one head over all classes of the stream, an MLP D → hidden →
    classes with ReLU.

    Authors' code: dr-bell/kaizen e36ee54, kaizen/methods/base.py, BaseModel.training_step;
    kaizen/methods/multi_layer_classifier.py, MultiLayerClassifier; λ_C and hidden width:
    ``bash_files/*_cifar_distill_classifier_l1000_soft_label_replay_0.01_b32.sh`` (the code's own
    λ_C is 1).

    Judge it as a classifier, not by a probe::

        StreamProbe(ClassifierProbe(), train, test, backbone=kaizen.network)

    :param num_classes: classes of the whole stream; by default the method's.
    :param form: see :class:`CaSSLePlugin`.
    :param weight: λ_FE; by default the form's (1; 25 for MSE).
    :param classifier_weight: λ_C.
    :param classifier_hidden: hidden width of the classifier.
    :param classifier_lr: its learning rate, used as given.
    :param classifier_weight_decay: its weight decay, 0 in the authors' code; None for the
        strategy's, as it was before 0.1.0.
    :param scale_classifier_lr: whether its learning rate is scaled by batch / 256 as the
        strategy's, as it was before 0.1.0.
    :param hidden: hidden width of CaSSLe's predictor.
    :param predictor: this and what follows: see :class:`CaSSLePlugin`.
    :param halves: of the contrastive form.
    :param prototypes: what scores g(z).
    :param normalise: whether z is scaled to length 1.
    :param teacher_bn: the teacher's statistics.
    :raises LabelError: when training begins, if the number of classes is not
        known; and for a label that is no class.
    """

    conflicts: ClassVar[Conflicts] = {
        CaSSLePlugin: "Kaizen's loss contains CaSSLe's, which would count twice"
    }
    """Plugins that cannot do their work beside this one, with the reason."""

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        form: str | None = None,
        weight: float | None = None,
        classifier_weight: float = 2.0,
        classifier_hidden: int = 1000,
        classifier_lr: float = 0.1,
        classifier_weight_decay: float | None = 0.0,
        scale_classifier_lr: bool = False,
        hidden: int = 2048,
        predictor: str = "kept",
        halves: str = "both",
        prototypes: str = "learnt",
        normalise: bool | None = None,
        teacher_bn: str = "train",
    ) -> None:
        """See the class."""
        super().__init__(
            form,
            weight=weight,
            hidden=hidden,
            predictor=predictor,
            halves=halves,
            prototypes=prototypes,
            normalise=normalise,
            teacher_bn=teacher_bn,
        )
        self.num_classes = num_classes
        for name, width in (("num_classes", num_classes), ("classifier_hidden", classifier_hidden)):
            if width is not None:
                at_least_one(f"KaizenPlugin({name}=…)", width)
        self.classifier_weight = not_negative(
            "KaizenPlugin(classifier_weight=…)", classifier_weight
        )
        self.classifier_hidden = classifier_hidden
        self.classifier_lr = not_negative("KaizenPlugin(classifier_lr=…)", classifier_lr)
        if classifier_weight_decay is not None:
            not_negative("KaizenPlugin(classifier_weight_decay=…)", classifier_weight_decay)
        self.classifier_weight_decay = classifier_weight_decay
        self.scale_classifier_lr = true_or_false(
            "KaizenPlugin(scale_classifier_lr=…)", scale_classifier_lr
        )
        self.classifier: nn.Module | None = None
        self._old_classifier: nn.Module | None = None
        self._earlier_classifier: nn.Module | None = None
        self._saw_label: Tensor | bool = False

    def network(self, model: nn.Module) -> nn.Module:
        """Return backbone and classifier as one network: images to class scores.

        :param model: the method that is trained.
        :raises LabelError: if nothing was trained yet.
        """
        if self.classifier is None:
            raise LabelError("KaizenPlugin.network: there is no classifier before training")
        device = next(model.parameters()).device
        backbone = needed_backbone(model, type(self).__name__)
        return nn.Sequential(backbone, self.classifier.to(device))

    def lasting_parameters(self) -> int:
        """Return how many parameters stay in use: the classifier's."""
        parameters = [] if self.classifier is None else self.classifier.parameters()
        return sum(p.numel() for p in parameters)

    def refuse(self, strategy: Any) -> None:
        """Find the number of classes, beside what CaSSLe needs."""
        super().refuse(strategy)
        self.num_classes = self.num_classes or strategy.model.num_classes
        if not self.num_classes:
            raise LabelError(
                "KaizenPlugin: the number of classes of the whole stream is not known: pass "
                "KaizenPlugin(num_classes=…) or SoloMethod(num_classes=…)"
            )

    def begin(self, strategy: Any, example: Outputs | None) -> None:
        """Let the classifier learn, with the predictor."""
        if self.again:
            self._old_classifier = self._earlier_classifier
        else:
            self._earlier_classifier = self._old_classifier
        super().begin(strategy, example)
        if self.classifier is None:
            self.make("classifier", self._new_classifier(strategy, example))
        assert self.classifier is not None
        if self._old_classifier is not None:
            self._old_classifier.to(strategy.device)
        scale = strategy.lr_scale if self.scale_classifier_lr else 1.0
        settings = {"lr": self.classifier_lr * scale}
        if self.classifier_weight_decay is not None:
            settings["weight_decay"] = self.classifier_weight_decay
        self.join(strategy, self.classifier, **settings)

    def add_terms(self, strategy: Any, student: Outputs) -> None:
        """Add the distillation of features, the classifier's loss and its distillation."""
        assert self.classifier is not None
        logits = float32(self.classifier(f.detach()) for f in student.features)
        known = ranks.mean_count((strategy.mb_y != -1).sum())
        self._saw_label = self._saw_label | (known > 0)
        current = classification(logits, strategy.mb_y, known)
        self.note("classification", current)
        strategy.loss = strategy.loss + current
        if self.teacher is None or self._old_classifier is None:
            return
        teacher = self.teacher(strategy.mb_x[: len(logits)])
        features = self.distance(student, teacher)
        with torch.no_grad():
            targets = float32(self._old_classifier(f) for f in teacher.features)
        classes = soft_cross_entropy(logits, targets)
        self.note("distillation", features)
        self.note("classifier distillation", classes)
        strategy.loss = strategy.loss + self.weight * features + self.classifier_weight * classes

    def close(self, strategy: Any, *, finished: bool) -> None:
        """Copy network and classifier of a finished experience as the next one's teacher."""
        super().close(strategy, finished=finished)
        if finished and not self._saw_label:
            logger.warning(
                "Kaizen: no sample had a label until now: its classifier has learnt nothing. Give "
                "some of the data labels, or use CaSSLePlugin, which needs none"
            )
        if finished and self.classifier is not None:
            self._old_classifier = copy.deepcopy(self.classifier).requires_grad_(False).eval()

    def _new_classifier(self, strategy: Any, example: Outputs | None) -> nn.Module:
        assert self.num_classes is not None
        features = example or self.example(strategy, Teacher(strategy.model, "eval"))
        return nn.Sequential(
            nn.Linear(features.features[0].shape[1], self.classifier_hidden),
            nn.ReLU(),
            nn.Linear(self.classifier_hidden, self.num_classes),
        )


def classification(logits: list[Tensor], labels: Tensor, count: Tensor | None = None) -> Tensor:
    """Cross-entropy summed over the views; samples labelled −1 are left out.

    Authors' code: dr-bell/kaizen e36ee54, kaizen/methods/base.py, _classifier_partial_step.
    Differs: theirs is NaN where no sample has a label, ours 0.

    :param logits: one ``(N, classes)`` for each view.
    :param labels: ``(N,)``.
    :param count: number of labelled samples that the sum is divided by; by default theirs.
    :return: scalar; 0, with a graph, if no sample has a label.
    :raises LabelError: for a label that is no class.
    """
    known = labels != -1
    if labels.is_cpu:  # a GPU would be waited for, whose cross-entropy refuses it as well
        outside = labels[known & ((labels < 0) | (labels >= logits[0].shape[1]))]
        if len(outside):
            raise LabelError(
                f"label {int(outside[0])} lies outside the classifier's {logits[0].shape[1]} "
                "classes"
            )
    count = known.sum() if count is None else count
    count = torch.where(count > 0, count, 1)
    sums = [F.cross_entropy(x, labels, ignore_index=-1, reduction="sum") for x in logits]
    return (torch.stack(sums) / count).sum()


def soft_cross_entropy(logits: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Cross-entropy with the teacher's softmax over all classes, mean over samples and views.

    Authors' code: dr-bell/kaizen e36ee54, kaizen/distiller_factories/soft_label.py,
    soft_label_distill_factory.

    :param logits: the classifier's, one ``(N, classes)`` for each view.
    :param targets: the teacher classifier's logits.
    """
    return torch.stack(
        [F.cross_entropy(x, t.softmax(dim=1)) for x, t in zip(logits, targets, strict=True)]
    ).mean()
