"""A linear probe that is trained beside the network, on the features of its own minibatches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from avalanche_branchtune.errors import LabelError, ProbeError
from avalanche_branchtune.evaluation.features import extract_features
from avalanche_branchtune.evaluation.probe import FEATURES, chosen, sentence
from avalanche_branchtune.evaluation.stream import datasets_of
from avalanche_branchtune.experiences import begins, experience_index
from avalanche_branchtune.options import at_least_one, positive, true_or_false
from avalanche_branchtune.parts import Part, named_part, part_of

MOMENTUM = 0.9
"""Momentum of the classifier's SGD."""


class OnlineProbe(SupervisedPlugin):
    """A linear classifier of the training minibatches' features; the network does not learn of it.

    For strategies whose minibatches are images or lists of views, with labels
    (−1: none).  The features are those of the network's own forward pass: a
    hook on the backbone, there only during that pass, copies them.  One SGD
    step per minibatch, on the features of all views together, after the
    network's backward pass; the classifier begins at zero.  Training of the
    network is the same, bit for bit, as without it.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/methods/base.py, _base_shared_step.
    Differs: solo-learn's classifier has the method's optimizer and schedule and starts as
    ``nn.Linear`` does, ours SGD of its own at a constant rate, from zero.
    Authors' code: DonkeyShot21/cassle b5b0929, cassle/methods/base.py, _online_eval_shared_step.
    Differs: CaSSLe's learns from further labelled images of all experiences, which pass the
    network in training mode; ours from the minibatches of training.

    :param num_classes: number of classes of the whole stream.
    :param backbone: the module that gives features ``(N, D)`` in training, see
        :class:`~avalanche_branchtune.evaluation.StreamProbe`; by default the
        model's attribute ``backbone``.
    :param lr: learning rate.
    :param reset: begin with a new classifier in each experience.
    :raises UnknownOptionError: for no classes or a learning rate that is not positive.
    """

    supports_distributed = False

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Part = None,
        lr: float = 0.1,
        reset: bool = False,
    ) -> None:
        """See the class."""
        super().__init__()
        self.num_classes = at_least_one("OnlineProbe(num_classes=…)", num_classes)
        self.backbone = backbone
        self.lr = positive("OnlineProbe(lr=…)", lr)
        self.reset = true_or_false("OnlineProbe(reset=…)", reset)
        self.classifier: nn.Linear | None = None
        """The classifier; None before the first labelled minibatch."""
        self._optimizer: torch.optim.Optimizer | None = None
        self._handle: RemovableHandle | None = None
        self._outputs: list[Any] = []
        self._right = self._total = 0

    @property
    def train_accuracy(self) -> float | None:
        """Running accuracy in this epoch, of each minibatch before the step on it."""
        return self._right / self._total if self._total else None

    def settings(self) -> dict[str, Any]:
        """Return what decides the accuracy."""
        return {
            "probe": "linear probe, online",
            "lr": self.lr,
            "momentum": MOMENTUM,
            "classes": self.num_classes,
            "classifier": "new in each experience" if self.reset else "kept over the stream",
            "trained on": "features of the training views, augmented",
            "tested on": FEATURES,
        }

    @property
    def protocol(self) -> str:
        """How the accuracies are made, to be printed beside them."""
        return sentence(self.settings())

    def accuracy(self, model: nn.Module, dataset: Any, **loading: Any) -> float:
        """Judge the classifier on test data, without augmentation.

        :param model: the trained model; it is left as it was.
        :param dataset: labelled data set (label −1: left out).
        :param loading: ``batch_size``, ``device``, ``num_workers`` of
            :func:`~avalanche_branchtune.evaluation.extract_features`.
        :return: share of rightly classified samples.
        :raises ProbeError: if nothing was trained yet, there is no label, or
            the features are refused.
        :raises LabelError: for a label outside the classes.
        """
        right, total = self.hits(model, dataset, **loading)
        return right / total

    def hits(self, model: nn.Module, dataset: Any, **loading: Any) -> tuple[int, int]:
        """Return how many test samples are classified rightly, and how many there are.

        :param model: see :meth:`accuracy`.
        :param dataset: see :meth:`accuracy`.
        :param loading: see :meth:`accuracy`.
        """
        if self.classifier is None:
            raise ProbeError("the online probe has seen no labelled minibatch yet")
        self._unhook()
        x, y = chosen(*extract_features(self._network(model), dataset, **loading))
        self._check_labels(y)
        if len(y) == 0:
            raise ProbeError("online probe: no test sample has a label")
        with torch.no_grad():
            predictions = self.classifier(x.to(self.classifier.weight.device)).argmax(dim=1)
        return int((predictions.cpu() == y).sum()), len(y)

    # ---- events

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Clear what an interrupted training left behind, and begin anew if that is asked for."""
        self._release()
        self._network(strategy.model)
        if self.reset and begins(strategy):
            self.classifier = self._optimizer = None

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Start the running accuracy anew."""
        self._right = self._total = 0

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Check the labels, and listen to the backbone."""
        self._release()
        self._check_labels(strategy.mb_y)
        network = self._network(strategy.model)
        self._handle = network.register_forward_hook(self._catch)

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Stop listening."""
        self._unhook()

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Learn from the minibatch, if it has labels."""
        outputs, self._outputs = self._outputs, []
        labels = strategy.mb_y
        if (labels == -1).all():
            return
        views = [x for x in outputs if isinstance(x, Tensor) and x.shape[:1] == labels.shape]
        views = [x for x in views if x.ndim == 2]
        if not views:
            shapes = [
                tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in outputs
            ]
            raise ProbeError(
                f"online probe: expected features ({len(labels)}, D), the backbone gave "
                f"{shapes[:3] or 'nothing: it was not called'} in the training forward pass: pass "
                "OnlineProbe(backbone=…), the module that gives them"
            )
        features, labels = torch.cat(views), labels.repeat(len(views))
        if not torch.isfinite(features).all():
            clock = strategy.clock
            raise ProbeError(
                "online probe: the features are not finite in experience "
                f"{experience_index(strategy)}, epoch {clock.train_exp_epochs}, step "
                f"{clock.train_epoch_iterations}: the network is damaged"
            )
        labelled = labels != -1
        self._step(features[labelled], labels[labelled])

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Leave nothing on the network."""
        self._release()

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Do not listen to an evaluation that follows an interrupted training."""
        self._release()

    # ---- parts

    def _network(self, model: nn.Module) -> nn.Module:
        if self.backbone is not None:
            return part_of(model, self.backbone)
        network = named_part(model, "backbone")
        if network is None:
            raise ProbeError(
                f"OnlineProbe: {type(model).__name__} has no module called 'backbone': pass "
                "backbone=…, a sub-module's name or a function from the model to it"
            )
        return network

    def _catch(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            # A copy: what follows the backbone may change its output in place.
            output = output.detach().to(torch.float32, copy=True)
        self._outputs.append(output)

    def _unhook(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def _release(self) -> None:
        self._unhook()
        self._outputs = []

    def _check_labels(self, labels: Tensor) -> None:
        if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
            raise LabelError(
                f"online probe: expected integer labels (N,), got {labels.dtype} "
                f"{tuple(labels.shape)}"
            )
        outside = labels[(labels < -1) | (labels >= self.num_classes)]
        if len(outside):
            raise LabelError(
                f"online probe: label {int(outside[0])} lies outside the {self.num_classes} "
                "classes that were declared: num_classes must cover all classes of the stream "
                "(−1 means: no label)"
            )

    def _step(self, features: Tensor, labels: Tensor) -> None:
        if self.classifier is None:
            # Without nn.Linear's own initialisation, which would draw random numbers.
            empty = nn.Linear(features.shape[1], self.num_classes, device="meta")
            self.classifier = empty.to_empty(device=features.device)
            for p in self.classifier.parameters():
                nn.init.zeros_(p)
            self._optimizer = torch.optim.SGD(
                self.classifier.parameters(), lr=self.lr, momentum=MOMENTUM
            )
        if features.shape[1] != self.classifier.in_features:
            raise ProbeError(
                f"online probe: the backbone gave {features.shape[1]} features, before "
                f"{self.classifier.in_features}"
            )
        assert self._optimizer is not None
        with torch.autocast(features.device.type, enabled=False):
            scores = self.classifier(features)
            self._optimizer.zero_grad()
            F.cross_entropy(scores, labels).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._right += int((scores.argmax(dim=1) == labels).sum())
        self._total += len(labels)


class OnlineProbeAccuracy(PluginMetric):
    """The accuracies of an :class:`OnlineProbe` as Avalanche metrics.

    After each epoch ``Online_Probe_Acc_Epoch/train_phase/train_stream``; after
    ``strategy.eval(…)``, whatever it was given,
    ``Online_Probe_Acc_Exp/eval_phase/test_stream/Exp000`` and
    ``Online_Probe_Acc_Stream/eval_phase/test_stream``, once there is a classifier.

    :param probe: the probe, which must be among the strategy's plugins.
    :param test_stream: test experiences, or data sets.
    :param loading: see :meth:`OnlineProbe.accuracy`.
    """

    def __init__(self, probe: OnlineProbe, test_stream: Iterable[Any], **loading: Any) -> None:
        """See the class."""
        super().__init__()
        self.probe = probe
        self.test = datasets_of(test_stream)
        self.loading = loading

    def before_training(self, strategy: Any) -> None:
        """Refuse a strategy that does not train the probe."""
        if not any(p is self.probe for p in strategy.plugins):
            raise ProbeError("OnlineProbeAccuracy: its OnlineProbe is not among the plugins")

    def after_training_epoch(self, strategy: Any) -> list[MetricValue]:
        """Give the running accuracy of the epoch."""
        value = self.probe.train_accuracy
        values = {} if value is None else {"Epoch/train_phase/train_stream": value}
        return self._values(strategy, values)

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Give the accuracy on the test experiences."""
        if self.probe.classifier is None:
            return []
        hits = [self.probe.hits(strategy.model, d, **self.loading) for d in self.test]
        where = "eval_phase/test_stream"
        values = {f"Exp/{where}/Exp{i:03d}": right / n for i, (right, n) in enumerate(hits)}
        values[f"Stream/{where}"] = sum(right for right, _ in hits) / sum(n for _, n in hits)
        return self._values(strategy, values)

    def result(self) -> float | None:
        """Return the running accuracy of the epoch."""
        return self.probe.train_accuracy

    def reset(self) -> None:
        """Keep everything: the probe begins its epochs itself."""

    def _values(self, strategy: Any, values: dict[str, float]) -> list[MetricValue]:
        x = strategy.clock.train_iterations
        return [MetricValue(self, f"Online_Probe_Acc_{name}", v, x) for name, v in values.items()]
