"""A small CIFAR: files as torchvision wants them, which it takes for the real ones."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100, utils

FOLDER = CIFAR100.base_folder


def fake_cifar(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    classes: int = 4,
    train: int = 8,
    test: int = 4,
    kind: type[CIFAR10] = CIFAR100,
) -> np.ndarray:
    """Write ``root/served.tar.gz``, let torchvision download that; return the training pixels.

    :param root: a folder.
    :param monkeypatch: of the test: no other address is left.
    :param classes: how many.
    :param train: images of each class for training.
    :param test: the same for testing.
    :param kind: CIFAR-100, whose superclasses then have two classes each, the even and the odd, or
        CIFAR-10, whose training images are in two files.
    """
    noise, folder = np.random.default_rng(0), root / "made" / kind.base_folder
    folder.mkdir(parents=True)
    hundred = kind is CIFAR100
    files = {"train": ["train"] if hundred else ["data_batch_1", "data_batch_2"]}
    files["test"] = ["test" if hundred else "test_batch"]
    meta, key = ("meta", "fine_label_names") if hundred else ("batches.meta", "label_names")
    pixels = {}
    for part, per_class in (("train", train), ("test", test)):
        labels = [i % classes for i in range(classes * per_class)]
        pixels[part] = noise.integers(0, 256, (len(labels), 3 * 32 * 32), dtype=np.uint8)
        share = len(labels) // len(files[part])
        for i, file in enumerate(files[part]):
            own = labels[i * share : (i + 1) * share]
            content = {"data": pixels[part][i * share : (i + 1) * share]}
            coarse = {"fine_labels": own, "coarse_labels": [label % 2 for label in own]}
            content |= coarse if hundred else {"labels": own}
            (folder / file).write_bytes(pickle.dumps(content))
    names = {key: [f"class {i:02d}" for i in range(classes)]}
    names |= {"coarse_label_names": ["even", "odd"]} if hundred else {}
    (folder / meta).write_bytes(pickle.dumps(names))
    served = root / "served.tar.gz"
    with tarfile.open(served, "w:gz") as archive:
        archive.add(folder, kind.base_folder)

    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()

    def copied(url: str, path: str) -> None:
        shutil.copyfile(url.removeprefix("file://"), path)

    monkeypatch.setattr(utils, "_urlretrieve", copied)  # it wants the answer of a web server
    monkeypatch.setattr(kind, "url", served.as_uri())
    monkeypatch.setattr(kind, "tgz_md5", md5(served))
    for part in ("train", "test"):
        sums = [[file, md5(folder / file)] for file in files[part]]
        monkeypatch.setattr(kind, f"{part}_list", sums)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / meta)})
    return pixels["train"]
