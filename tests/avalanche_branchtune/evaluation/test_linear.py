"""The linear probe against scikit-learn, on real digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import TensorDataset

from avalanche_branchtune.errors import ProbeError, UnknownOptionError
from avalanche_branchtune.evaluation import linear_probe

X, Y = load_digits(return_X_y=True)
X = (X + np.random.default_rng(0).normal(0, 3, X.shape)).astype("float32") / 16
FIRST, LAST = slice(0, 1200), slice(1200, None)
PIXELS = nn.Flatten()


def digits(part: slice, labels: Any = None) -> TensorDataset:
    y = Y if labels is None else labels
    return TensorDataset(torch.from_numpy(X[part]).reshape(-1, 1, 8, 8), torch.from_numpy(y[part]))


def test_lbfgs_is_scikit_learns_with_the_chosen_strength() -> None:
    result = linear_probe(PIXELS, digits(FIRST), digits(LAST))
    strength = float(result.found["C"].split()[0])
    scaler = StandardScaler().fit(X[FIRST].astype("float64"))
    reference = LogisticRegression(C=strength, max_iter=1000)
    reference.fit(scaler.transform(X[FIRST].astype("float64")), Y[FIRST])
    expected = reference.predict(scaler.transform(X[LAST].astype("float64")))
    assert (result.predictions.numpy() == expected).mean() >= 0.999
    assert result.accuracy == pytest.approx((expected == Y[LAST]).mean(), abs=1e-3)
    assert 0.8 < result.accuracy < 0.99
    assert result.settings["training images"] == 1200
    assert "classes 10, training labels 100% of each class" in result.protocol


def test_sgd_comes_near_and_does_not_touch_the_random_state() -> None:
    state = torch.get_rng_state()
    sgd = linear_probe(PIXELS, digits(FIRST), digits(LAST), protocol="sgd", lr=0.3, epochs=40)
    assert torch.equal(torch.get_rng_state(), state)
    lbfgs = linear_probe(PIXELS, digits(FIRST), digits(LAST))
    assert sgd.accuracy == pytest.approx(lbfgs.accuracy, abs=0.05)
    assert "rate / 10 after 24 and 32" in sgd.protocol
    again = linear_probe(PIXELS, digits(FIRST), digits(LAST), protocol="sgd", lr=0.3, epochs=40)
    assert torch.equal(again.predictions, sgd.predictions)


@pytest.mark.parametrize("protocol", ["lbfgs", "sgd"])
def test_seen_classes_fewer_labels_and_any_integers(protocol: str) -> None:
    labels = Y * 7 + 3
    seen = [3, 10, 17]
    few = linear_probe(
        PIXELS,
        digits(FIRST, labels),
        digits(LAST, labels),
        protocol=protocol,
        classes=seen,
        label_share=0.1,
        lr=0.3,
    )
    assert set(few.predictions.tolist()) == set(seen)
    test_images = int(np.isin(labels[LAST], seen).sum())
    assert few.settings["classes"] == 3 and few.settings["test images"] == test_images
    assert "training labels 10% of each class" in few.protocol
    assert few.accuracy > 0.8


def test_one_percent_of_the_labels() -> None:
    result = linear_probe(PIXELS, digits(FIRST), digits(LAST), label_share=0.01)
    assert result.settings["training images"] == 10
    assert "the middle: a class has fewer than 5" in result.protocol
    assert 0.2 < result.accuracy < 0.8


def test_hidden_labels_are_left_out() -> None:
    partly = Y.copy()
    partly[:600] = -1
    result = linear_probe(PIXELS, digits(FIRST, partly), digits(LAST))
    assert result.settings["training images"] == 600


def test_bad_input() -> None:
    train, test = digits(FIRST), digits(LAST)
    with pytest.raises(UnknownOptionError, match="lbfgs, sgd"):
        linear_probe(PIXELS, train, test, protocol="svm")
    with pytest.raises(UnknownOptionError, match="label_share=…: expected a share"):
        linear_probe(PIXELS, train, test, label_share=0)
    with pytest.raises(ProbeError, match=r"no training sample is labelled \[99\]"):
        linear_probe(PIXELS, train, test, classes=[1, 2, 99])
    with pytest.raises(ProbeError, match="needs 2 classes"):
        linear_probe(PIXELS, train, test, classes=[1])
    with pytest.raises(ProbeError, match="diverged"):
        linear_probe(PIXELS, train, test, protocol="sgd", lr=1e38, epochs=3)
