"""The k-nearest-neighbour probe against scikit-learn, and what its record says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from avalanche_branchtune.errors import ProbeError, UnknownOptionError
from avalanche_branchtune.evaluation import knn_probe, weighted_knn


@pytest.mark.parametrize("chunk", [7, 10_000])
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (50, 0.5)])
def test_weighted_knn_against_scikit_learn(k: int, temperature: float, chunk: int) -> None:
    x, y = load_digits(return_X_y=True)
    x = x + np.random.default_rng(0).normal(0, 4, x.shape)  # hard enough for mistakes
    classifier = KNeighborsClassifier(
        k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature), algorithm="brute"
    )
    expected = classifier.fit(x[:1200], y[:1200]).predict(x[1200:])
    labels = torch.from_numpy(y) * 3 + 5  # any integers
    got = weighted_knn(
        torch.from_numpy(x[:1200]),
        labels[:1200],
        torch.from_numpy(x[1200:]),
        k=k,
        temperature=temperature,
        chunk=chunk,
    )
    assert ((got - 5) // 3 == torch.from_numpy(expected)).double().mean() >= 0.999
    assert 0.5 < (got == labels[1200:]).double().mean() < 0.99


def test_euclidean_knn_against_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 5, 900)
    x = (generator.normal(0, 1, (900, 6)) + y[:, None] * 0.6 + 100).astype("float32")
    classifier = KNeighborsClassifier(7, weights=lambda d: 1 / (d + 1e-5), algorithm="brute")
    expected = classifier.fit(x[:600], y[:600]).predict(x[600:])
    for chunks in ({}, {"chunk": 13, "bank_chunk": 5}, {"bank_chunk": 599}):
        got = weighted_knn(
            torch.from_numpy(x[:600]),
            torch.from_numpy(y[:600]),
            torch.from_numpy(x[600:]),
            k=7,
            distance="euclidean",
            **chunks,
        )
        assert (got.numpy() == expected).mean() >= 0.999, chunks
    assert 0.4 < (expected == y[600:]).mean() < 0.95
    with pytest.raises(UnknownOptionError, match="cosine, euclidean"):
        weighted_knn(torch.ones(3, 2), torch.zeros(3), torch.ones(1, 2), k=1, distance="city")


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).mean((2, 3))


def pictures(samples: int = 60, hidden: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(samples) % 3
    x = torch.randn(samples, 3, 4, 4, generator=generator) * 0.1
    x[torch.arange(samples), y] += 1
    y = y.clone()
    y[:hidden] = -1
    return TensorDataset(x, y)


def test_probe_is_frozen_and_says_its_protocol() -> None:
    model = Mean()
    model.norm.eval()
    model.train(False)
    model.train()
    before = model.norm.running_mean.clone()
    state = torch.get_rng_state()
    result = knn_probe(model, pictures(), pictures(30), k=5)
    assert torch.equal(torch.get_rng_state(), state), "training must not depend on probing"
    assert result.accuracy == 1.0
    assert torch.equal(model.norm.running_mean, before)
    assert model.training
    assert "k 5, T 0.07, distance cosine" in result.protocol
    assert (
        "classes 3, training labels 100% of each class, training images 60, test images 30"
        in result.protocol
    )


def test_samples_without_a_label_are_left_out() -> None:
    result = knn_probe(Mean(), pictures(hidden=12), pictures(30, hidden=10), k=5)
    assert result.accuracy == 1.0
    assert "training images 48" in result.protocol
    assert "test images 20" in result.protocol


class Damaged(Mean):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float("nan")


@pytest.mark.parametrize(
    ("model", "train", "k", "message"),
    [
        (Mean(), pictures(10), 20, "k=20.: there are only 10 labelled samples"),
        (Mean(), pictures(60, hidden=60), 5, "no training sample is labelled .0, 1, 2"),
        (Mean(), pictures(0), 5, "data set is empty"),
        (Damaged(), pictures(60), 5, "not finite"),
        (nn.Conv2d(3, 3, 1), pictures(60), 5, r"expected features \(N, D\)"),
    ],
)
def test_bad_input(model: nn.Module, train: Any, k: int, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        knn_probe(model, train, pictures(), k=k)
