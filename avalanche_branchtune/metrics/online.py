"""A linear probe that is trained beside the network."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import LabelError, ProbeError, UnknownOptionError
from avalanche_branchtune.evaluation.features import extract_features
from avalanche_branchtune.evaluation.probe import FEATURES, chosen, sentence
from avalanche_branchtune.experiences import experience_index
from avalanche_branchtune.keeping import looked_at, random_state_kept
from avalanche_branchtune.lifecycle import ExperiencePlugin
from avalanche_branchtune.metrics.labelled import LabelledImages
from avalanche_branchtune.metrics.listening import Listener, features_of
from avalanche_branchtune.optimizers import join_as_group, leave_group
from avalanche_branchtune.options import at_least_one, positive, true_or_false
from avalanche_branchtune.parts import Part, named_part, part_of

MOMENTUM = 0.9
"""Momentum of the classifier's SGD."""

TRAINING_MODE = "in training mode for these images: its running statistics have seen them"


class OnlineProbe(ExperiencePlugin):
    """A linear classifier of the network's features, trained along with it.

    By default the network does not learn of it: the features are those of the network's own
    forward pass on the minibatches of training, images or lists of views, with labels (−1: none).
    A hook on the backbone, there only during that pass, copies them.  One SGD step per minibatch,
    on the features of all views together, after the network's backward pass; the classifier begins
    at zero.  Training of the network is the same, bit for bit, as without it.

    With ``labelled`` it is CaSSLe's and Kaizen's online linear evaluation.  In every step, after
    the network's own forward pass, a minibatch of labelled images passes the backbone without
    gradients but *in training mode*, also the momentum backbone, if the model has a module or
    property ``momentum_backbone``.  The classifier, which begins as ``nn.Linear`` does, is a group
    of the network's own optimizer, with ``lr`` as given, no weight decay, and the schedule, if it
    is made after the experience has begun (as :class:`solo_bridge.SelfSupervised` does); its
    cross-entropy is added to ``strategy.loss``.  It leaves the optimizer when the experience ends.
    An experience that is trained again begins with the classifier of its first time.

    It is off by default because the network is then no longer trained on its own experience alone:
    running statistics of BatchNorm see the labelled images, with ``"all"`` those of experiences to
    come too.  Weights are those of a run without it, but for random numbers that are drawn, where
    BatchNorm trains on its minibatch's own statistics; what is evaluated, or trained on fixed
    statistics (Branch-tuning), is not.  It is there so that published figures can be compared:
    CaSSLe's tables on CIFAR-100 were made so with ``"all"`` (on its other data sets without),
    Kaizen's scripts with ``"seen"`` and ``batch_size="epoch"``::

        OnlineProbe(100, labelled=LabelledImages(benchmark.train_stream))

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/methods/base.py, _base_shared_step.
    Differs: solo-learn's classifier learns from the training's minibatches with the method's
    optimizer and schedule and starts as ``nn.Linear`` does, ours by default with SGD of its own at
    a constant rate, from zero.
    Authors' code: DonkeyShot21/cassle b5b0929, cassle/methods/base.py, _online_eval_shared_step,
    training_step and learnable_params; dr-bell/kaizen e36ee54, kaizen/methods/base.py.
    Differs: theirs is ``labelled``; by default ours leaves the training of the network alone.

    :param num_classes: number of classes of the whole stream.
    :param backbone: the module that gives features ``(N, D)`` in training, see
        :class:`~avalanche_branchtune.evaluation.StreamProbe`; by default the
        model's attribute ``backbone``.
    :param labelled: the images to learn from instead of the training's minibatches.
    :param lr: learning rate, 0.1 as in CaSSLe's and Kaizen's scripts (CaSSLe's for VICReg: 0.3);
        not scaled by the size of the minibatch.
    :param reset: begin with a new classifier in each experience.
    :raises UnknownOptionError: for no classes or a learning rate that is not positive.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Part = None,
        labelled: LabelledImages | None = None,
        lr: float = 0.1,
        reset: bool = False,
    ) -> None:
        """See the class."""
        super().__init__()
        self.num_classes = at_least_one("OnlineProbe(num_classes=…)", num_classes)
        self.backbone = backbone
        if labelled is not None and not isinstance(labelled, LabelledImages):
            raise UnknownOptionError(
                "OnlineProbe(labelled=…): expected LabelledImages(stream); got a "
                f"{type(labelled).__name__}"
            )
        self.labelled = labelled
        self.lr = positive("OnlineProbe(lr=…)", lr)
        self.reset = true_or_false("OnlineProbe(reset=…)", reset)
        self.classifier: nn.Linear | None = None
        """The classifier; None before the first labelled minibatch."""
        self._optimizer: torch.optim.Optimizer | None = None
        self._listener = Listener()
        self._minibatches: Iterator[tuple[Tensor, Tensor]] | None = None
        self._place = (0, 0)
        self._held: tuple[Any, nn.Linear | None] | None = None  # what an experience began with
        self._right = self._total = 0

    @property
    def train_accuracy(self) -> float | None:
        """Running accuracy in this epoch, of each minibatch before the step on it."""
        return self._right / self._total if self._total else None

    def settings(self) -> dict[str, Any]:
        """Return what decides the accuracy."""
        learner: dict[str, Any] = {"momentum": MOMENTUM}
        source: dict[str, Any] = {"trained on": "features of the training views, augmented"}
        if self.labelled is not None:
            learner = {"optimizer": "the network's"}
            source = {**self.labelled.settings(), "network": TRAINING_MODE}
        return {
            "probe": "linear probe, online",
            "lr": self.lr,
            **learner,
            "classes": self.num_classes,
            "classifier": "new in each experience" if self.reset else "kept over the stream",
            **source,
            "tested on": FEATURES,
        }

    def record_settings(self) -> dict[str, Any]:
        """Return what a run's record says of it: :meth:`settings`, if the network depends on it."""
        return {} if self.labelled is None else {"online probe": self.settings()}

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
        self._listener.end()
        x, y = chosen(*extract_features(self._network(model), dataset, **loading))
        self._check_labels(y)
        if len(y) == 0:
            raise ProbeError("online probe: no test sample has a label")
        with torch.no_grad():
            predictions = self.classifier(x.to(self.classifier.weight)).argmax(dim=1)
        return int((predictions.cpu() == y).sum()), len(y)

    # ---- an experience

    def refuse(self, strategy: Any) -> None:
        """Refuse a model without the backbone."""
        self._network(strategy.model)

    def open(self, strategy: Any, experience: int) -> None:
        """Begin anew if that is asked for; with ``labelled``, join the optimizer."""
        self._listener.forget()
        if self.labelled is None:
            if self.reset:
                self.classifier = self._optimizer = None
            return
        if self._held is None or self._held[0] != self._key:  # else it was begun before
            self._held = (self._key, None if self.reset else copy.deepcopy(self.classifier))
        self._minibatches = None
        self.classifier = copy.deepcopy(self._held[1]) or self._fresh_classifier(strategy)
        self._join(strategy)

    def rejoin(self, strategy: Any) -> None:
        """Join another optimizer."""
        self._listener.forget()
        if self.labelled is not None:
            self._leave(strategy)
            self._join(strategy)

    def close(self, strategy: Any, *, finished: bool) -> None:
        """Leave nothing on the network and in the optimizer."""
        self._listener.forget()
        self._minibatches = None
        if self.labelled is not None:
            self._leave(strategy)

    # ---- events

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Start the running accuracy and the labelled images anew."""
        self._right = self._total = 0
        self._minibatches, self._place = None, (0, 0)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Check the labels, and listen to the backbone."""
        if self.labelled is None:
            self._listener.forget()
            self._check_labels(strategy.mb_y)
            self._listener.begin(self._network(strategy.model))

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Stop listening."""
        self._listener.end()

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Let a minibatch of labelled images pass, and add the classifier's loss."""
        if self.labelled is None:
            return
        if self._minibatches is None:
            self._minibatches = self.labelled.minibatches(strategy, self._place)
        collated, labels = next(self._minibatches)
        images, labels = self.labelled.images(strategy, collated), labels.to(strategy.device)
        self._place = getattr(self._minibatches, "place", self._place)
        self._check_labels(labels)
        with getattr(strategy, "autocast", contextlib.nullcontext)():
            with torch.no_grad():
                network = self._network(strategy.model)
                features = features_of(network, images)
                momentum = named_part(strategy.model, "momentum_backbone")
                if momentum is not None and momentum is not network:
                    momentum(images)
            self._check_features(strategy, features)
            assert self.classifier is not None
            scores = self.classifier(features)
            count = ranks.mean_count((labels != -1).sum())
            if count:  # else the mean of nothing, NaN
                loss = F.cross_entropy(scores, labels, ignore_index=-1, reduction="sum") / count
                strategy.loss = strategy.loss + loss
        scores, labels = ranks.whole(scores), ranks.whole(labels)
        self._count(scores[labels != -1], labels[labels != -1])

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Learn from the training's minibatch, if it has labels."""
        if self.labelled is not None:
            return
        labels = ranks.whole(strategy.mb_y)
        if (labels == -1).all():
            self._listener.forget()
            return
        views = [ranks.whole(v) for v in self._listener.features(len(strategy.mb_y))]
        features, labels = torch.cat(views), labels.repeat(len(views))
        self._check_features(strategy, features)
        labelled = labels != -1
        self._step(features[labelled], labels[labelled])

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Leave nothing on the network."""
        super().after_training_exp(strategy, *args, **kwargs)
        self._listener.forget()
        self._minibatches = None

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Do not listen to an evaluation that follows an interrupted training."""
        self._listener.forget()

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle without the labelled images under way: they begin anew."""
        return {**vars(self), "_minibatches": None}

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

    def _fresh_classifier(self, strategy: Any) -> nn.Linear:
        """Return a classifier as ``nn.Linear`` begins, of the size of one image's features."""
        assert self.labelled is not None
        network = self._network(strategy.model)
        with random_state_kept(), looked_at(network):
            image, _ = self.labelled.views(strategy)[0]
            images = self.labelled.images(strategy, default_collate([image]))
            features = features_of(network, images)
        return nn.Linear(features.shape[1], self.num_classes, dtype=features.dtype)

    def _join(self, strategy: Any) -> None:
        assert self.classifier is not None
        self.classifier.to(strategy.device)
        settings = {"lr": self.lr, "weight_decay": 0.0}
        join_as_group(strategy.optimizer, self.classifier, type(self).__name__, **settings)

    def _leave(self, strategy: Any) -> None:
        if self.classifier is not None:
            leave_group(strategy.optimizer, self.classifier, type(self).__name__)
            self.classifier.zero_grad()

    def _check_features(self, strategy: Any, features: Tensor) -> None:
        if not torch.isfinite(features).all():
            clock = strategy.clock
            raise ProbeError(
                "online probe: the features are not finite in experience "
                f"{experience_index(strategy)}, epoch {clock.train_exp_epochs}, step "
                f"{clock.train_epoch_iterations}: the network is damaged"
            )
        if self.classifier is not None and features.shape[1] != self.classifier.in_features:
            raise ProbeError(
                f"online probe: the backbone gave {features.shape[1]} features, before "
                f"{self.classifier.in_features}"
            )

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
        assert self._optimizer is not None
        with torch.autocast(features.device.type, enabled=False):
            scores = self.classifier(features)
            self._optimizer.zero_grad()
            F.cross_entropy(scores, labels).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._count(scores, labels)

    def _count(self, scores: Tensor, labels: Tensor) -> None:
        self._right += int((scores.argmax(dim=1) == labels).sum())
        self._total += len(labels)
