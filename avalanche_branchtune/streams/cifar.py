"""CIFAR-10 and CIFAR-100 as torchvision stores them."""

from __future__ import annotations

import os
import pickle
from contextlib import AbstractContextManager
from pathlib import Path

from torchvision.datasets import CIFAR10, CIFAR100

from avalanche_branchtune.streams.digits import ArrayImages
from avalanche_branchtune.streams.finding import folder_of, looking_for

__all__ = ["cifar10", "cifar100", "cifar100_superclasses"]


def cifar10(
    root: str | os.PathLike[str] | None, train: bool = True, *, download: bool = False
) -> ArrayImages:
    """Read CIFAR-10 (Krizhevsky, 2009): 10 classes of 32 x 32 pixels in RGB, in memory.

    :param root: the folder that has ``cifar-10-batches-py``, in which torchvision keeps it; None
        for Avalanche's own.
    :param train: the 5,000 images of each class for training, else the 1,000 for testing.
    :param download: whether to download it if it is not there, or damaged.
    :return: the images, their classes in alphabetical order, all of domain 0.
    :raises MissingDirectoryError: if it is neither there nor can be downloaded.

    Example::

        >>> from avalanche_branchtune.streams import cifar10
        >>> cifar10("nowhere")
        Traceback (most recent call last):
        avalanche_branchtune.errors.MissingDirectoryError: nowhere: no CIFAR-10, or a damaged ...
    """
    return _images("CIFAR-10", CIFAR10, folder_of(root, "cifar10"), train, download)


def cifar100(
    root: str | os.PathLike[str] | None, train: bool = True, *, download: bool = False
) -> ArrayImages:
    """Read CIFAR-100 (Krizhevsky, 2009): 100 classes of 32 x 32 pixels in RGB, in memory.

    :param root: the folder that has ``cifar-100-python``, in which torchvision keeps it; None
        for Avalanche's own.
    :param train: the 500 images of each class for training, else the 100 for testing.
    :param download: whether to download it if it is not there, or damaged: 161 MiB.
    :return: the images, their classes in alphabetical order, all of domain 0.
    :raises MissingDirectoryError: if it is neither there nor can be downloaded.

    Example::

        >>> from avalanche_branchtune.streams import cifar100
        >>> cifar100("nowhere")
        Traceback (most recent call last):
        avalanche_branchtune.errors.MissingDirectoryError: nowhere: no CIFAR-100, or a damaged ...
    """
    return _images("CIFAR-100", CIFAR100, folder_of(root, "cifar100"), train, download)


def cifar100_superclasses(
    root: str | os.PathLike[str] | None, *, download: bool = False
) -> dict[str, list[int]]:
    """Read CIFAR-100's own 20 superclasses ("coarse labels"), of 5 classes each.

    :param root: as for :func:`cifar100`.
    :param download: as for :func:`cifar100`.
    :return: the classes of each superclass, by its name.
    :raises MissingDirectoryError: if it is neither there nor can be downloaded.

    Example::

        >>> from avalanche_branchtune.streams import cifar100_superclasses
        >>> cifar100_superclasses("nowhere")
        Traceback (most recent call last):
        avalanche_branchtune.errors.MissingDirectoryError: nowhere: no CIFAR-100, or a damaged ...
    """
    root = folder_of(root, "cifar100")
    with _looking_for("CIFAR-100", CIFAR100, root, download):
        CIFAR100(root, train=False, download=download)  # it checks the files by their sums
        folder = Path(root, CIFAR100.base_folder)
        labels = pickle.loads((folder / "test").read_bytes(), encoding="latin1")
        names = pickle.loads((folder / "meta").read_bytes(), encoding="latin1")
        pairs = sorted(set(zip(labels["coarse_labels"], labels["fine_labels"], strict=True)))
        found: dict[str, list[int]] = {name: [] for name in names["coarse_label_names"]}
        for coarse, fine in pairs:
            found[names["coarse_label_names"][coarse]].append(fine)
    return found


def _looking_for(
    name: str, kind: type[CIFAR10], root: str, download: bool
) -> AbstractContextManager[None]:
    return looking_for(
        name,
        root,
        f"its folder {kind.base_folder}",
        f"Where there is a network, download {kind.url} (MD5 {kind.tgz_md5}) and unpack it in "
        f"{root}",
        download,
    )


def _images(name: str, kind: type[CIFAR10], root: str, train: bool, download: bool) -> ArrayImages:
    with _looking_for(name, kind, root, download):
        data = kind(root, train, download=download)
    return ArrayImages(data.data, data.targets, [0] * len(data))
