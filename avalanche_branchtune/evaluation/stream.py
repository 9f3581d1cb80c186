"""Probes over a stream: one accuracy for each test experience."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from avalanche.benchmarks import CLExperience
from torch import Tensor, nn

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.features import FeatureCache, fingerprint
from avalanche_branchtune.evaluation.probe import (
    FEATURES,
    OUTPUTS,
    Fitted,
    NoMetric,
    Probe,
    check_labels,
    chosen,
    shared_labels,
)
from avalanche_branchtune.experiences import experience_index, stream_length, whole_experience
from avalanche_branchtune.options import at_least_one, fraction, one_of
from avalanche_branchtune.parts import Part, part_of
from avalanche_branchtune.surgery import has_head

SCOPES = ("all", "seen", "experience")
LOADING = ("batch_size", "device", "num_workers")


@dataclass(frozen=True)
class StreamResult:
    """What a probe found on a stream.

    :param accuracies: for each test experience the accuracy in [0, 1]; None
        where the scope does not measure it.
    :param overall: accuracy on the test samples of all measured experiences together.
    :param settings: how the numbers were made.
    :param features: test features of each experience ``(M_i, D)``, if the probe has any.
    :param labels: their labels ``(M_i,)``.

    Example::

        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from avalanche_branchtune.evaluation import KNNProbe, StreamProbe
        >>> data = [TensorDataset(torch.ones(1, 2), torch.tensor([i])) for i in (0, 1)]
        >>> probe = StreamProbe(KNNProbe(k=1), data, data, scope="seen")
        >>> result = probe.measure(torch.nn.Identity(), trained=1)
        >>> result.accuracies, result.overall, result.settings["fitted on"]
        ([1.0, None], 1.0, 'the experiences trained so far')
    """

    accuracies: list[float | None]
    overall: float | None
    settings: dict[str, Any]
    features: list[Tensor] = field(repr=False, default_factory=list)
    labels: list[Tensor] = field(repr=False, default_factory=list)


class StreamProbe(NoMetric):
    """A probe that judges a network on every test experience of a stream.

    ``scope`` says which classifier is judged:

    - ``"all"``: one classifier, fitted on the training data of all experiences,
      also of those to come;
    - ``"seen"``: one, fitted on the experiences that were trained so far, and
      judged on these;
    - ``"experience"``: one for each experience, fitted and judged on its data
      alone (the experience's identity is given).

    :param probe: which classifier, for example
        :class:`~avalanche_branchtune.evaluation.KNNProbe`.
    :param train: the stream's training experiences, or data sets, labelled.
    :param test: its test experiences, or data sets: one for each training
        experience, or one that they share (data-incremental).
    :param scope: see above.
    :param name: in metrics and tables; by default the probe's, with its scope
        unless that is ``"all"``.
    :param label_share: share of each class's training labels that are used.
    :param seed: of the choice of those labels.
    :param backbone: from the trained model to the module that gives features
        ``(N, D)``: a sub-module's name or a function; by default the model's
        attribute ``backbone``, or the model itself if it has none or if its own
        classifier is judged.
    :param cache: where features are kept; probes that share it extract once.
    :param loading: ``batch_size``, ``device``, ``num_workers`` of
        :func:`~avalanche_branchtune.evaluation.extract_features`.
    :raises UnknownOptionError: for another scope, share or option of loading.
    :raises ProbeError: for streams that do not go together.

    Example::

        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from avalanche_branchtune.evaluation import KNNProbe, StreamProbe
        >>> train = [TensorDataset(torch.eye(2)[[i]], torch.tensor([i])) for i in (0, 1)]
        >>> test = [TensorDataset(torch.tensor([[1.0, 2.0]]), torch.tensor([i])) for i in (0, 1)]
        >>> probes = [StreamProbe(KNNProbe(1), train, test, scope=s) for s in ("all", "experience")]
        >>> [probe.measure(torch.nn.Identity(), trained=1).accuracies for probe in probes]
        [[0.0, 1.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        probe: Probe,
        train: Iterable[Any],
        test: Iterable[Any],
        *,
        scope: str = "all",
        name: str | None = None,
        label_share: float = 1.0,
        seed: int = 0,
        backbone: Part = None,
        cache: FeatureCache | None = None,
        **loading: Any,
    ) -> None:
        """See the class."""
        one_of("StreamProbe(scope=…)", scope, SCOPES)
        self.probe = probe
        self.train, self.test = datasets_of(train), datasets_of(test)
        if not self.train or not self.test:
            raise ProbeError(
                f"StreamProbe: {len(self.train)} training and {len(self.test)} test experiences: "
                "expected at least one of each"
            )
        pairs = len(self.train) == len(self.test)
        if not (pairs or scope == "all" or (scope == "seen" and len(self.test) == 1)):
            raise ProbeError(
                f"StreamProbe(scope={scope!r}): {len(self.train)} training and {len(self.test)} "
                "test experiences: expected one test experience for each"
            )
        first, judged = _labels(self.train[0]), _labels(self.test[0])
        if scope == "seen" and not pairs and first and judged - first:
            raise ProbeError(
                "StreamProbe(scope='seen'): the one test set has classes that the first experience "
                f"has not, {sorted(judged - first)[:5]} …, of which nothing could be told after "
                "it: pass scope='all', or a test experience for each"
            )
        self.scope = scope
        suffix = "" if scope == "all" else f"_{scope}"
        self.name = f"{probe.name}{suffix}" if name is None else name
        self.label_share, self.seed = fraction("StreamProbe(label_share=…)", label_share), seed
        for option in loading:
            one_of("StreamProbe(…)", option, LOADING)
        at_least_one("StreamProbe(batch_size=…)", loading.get("batch_size", 1))
        self.backbone = _whole if backbone is None and not probe.needs_training else backbone
        self.cache = cache
        self.loading = loading
        self._label_sets: dict[tuple[str, int], set[int]] = {}
        self._of_outputs = False  # of a model without a module backbone, but with a classifier

    def check_trained(self, strategy: Any) -> None:
        """Refuse to judge a network by another stream than the one that it learns.

        Streams of as many experiences are told apart by the classes of the
        experience in training (two class orders, two data sets); where either
        has no labels, or one's classes are among the other's, nothing is known.

        :param strategy: in training.
        :raises ProbeError: if this probe's experience has other classes.
        """
        n, index = stream_length(strategy), experience_index(strategy)
        if n != len(self.train) or n < 2 or index >= n:
            return
        learnt = _labels(dataset_of(whole_experience(strategy.experience)))
        own = _labels(self.train[index])
        if learnt - own and own - learnt:
            raise ProbeError(
                f"{self.name}: experience {index} is trained with the classes "
                f"{sorted(learnt)[:5]} …, the probe's has {sorted(own)[:5]} …: pass StreamProbe "
                "the stream that is trained (or, for transfer, one training and one test set)"
            )

    def measure(self, model: nn.Module, trained: int) -> StreamResult:
        """Judge a network.

        :param model: the trained model, see ``backbone``; it is left as it was.
        :param trained: number of experiences that it has been trained on.
        :return: accuracies, and how they were made.
        :raises ProbeError: for features and labels that a probe refuses, and
            for a label set that is not what it was in an earlier measurement.
        """
        self.cache = FeatureCache() if self.cache is None else self.cache
        network = part_of(model, self.backbone)
        self._of_outputs = self.backbone is None and network is model and has_head(model)
        key = fingerprint(network)
        test = [self._features(network, key, "test", i) for i in range(len(self.test))]
        results: list[float | None] = [None] * len(test)
        right = total = 0
        for banks, judged in self._jobs(trained):
            fitted = self._fit(network, key, banks, [test[i][1] for i in judged])
            for i in judged:
                x, y = test[i]
                hits = int((fitted.predict(x) == y).sum())
                results[i] = hits / len(y)
                right, total = right + hits, total + len(y)
        return StreamResult(
            results,
            right / total if total else None,
            self.settings(),
            [x for x, _ in test],
            [y for _, y in test],
        )

    def _jobs(self, trained: int) -> list[tuple[Sequence[int], Sequence[int]]]:
        """Return which classifiers there are: training and test experiences of each."""
        tests = range(len(self.test))
        if self.scope == "all":
            return [(range(len(self.train)), tests)]
        if self.scope == "experience":
            return [([i], [i]) for i in tests]
        seen = range(trained)
        return [(seen, tests if len(tests) == 1 else seen)] if trained else []

    def _fit(
        self, network: nn.Module, key: str, banks: Sequence[int], truth: list[Tensor]
    ) -> Fitted:
        if not self.probe.needs_training:
            fitted = self.probe.fit(torch.empty(0), torch.empty(0))
            return fitted if self.scope == "all" else _among(fitted, torch.unique(torch.cat(truth)))
        x, y = _together([self._features(network, key, "training", i) for i in banks])
        x, y = shared_labels(x, y, self.label_share, self.seed)
        check_labels(self.probe, y, torch.cat(truth))
        return self.probe.fit(x, y)

    def settings(self) -> dict[str, Any]:
        """Return how the accuracies are made: the same after every experience."""
        scopes = {
            "all": "all experiences of the stream",
            "seen": "the experiences trained so far",
            "experience": "each experience by itself",
        }
        training: dict[str, Any] = {"classes told apart": scopes[self.scope]}
        if self.probe.needs_training:
            share = f"{100 * self.label_share:.6g}% of each class"
            training = {
                "features": OUTPUTS if self._of_outputs else FEATURES,
                "fitted on": scopes[self.scope],
                "training labels": share,
                **({"seed of the labels": self.seed} if self.label_share < 1 else {}),
                "training experiences": len(self.train),
                "training images": sum(len(d) for d in self.train),
            }
        labels = [known for (which, _), known in self._label_sets.items() if which == "test"]
        if self.backbone is not None and self.backbone is not _whole:
            name = getattr(self.backbone, "__qualname__", self.backbone)
            training["part of the network"] = str(name)
        return {
            **self.probe.settings(),
            **training,
            "test experiences": len(self.test),
            "test images": sum(len(d) for d in self.test),
            "test classes": len(set().union(*labels)),
        }

    def _features(self, network: nn.Module, key: str, which: str, i: int) -> tuple[Tensor, Tensor]:
        dataset = (self.test if which == "test" else self.train)[i]
        assert self.cache is not None
        x, y = chosen(*self.cache.features(network, dataset, key=key, **self.loading))
        labels = set(torch.unique(y).tolist())
        if not labels:
            raise ProbeError(f"no sample of {which} experience {i} has a label")
        known = self._label_sets.setdefault((which, i), labels)
        if labels != known:
            raise ProbeError(
                f"the labels of {which} experience {i} changed from {sorted(known)[:10]} to "
                f"{sorted(labels)[:10]}: accuracies before and after cannot be compared"
            )
        return x, y


def datasets_of(experiences: Iterable[Any]) -> list[Any]:
    """Return the data sets of experiences.

    :param experiences: Avalanche experiences, or data sets.

    Example::

        >>> from avalanche_branchtune.evaluation.stream import datasets_of
        >>> from avalanche_branchtune.streams import class_incremental
        >>> data = [("image", label) for label in (0, 0, 0, 1)]
        >>> benchmark = class_incremental(data, data, 2, class_order=[1, 0])
        >>> [len(dataset) for dataset in datasets_of(benchmark.train_stream)]
        [1, 3]
    """
    return [dataset_of(e) for e in experiences]


def dataset_of(experience: Any) -> Any:
    """Return the data set of an experience, or a data set as it is.

    :param experience: an Avalanche experience or a data set.

    Example::

        >>> from avalanche_branchtune.evaluation.stream import dataset_of
        >>> from avalanche_branchtune.streams import joint
        >>> data = [("image 0", 5), ("image 1", 6)]
        >>> dataset_of(joint(data, data).train_stream[0])[1][:2]
        ['image 1', 6]
        >>> dataset_of(data) is data
        True
    """
    return experience.dataset if isinstance(experience, CLExperience) else experience


def _labels(dataset: Any) -> set[int]:
    """Return the labels of a data set that says them, without −1; none if they are no classes."""
    targets = getattr(dataset, "targets", ())
    try:
        return {int(t) for t in getattr(targets, "uniques", targets)} - {-1}
    except (TypeError, ValueError, RuntimeError):
        return set()


def _among(fitted: Fitted, labels: Tensor) -> Fitted:
    """Let scores of some classes alone decide."""
    return Fitted(lambda scores: labels[scores[:, labels].argmax(dim=1)], fitted.found)


def _whole(model: nn.Module) -> nn.Module:
    return model


def _together(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(parts) == 1:
        return parts[0]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
