"""Weighted k-nearest-neighbour probe of a frozen network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.probe import Fitted, Probe, ProbeResult, run_probe
from avalanche_branchtune.options import at_least_one, one_of, positive

DISTANCES = ("cosine", "euclidean")
EPSILON = 1e-5
"""Added to Euclidean distances before they are inverted, as in solo-learn."""


def weighted_knn(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    distance: str = "cosine",
    chunk: int = 1024,
    bank_chunk: int = 16384,
) -> Tensor:
    """Predict labels by a vote of the k nearest training samples.

    ``"cosine"``: with similarity s a neighbour's vote weighs ``exp(s / T)`` (Wu
    et al., arXiv 1805.01978, Section 3.4; solo-learn's k 20, T 0.07).
    ``"euclidean"``: with distance d it weighs ``1 / (d + 1e-5)`` (solo-learn),
    computed in float64.  Exact: all pairs are compared, ``chunk × bank_chunk``
    at a time; beyond the features themselves memory grows with neither N nor M × N.

    Authors' code: zhirongw/lemniscate.pytorch f7cfe29, test.py, kNN (Wu et al.).
    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/utils/knn.py, WeightedKNNClassifier.
    Differs: Wu et al. take k 200, solo-learn and ours 20 by default.
    Differs: solo-learn counts the classes by the test labels, ours by the training labels.
    Differs: solo-learn lowers k to the number of samples, ours refuses too few.
    Differs: solo-learn 1.0.2 does not normalise features, ours does for ``"cosine"``.

    :param train_features: ``(N, D)``.
    :param train_labels: ``(N,)``, any integers; samples labelled −1 are left out.
    :param test_features: ``(M, D)``.
    :param k: number of neighbours.
    :param temperature: T, of ``"cosine"`` only.
    :param distance: ``"cosine"`` or ``"euclidean"``.
    :param chunk: test samples per comparison.
    :param bank_chunk: training samples per comparison.
    :return: predicted labels ``(M,)``.
    :raises ProbeError: if there are fewer than k labelled training samples.
    :raises UnknownOptionError: for another distance, and if k or T is not positive.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation import weighted_knn
        >>> bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> labels, query = torch.tensor([4, 7, 7]), torch.tensor([[2.0, 0.0]])
        >>> weighted_knn(bank, labels, query, k=3, temperature=0.07).tolist()
        [4]
        >>> weighted_knn(bank, labels, query, k=3, temperature=10).tolist()  # hardly weighted
        [7]
    """
    _check("weighted_knn", k, temperature, distance)
    labelled = train_labels != -1
    if not labelled.all():
        train_features, train_labels = train_features[labelled], train_labels[labelled]
    if len(train_labels) < k:
        raise ProbeError(
            f"weighted_knn(k={k}): there are only {len(train_labels)} labelled samples"
        )
    classes, targets = torch.unique(train_labels, return_inverse=True)
    nearness = _cosine if distance == "cosine" else _negative_distance
    best = [_Nearest(k) for _ in range(0, len(test_features), chunk)]
    for start in range(0, len(train_features), bank_chunk):
        bank = train_features[start : start + bank_chunk]
        for nearest, queries in zip(best, torch.split(test_features, chunk), strict=True):
            nearest.update(nearness(queries, bank), start)
    predictions = []
    for nearest in best:
        if distance == "cosine":
            # Relative to the nearest: exp of the difference cannot overflow.
            weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
        else:
            weights = 1 / (EPSILON - nearest.values)
        votes = torch.zeros(len(weights), len(classes), dtype=weights.dtype, device=weights.device)
        votes.scatter_add_(1, targets[nearest.indices], weights)
        predictions.append(classes[votes.argmax(dim=1)])
    return torch.cat(predictions)


def _check(where: str, k: int, temperature: float, distance: str) -> None:
    at_least_one(f"{where}(k=…)", k)
    positive(f"{where}(temperature=…)", temperature)
    one_of(f"{where}(distance=…)", distance, DISTANCES)


class _Nearest:
    """The k largest values of each row so far, in falling order."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.values = torch.empty(0)
        self.indices = torch.empty(0, dtype=torch.long)

    def update(self, values: Tensor, start: int) -> None:
        values, indices = values.topk(min(self.k, values.shape[1]), dim=1)
        indices = indices + start
        if len(self.values):
            values = torch.cat([self.values, values], dim=1)
            indices = torch.cat([self.indices, indices], dim=1)
            values, order = values.topk(min(self.k, values.shape[1]), dim=1)
            indices = indices.gather(1, order)
        self.values, self.indices = values, indices


