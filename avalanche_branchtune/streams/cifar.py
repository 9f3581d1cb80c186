"""CIFAR-100 as torchvision stores it."""

from __future__ import annotations

import os
from http.client import HTTPException

from torchvision.datasets import CIFAR100

from avalanche_branchtune.errors import MissingDirectoryError
from avalanche_branchtune.streams.digits import ArrayImages

__all__ = ["cifar100"]


def cifar100(
    root: str | os.PathLike[str], train: bool = True, *, download: bool = False
) -> ArrayImages:
    """Read CIFAR-100 (Krizhevsky, 2009): 100 classes of 32 x 32 pixels in RGB, in memory.

    :param root: the folder that has ``cifar-100-python``, in which torchvision keeps it.
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
    try:
        data = CIFAR100(root, train, download=download)
    except (OSError, RuntimeError, HTTPException) as cause:
        tried = f"; it cannot be downloaded ({cause})" if download else ""
        raise MissingDirectoryError(
            f"{os.fspath(root)}: no CIFAR-100, or a damaged one, in its folder "
            f"{CIFAR100.base_folder}{tried}. Where there is a network, download {CIFAR100.url} "
            f"(MD5 {CIFAR100.tgz_md5}) and unpack it in {os.fspath(root)}"
        ) from cause
    return ArrayImages(data.data, data.targets, [0] * len(data))
