"""Linear probe of a frozen network, in two protocols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from avalanche_branchtune.errors import ProbeError, expected_one_of
from avalanche_branchtune.evaluation.features import ProbeResult, extract_features

PROTOCOLS = ("lbfgs", "sgd")
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse regularisations from which the L-BFGS protocol chooses."""

Classifier: TypeAlias = Callable[[Tensor], Tensor]


def linear_probe(
    model: nn.Module,
    train: Any,
    test: Any,
    *,
    protocol: str = "lbfgs",
    classes: Sequence[int] | None = None,
    label_share: float = 1.0,
    lr: float = 1.0,
    epochs: int = 100,
    seed: int = 0,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    num_workers: int = 0,
) -> ProbeResult:
    """Train a linear classifier on frozen features, offline.

    Features are computed once, without augmentation.  ``"lbfgs"``: standardised
    features, multinomial logistic regression by scikit-learn, its
    regularisation chosen on a fifth of the training data and then fitted on
    all of it.  ``"sgd"``: solo-learn's recipe (SGD with momentum 0.9, no weight
    decay, rate divided by 10 after 60 % and 80 % of the epochs) on the features.

    :param model: maps images to features ``(N, D)``; used frozen, in eval mode.
    :param train: labelled data set (label −1: left out), see
        :func:`~avalanche_branchtune.evaluation.features.extract_features`.
    :param test: labelled data set, of the stream's or of another one (transfer).
    :param protocol: ``"lbfgs"`` or ``"sgd"``.
    :param classes: labels that take part, in training and test; all by default.
    :param label_share: share of each class's training labels that are used.
    :param lr: rate of ``"sgd"``; solo-learn has 1.0 for SimCLR, 0.3 for BYOL.
    :param epochs: epochs of ``"sgd"``.
    :param seed: of the samples that are chosen, the held-out part and SGD.
    :param batch_size: images in a forward pass, samples in a minibatch of SGD.
    :param device: where the model runs.
    :param num_workers: workers of the data loader.
    :return: accuracy, predictions and protocol.
    :raises ProbeError: for fewer than two classes, a class of which no training
        sample has a label, or no test sample.
    :raises UnknownOptionError: for an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise expected_one_of("linear_probe(protocol=…)", protocol, list(PROTOCOLS))
    if not 0 < label_share <= 1:
        raise ProbeError(f"linear_probe(label_share={label_share}): expected a share in (0, 1]")
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "device": device,
        "num_workers": num_workers,
    }
    x, y = _chosen(*extract_features(model, train, **settings), classes)
    queries, truth = _chosen(*extract_features(model, test, **settings), classes)
    kept = _share(y, label_share, seed)
    x, y = x[kept], y[kept]
    _check(y, truth, classes)
    if protocol == "lbfgs":
        predict, how = _lbfgs(x, y, seed)
    else:
        predict, how = _sgd(x, y, lr, epochs, batch_size, seed)
    predictions = predict(queries)
    return ProbeResult(
        (predictions == truth).double().mean().item(),
        predictions,
        f"linear probe, offline, {how}; features of the frozen backbone in eval mode, without "
        f"augmentation; {len(y)} labelled training images ({label_share:.0%} of each class) of "
        f"{len(torch.unique(y))} classes, {len(truth)} test images",
    )


def _chosen(x: Tensor, y: Tensor, classes: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    taken = y != -1 if classes is None else torch.isin(y, torch.tensor(list(classes)))
    return x[taken], y[taken]


def _share(y: Tensor, share: float, seed: int) -> Tensor:
    """Return the indices of a share of each class, at least one sample of each."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for label in torch.unique(y):
        members = (y == label).nonzero().flatten()
        count = max(1, round(share * len(members)))
        parts.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(parts).sort().values if parts else torch.zeros(0, dtype=torch.long)


def _check(y: Tensor, truth: Tensor, classes: Sequence[int] | None) -> None:
    present = set(y.tolist())
    missing = (set(truth.tolist()) | set(classes or ())) - present
    if missing:
        raise ProbeError(f"linear_probe: no training sample is labelled {sorted(missing)[:5]}")
    if len(present) < 2 or len(truth) == 0:
        raise ProbeError(
            f"linear_probe: needs two classes and a test sample, there are {len(present)} classes "
            f"and {len(truth)} test samples"
        )


def _lbfgs(x: Tensor, y: Tensor, seed: int) -> tuple[Classifier, str]:
    scaler = StandardScaler().fit(x.double().numpy())
    features, labels = scaler.transform(x.double().numpy()), y.numpy()
    strength = STRENGTHS[len(STRENGTHS) // 2]
    counts = np.unique(labels, return_counts=True)[1]
    chosen = "not chosen: a class has fewer than 5 samples"
    if counts.min() >= 5:
        a, b, ya, yb = train_test_split(
            features, labels, test_size=0.2, random_state=seed, stratify=labels
        )
        scores = [_fit(a, ya, c).score(b, yb) for c in STRENGTHS]
        strength = STRENGTHS[int(np.argmax(scores))]
        chosen = f"chosen of {list(STRENGTHS)} on a held-out fifth"
    classifier = _fit(features, labels, strength)

    def predict(queries: Tensor) -> Tensor:
        found = classifier.predict(scaler.transform(queries.double().numpy()))
        return torch.from_numpy(np.asarray(found))

    return predict, f"L-BFGS logistic regression (C {strength:g}, {chosen})"


def _fit(x: np.ndarray, y: np.ndarray, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=1000).fit(x, y)


def _sgd(
    x: Tensor, y: Tensor, lr: float, epochs: int, batch_size: int, seed: int
) -> tuple[Classifier, str]:
    classes, targets = torch.unique(y, return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(len(classes), x.shape[1], requires_grad=True)
    bias = torch.zeros(len(classes), requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=lr, momentum=0.9)
    steps = [int(epochs * 0.6), int(epochs * 0.8)]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, steps, 0.1)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for part in torch.split(order, batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(F.linear(x[part], weight, bias), targets[part])
            torch.autograd.backward(loss)
            optimizer.step()
        scheduler.step()
    if not torch.isfinite(weight).all():
        raise ProbeError(f'linear_probe(protocol="sgd", lr={lr}): diverged; use a smaller lr')

    def predict(queries: Tensor) -> Tensor:
        return classes[F.linear(queries, weight, bias).argmax(dim=1)]

    how = f"SGD (lr {lr:g}, momentum 0.9, no weight decay, {epochs} epochs, batch {batch_size}, "
    return predict, how + f"rate / 10 after {steps[0]} and {steps[1]})"