def _cosine(queries: Tensor, bank: Tensor) -> Tensor:
    return F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T


def _negative_distance(queries: Tensor, bank: Tensor) -> Tensor:
    return -torch.cdist(queries.double(), bank.double())


@dataclass(frozen=True)
class KNNProbe(Probe):
    """The weighted k-nearest-neighbour probe, see :func:`weighted_knn`.

    :param k: number of neighbours.
    :param temperature: T.
    :param distance: ``"cosine"`` or ``"euclidean"``.
    :raises UnknownOptionError: for a value that cannot be.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation import KNNProbe
        >>> x, y = torch.tensor([[1.0, 1.0], [9.0, 7.0]]), torch.tensor([3, 5])
        >>> query = torch.tensor([[8.0, 8.0]])  # the direction of the first, near the second
        >>> KNNProbe(k=1).fit(x, y).predict(query).tolist()
        [3]
        >>> KNNProbe(k=1, distance="euclidean").fit(x, y).predict(query).tolist()
        [5]
    """

    k: int = 20
    temperature: float = 0.07
    distance: str = "cosine"
    name = "kNN"

    def __post_init__(self) -> None:
        """Check the options."""
        _check("KNNProbe", self.k, self.temperature, self.distance)

    def settings(self) -> dict[str, Any]:
        """Return what decides the accuracy."""
        weight = {"T": self.temperature} if self.distance == "cosine" else {}
        return {"probe": "weighted kNN", "k": self.k, **weight, "distance": self.distance}

    def fit(self, features: Tensor, labels: Tensor) -> Fitted:
        """Keep the features: the neighbours are found when there is something to classify."""

        def predict(queries: Tensor) -> Tensor:
            return weighted_knn(
                features,
                labels,
                queries,
                k=self.k,
                temperature=self.temperature,
                distance=self.distance,
            )

        return Fitted(predict, {})


def knn_probe(
    model: nn.Module,
    train: Any,
    test: Any,
    *,
    k: int = 20,
    temperature: float = 0.07,
    distance: str = "cosine",
    **options: Any,
) -> ProbeResult:
    """Classify a test set by the nearest features of a training set.

    :param model: maps images to features ``(N, D)``; used frozen, in eval mode.
    :param train: labelled data set.
    :param test: labelled data set.
    :param k: number of neighbours.
    :param temperature: see :func:`weighted_knn`.
    :param distance: ``"cosine"`` or ``"euclidean"``.
    :param options: ``classes``, ``label_share``, ``cache``, ``batch_size`` …
        of :func:`~avalanche_branchtune.evaluation.probe.run_probe`.
    :return: accuracy, predictions and protocol.
    :raises ProbeError: see :func:`weighted_knn` and ``run_probe``.

    Example::

        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from avalanche_branchtune.evaluation import knn_probe
        >>> train = TensorDataset(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
        >>> test = TensorDataset(torch.tensor([[3.0, 1.0], [3.0, 2.0]]), torch.tensor([0, 1]))
        >>> result = knn_probe(torch.nn.Identity(), train, test, k=1)
        >>> result.accuracy, result.predictions.tolist()
        (0.5, [0, 0])
    """
    _check("knn_probe", k, temperature, distance)
    return run_probe(KNNProbe(k, temperature, distance), model, train, test, **options)
