"""Weighted k-nearest-neighbour probe of a frozen network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.features import ProbeResult, extract_features


def weighted_knn(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Predict labels by a vote of the k nearest training samples.

    Cosine similarity s; a neighbour's vote weighs ``exp(s / T)`` (Wu et al.,
    arXiv 1805.01978, Section 3.4; solo-learn's k 20, T 0.07).  Exact: all
    pairs are compared, ``chunk`` test samples at a time.

    :param train_features: ``(N, D)``.
    :param train_labels: ``(N,)``, any integers; samples labelled −1 are left out.
    :param test_features: ``(M, D)``.
    :param k: number of neighbours.
    :param temperature: T.
    :param chunk: test samples per comparison; memory grows as ``chunk × N``.
    :return: predicted labels ``(M,)``.
    :raises ProbeError: if there are fewer than k labelled training samples, or
        k or T is not positive.
    """
    if k < 1 or temperature <= 0:
        raise ProbeError(f"weighted_knn(k={k}, temperature={temperature}): both must be positive")
    labelled = train_labels != -1
    bank, labels = F.normalize(train_features[labelled], dim=1), train_labels[labelled]
    if len(labels) < k:
        raise ProbeError(f"weighted_knn(k={k}): there are only {len(labels)} labelled samples")
    classes, targets = torch.unique(labels, return_inverse=True)
    predictions = []
    for part in torch.split(F.normalize(test_features, dim=1), chunk):
        similarity, neighbours = (part @ bank.T).topk(k, dim=1)
        # Relative to the nearest: exp of the difference cannot overflow.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = torch.zeros(len(part), len(classes), dtype=weights.dtype, device=weights.device)
        votes.scatter_add_(1, targets[neighbours], weights)
        predictions.append(classes[votes.argmax(dim=1)])
    return torch.cat(predictions)


def knn_probe(
    model: nn.Module,
    train: Any,
    test: Any,
    *,
    k: int = 20,
    temperature: float = 0.07,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    num_workers: int = 0,
) -> ProbeResult:
    """Classify a test set by the nearest features of a training set.

    :param model: maps images to features ``(N, D)``; used frozen, in eval mode.
    :param train: labelled data set (label −1: left out), see
        :func:`~avalanche_branchtune.evaluation.features.extract_features`.
    :param test: labelled data set.
    :param k: number of neighbours.
    :param temperature: see :func:`weighted_knn`.
    :param batch_size: images in a forward pass.
    :param device: where the model runs.
    :param num_workers: workers of the data loader.
    :return: accuracy, predictions and protocol.
    :raises ProbeError: see :func:`weighted_knn` and ``extract_features``.
    """
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "device": device,
        "num_workers": num_workers,
    }
    bank, labels = extract_features(model, train, **settings)
    queries, truth = extract_features(model, test, **settings)
    judged = truth != -1
    if not judged.any():
        raise ProbeError("knn_probe: no test sample has a label")
    predictions = weighted_knn(bank, labels, queries, k=k, temperature=temperature)
    accuracy = (predictions[judged] == truth[judged]).double().mean().item()
    labelled = labels[labels != -1]
    classes = len(torch.unique(labelled))
    protocol = (
        f"weighted kNN (k {k}, T {temperature}, cosine) on features of the frozen backbone in eval "
        f"mode; {len(labelled)} labelled training images of {classes} classes, "
        f"{int(judged.sum())} test images"
    )
    return ProbeResult(accuracy, predictions, protocol)
