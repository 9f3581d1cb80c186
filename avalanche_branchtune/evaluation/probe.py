"""What every probe of a frozen network has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.features import FeatureCache
from avalanche_branchtune.options import fraction

FEATURES = "frozen backbone in eval mode, without augmentation"
OUTPUTS = "outputs of the whole network in eval mode, without augmentation"


class Fitted(NamedTuple):
    """A classifier of features.

    :param predict: from features ``(M, D)`` to labels ``(M,)``.
    :param found: what was chosen on the training data, for example a
        regularisation; not part of the protocol.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation.probe import Fitted
        >>> fitted = Fitted(lambda x: (x[:, 0] > 0.5).long(), {"threshold": 0.5})
        >>> fitted.predict(torch.tensor([[0.25], [0.75]])).tolist(), fitted.found
        ([0, 1], {'threshold': 0.5})
    """

    predict: Callable[[Tensor], Tensor]
    found: dict[str, Any]


class NoMetric:
    """Refuses to be among an evaluator's metrics, which would pass it over in silence.

    Example::

        >>> from avalanche_branchtune.evaluation import KNNProbe
        >>> KNNProbe().before_training(strategy=None)
        Traceback (most recent call last):
        avalanche_branchtune.errors.ProbeError: EvaluationPlugin(KNNProbe(…)): a probe is no ...
    """

    def before_training(self, strategy: Any) -> None:
        """Refuse it, as Avalanche's evaluator asks its metrics at each event.

        :param strategy: about to train, or to evaluate.
        :raises ProbeError: always.
        """
        raise ProbeError(
            f"EvaluationPlugin({type(self).__name__}(…)): a probe is no metric: pass "
            "EvaluationPlugin(*run_metrics([StreamProbe(…)]), …), of avalanche_branchtune.metrics"
        )

    before_eval = before_training


class Probe(NoMetric, ABC):
    """A way to judge features by a classifier that is fitted on them.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation.probe import Fitted, Probe
        >>> class Majority(Probe):
        ...     name = "majority"
        ...     def settings(self): return {"probe": "the most frequent label"}
        ...     def fit(self, x, y): return Fitted(lambda q: y.mode().values.repeat(len(q)), {})
        >>> Majority().fit(None, torch.tensor([9, 4, 4])).predict(torch.ones(2, 1)).tolist()
        [4, 4]
    """

    name: str
    """Short name, in metrics and tables."""

    least_classes: int = 1
    """Classes without which there is nothing to fit."""

    needs_training: bool = True
    """Whether it is fitted on training data, or only judges what the network says itself."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return everything that decides the accuracy, as it is shown and compared."""

    @abstractmethod
    def fit(self, features: Tensor, labels: Tensor) -> Fitted:
        """Fit a classifier.

        :param features: ``(N, D)``, float32.
        :param labels: ``(N,)``, any integers.
        :return: the classifier.
        """


