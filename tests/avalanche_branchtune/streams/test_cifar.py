"""CIFAR-100: torchvision's files, downloaded once, and what is said where they cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR100

from avalanche_branchtune.errors import MissingDirectoryError
from avalanche_branchtune.streams import cifar100, class_incremental
from tests.fake_cifar import FOLDER, fake_cifar


def test_it_is_downloaded_once_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = fake_cifar(tmp_path, monkeypatch)
    root = tmp_path / "data"
    with pytest.raises(MissingDirectoryError, match=r"no CIFAR-100, .* download file:.* unpack it"):
        cifar100(root)
    train = cifar100(root, download=True)
    (tmp_path / "served.tar.gz").unlink()
    test = cifar100(root, train=False, download=True)
    assert train.targets == [0, 1, 2, 3] * 8 and test.targets == [0, 1, 2, 3] * 4
    image, label = train[5]
    assert label == 1 and np.asarray(image).shape == (32, 32, 3)
    for channel in range(3):  # stored as planes of red, green and blue, row by row
        plane = pixels[5, 1024 * channel : 1024 * (channel + 1)].reshape(32, 32)
        assert np.array_equal(np.asarray(image)[:, :, channel], plane)
    stream = class_incremental(train, test, 2)
    assert [len(e.dataset) for e in stream.train_stream] == [16, 16]


def test_without_a_network_or_damaged_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cifar(tmp_path, monkeypatch)
    root = tmp_path / "data"
    cifar100(root, download=True)
    (root / FOLDER / "test").write_bytes(b"")
    with pytest.raises(MissingDirectoryError, match="or a damaged one"):
        cifar100(root)
    assert len(cifar100(root, download=True)) == 32, "unpacked anew"
    monkeypatch.setattr(CIFAR100, "url", (tmp_path / "nothing").as_uri())
    with pytest.raises(MissingDirectoryError, match=r"it cannot be downloaded \(.*nothing.*\)"):
        cifar100(tmp_path / "other", download=True)
