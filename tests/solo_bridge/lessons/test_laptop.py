"""The streams of the lessons hold what the lessons say of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge.lessons import PHOTOGRAPHS, digit_stream, photograph_stream, scanned_digits, simclr


def test_scans_are_scikit_learns_each_once() -> None:
    parts = scanned_digits(True), scanned_digits(False)
    assert [parts[1].targets.count(label) for label in range(10)] == [50] * 10
    ours = np.concatenate([part.images for part in parts])
    assert (ours[..., :1] == ours).all(), "grey"
    files = load_digits()
    assert sorted((ours[..., 0] / 255 * 16).round().astype(int).reshape(-1, 64).tolist()) == sorted(
        files.images.astype(int).reshape(-1, 64).tolist()
    )


def test_digits_come_in_their_order_and_labels_are_hidden() -> None:
    stream = digit_stream(2, labelled=0.1)
    shown = [[int(t) for t in e.dataset.targets if t != -1] for e in stream.train_stream]
    assert [set(labels) for labels in shown] == [{0, 1, 2, 3, 4}, {5, 6, 7, 8, 9}]
    assert sum(map(len, shown)) == round(0.1 * 1297)
    assert [int(t) for e in digit_stream().test_stream for t in e.dataset.targets].count(-1) == 0


def test_ten_percent_is_no_share() -> None:
    with pytest.raises(UnknownOptionError, match=r"digit_stream\(labelled=…\): expected a share"):
        digit_stream(labelled=10)


def test_a_network_is_its_seeds_and_fits_its_views() -> None:
    images = torch.rand(2, 3, 12, 12)
    nets = [simclr(seed, PHOTOGRAPHS).eval() for seed in (0, 0, 1)]
    features = [net(images) for net in nets]
    assert features[0].shape == (2, 32)
    assert torch.equal(features[0], features[1]) and not torch.equal(features[0], features[2])
    image, label, *_ = photograph_stream().test_stream[4].dataset[0]
    assert image.shape == (3, 12, 12) and label in (8, 9)