class ClassifierProbe(Probe):
    """The network's own classifier: nothing is fitted, its outputs are class scores.

    For supervised strategies, and for networks that learn their classifier
    along the stream; as features it takes scores ``(N, C)``, and class c is
    the label c.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation import ClassifierProbe
        >>> fitted = ClassifierProbe().fit(torch.empty(0), torch.empty(0))
        >>> fitted.predict(torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])).tolist()
        [1, 0]
    """

    name = "classifier"
    needs_training = False

    def settings(self) -> dict[str, Any]:
        """Return what decides the accuracy."""
        return {"probe": "the network's own classifier, in eval mode"}

    def fit(self, features: Tensor, labels: Tensor) -> Fitted:
        """Return the largest score's class."""
        return Fitted(lambda scores: scores.argmax(dim=1), {})


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    :param accuracy: share of the test samples that were classified rightly, in [0, 1].
    :param predictions: predicted labels ``(M,)`` of the labelled test samples.
    :param settings: how the number was made; two accuracies may be compared
        only if these agree.
    :param found: what was chosen on the training data.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation import ProbeResult
        >>> settings, found = {"probe": "linear probe", "classes": 2}, {"C": "0.1 (chosen)"}
        >>> ProbeResult(0.5, torch.tensor([0, 1]), settings, found).protocol
        'linear probe, classes 2, C 0.1 (chosen)'
    """

    accuracy: float
    predictions: Tensor
    settings: dict[str, Any]
    found: dict[str, Any]

    @property
    def protocol(self) -> str:
        """How the number was made, to be printed beside it."""
        return sentence({**self.settings, **self.found})


def sentence(settings: dict[str, Any]) -> str:
    """Return settings as one line of text.

    :param settings: of a probe; its ``probe`` comes first.

    Example::

        >>> from avalanche_branchtune.evaluation.probe import sentence
        >>> sentence({"k": 20, "T": 0.07, "probe": "weighted kNN"})
        'weighted kNN, k 20, T 0.07'
    """
    rest = [f"{key} {value}" for key, value in settings.items() if key != "probe"]
    return ", ".join([str(settings["probe"]), *rest])


def run_probe(
    probe: Probe,
    model: nn.Module,
    train: Any,
    test: Any,
    *,
    classes: Sequence[int] | None = None,
    label_share: float = 1.0,
    seed: int = 0,
    cache: FeatureCache | None = None,
    **loading: Any,
) -> ProbeResult:
    """Fit a probe on a training set's features and judge it on a test set's.

    :param probe: which classifier, for example
        :class:`~avalanche_branchtune.evaluation.KNNProbe`.
    :param model: maps images to features ``(N, D)``; used frozen, in eval mode.
    :param train: labelled data set (label −1: left out), see
        :func:`~avalanche_branchtune.evaluation.extract_features`.
    :param test: labelled data set, of the stream's or of another one (transfer).
    :param classes: labels that take part, in training and test; all by default.
    :param label_share: share of each class's training labels that are used, at
        least one of each.
    :param seed: of the choice of those labels.
    :param cache: where features are kept for the next probe.
    :param loading: ``batch_size``, ``device``, ``num_workers`` of ``extract_features``.
    :return: accuracy, predictions and protocol.
    :raises UnknownOptionError: for a share outside (0, 1].
    :raises ProbeError: for a class without a labelled training sample, no
        labelled test sample, and what the probe refuses.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation import KNNProbe
        >>> from avalanche_branchtune.evaluation.probe import run_probe
        >>> data = torch.utils.data.TensorDataset(torch.eye(4), torch.tensor([0, 1, 2, -1]))
        >>> result = run_probe(KNNProbe(k=1), torch.nn.Identity(), data, data, classes=[0, 2])
        >>> result.accuracy, result.settings["classes"], result.settings["training images"]
        (1.0, 2, 2)
    """
    fraction("label_share=…", label_share)
    cache = FeatureCache() if cache is None else cache
    x, y = chosen(*cache.features(model, train, **loading), classes)
    queries, truth = chosen(*cache.features(model, test, **loading), classes)
    x, y = shared_labels(x, y, label_share, seed)
    check_labels(probe, y, truth, classes or ())
    fitted = probe.fit(x, y)
    predictions = fitted.predict(queries)
    settings = {
        **probe.settings(),
        "features": FEATURES,
        "classes": len(torch.unique(y)),
        "training labels": f"{100 * label_share:.6g}% of each class",
        "training images": len(y),
        "test images": len(truth),
    }
    return ProbeResult(accuracy(predictions, truth), predictions, settings, fitted.found)


def chosen(x: Tensor, y: Tensor, classes: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Return the labelled samples of some classes.

    :param x: features ``(N, D)``.
    :param y: labels ``(N,)``, −1 where there is none.
    :param classes: all by default.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation.probe import chosen
        >>> x, y = torch.tensor([[5.0], [6.0], [7.0]]), torch.tensor([0, -1, 1])
        >>> [part.tolist() for part in chosen(x, y)]
        [[[5.0], [7.0]], [0, 1]]
        >>> [part.tolist() for part in chosen(x, y, classes=[1])]
        [[[7.0]], [1]]
    """
    taken = y != -1 if classes is None else torch.isin(y, torch.tensor(list(classes)))
    return (x, y) if taken.all() else (x[taken], y[taken])


def shared_labels(x: Tensor, y: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return a random share of each class, at least one sample of each.

    :param x: features ``(N, D)``.
    :param y: labels ``(N,)``.
    :param share: in (0, 1].
    :param seed: of the choice.
    :raises UnknownOptionError: for another share.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation.probe import shared_labels
        >>> y = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
        >>> _, kept = shared_labels(torch.ones(10, 3), y, share=0.25, seed=0)
        >>> kept.tolist()  # a quarter of eight; at least one of two
        [0, 0, 1]
    """
    if fraction("label_share=…", share) == 1:
        return x, y
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for label in torch.unique(y):
        members = (y == label).nonzero().flatten()
        count = max(1, round(share * len(members)))
        parts.append(members[torch.randperm(len(members), generator=generator)[:count]])
    kept = torch.cat(parts).sort().values if parts else torch.zeros(0, dtype=torch.long)
    return x[kept], y[kept]


def check_labels(probe: Probe, y: Tensor, truth: Tensor, classes: Sequence[int] = ()) -> None:
    """Refuse labels on which a probe says nothing.

    :param probe: the probe.
    :param y: training labels ``(N,)``.
    :param truth: test labels ``(M,)``.
    :param classes: labels that must be there.
    :raises ProbeError: for a class without training sample, too few classes, or
        no test sample.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation import KNNProbe
        >>> from avalanche_branchtune.evaluation.probe import check_labels
        >>> check_labels(KNNProbe(), torch.tensor([0, 1]), truth=torch.tensor([1]))
        >>> check_labels(KNNProbe(), torch.tensor([0, 1]), truth=torch.tensor([2]))
        Traceback (most recent call last):
            ...
        avalanche_branchtune.errors.ProbeError: kNN probe: no training sample is labelled [2]: ...
    """
    present = set(torch.unique(y).tolist())
    missing = (set(torch.unique(truth).tolist()) | set(classes)) - present
    if missing:
        raise ProbeError(
            f"{probe.name} probe: no training sample is labelled {sorted(missing)[:5]}: its "
            "accuracy on that class would be 0 whatever the network"
        )
    if len(present) < probe.least_classes or len(truth) == 0:
        raise ProbeError(
            f"{probe.name} probe: needs {probe.least_classes} classes and a labelled test sample, "
            f"there are {len(present)} classes and {len(truth)} test samples"
        )


def accuracy(predictions: Tensor, truth: Tensor) -> float:
    """Return the share of equal labels.

    :param predictions: ``(M,)``.
    :param truth: ``(M,)``.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation.probe import accuracy
        >>> accuracy(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 0]))
        0.75
    """
    return (predictions == truth).double().mean().item()
