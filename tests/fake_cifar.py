"""A small CIFAR-100: files as torchvision wants them, which it takes for the real ones."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR100, utils

FOLDER = "cifar-100-python"


def fake_cifar(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, classes: int = 4, train: int = 8, test: int = 4
) -> np.ndarray:
    """Write ``root/served.tar.gz``, let torchvision download that; return the training pixels.

    :param root: a folder.
    :param monkeypatch: of the test: no other address is left.
    :param classes: how many.
    :param train: images of each class for training.
    :param test: the same for testing.
    """
    noise, folder = np.random.default_rng(0), root / "made" / FOLDER
    folder.mkdir(parents=True)
    pixels = {}
    for part, per_class in (("train", train), ("test", test)):
        labels = [i % classes for i in range(classes * per_class)]
        pixels[part] = noise.integers(0, 256, (len(labels), 3 * 32 * 32), dtype=np.uint8)
        content = {"data": pixels[part], "fine_labels": labels, "coarse_labels": [0] * len(labels)}
        (folder / part).write_bytes(pickle.dumps(content))
    names = {"fine_label_names": [f"class {i:02d}" for i in range(classes)]}
    (folder / "meta").write_bytes(pickle.dumps(names))
    served = root / "served.tar.gz"
    with tarfile.open(served, "w:gz") as archive:
        archive.add(folder, FOLDER)

    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()

    def copied(url: str, path: str) -> None:
        shutil.copyfile(url.removeprefix("file://"), path)

    monkeypatch.setattr(utils, "_urlretrieve", copied)  # it wants the answer of a web server
    monkeypatch.setattr(CIFAR100, "url", served.as_uri())
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5(served))
    for part in ("train", "test"):
        monkeypatch.setattr(CIFAR100, f"{part}_list", [[part, md5(folder / part)]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(folder / "meta")})
    return pixels["train"]
