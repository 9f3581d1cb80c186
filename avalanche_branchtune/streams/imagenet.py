"""ImageNet, ImageNet-100 and Tiny ImageNet from their folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from avalanche.benchmarks.datasets import TinyImagenet
from torchvision.datasets import ImageNet

from avalanche_branchtune.errors import MissingDirectoryError
from avalanche_branchtune.streams.finding import folder_of, looking_for
from avalanche_branchtune.streams.folders import ImageFiles, image_folder

__all__ = ["class_list", "imagenet", "tiny_imagenet"]


def imagenet(
    root: str | os.PathLike[str],
    train: bool = True,
    *,
    classes: str | os.PathLike[str] | Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> ImageFiles:
    """Find the images of ImageNet (ILSVRC 2012), or of some of its classes.

    Expected are ``root/train/<WordNet ID>/*.JPEG`` and ``root/val/<WordNet ID>/*.JPEG``. Where one
    of these two is missing and its archive is there, torchvision unpacks it: that needs
    ``ILSVRC2012_devkit_t12.tar.gz`` and ``ILSVRC2012_img_train.tar`` or ``ILSVRC2012_img_val.tar``.

    :param root: the folder of both parts; it cannot be downloaded without an account.
    :param train: the training images, else the validation images, by which it is tested.
    :param classes: the WordNet IDs of the classes that count, in any order, or a file with them,
        see :func:`class_list`: ImageNet-100 is such a list.
    :param cache: folder of decoded images, see :class:`ImageFiles`.
    :return: the images, their classes in the order of their WordNet IDs.
    :raises MissingDirectoryError: when there is neither folder nor archive, or a class is missing.

    Example::

        >>> from avalanche_branchtune.streams import imagenet
        >>> imagenet("nowhere")
        Traceback (most recent call last):
        avalanche_branchtune.errors.MissingDirectoryError: nowhere: no ImageNet, or a damaged ...
    """
    root, part = os.fspath(root), "train" if train else "val"
    names = classes
    if isinstance(classes, (str, os.PathLike)):
        names = class_list(classes)
    folder = Path(root, part)
    if not folder.is_dir():
        place = f"{part}/<WordNet ID>/*.JPEG, nor its archives"
        advice = (
            "Download ILSVRC2012_devkit_t12.tar.gz and the archives of its images from "
            f"https://image-net.org, and put them in {root}"
        )
        with looking_for("ImageNet", root, place, advice, download=False):
            ImageNet(root, part)
    return image_folder(folder, classes=names, cache=cache)  # type: ignore[arg-type]


def class_list(file: str | os.PathLike[str]) -> list[str]:
    """Read the classes of a file: the first word of each line, until a ``#``.

    :param file: for example the list of ImageNet-100 of Tian et al. ("Contrastive Multiview
        Coding", arXiv 1906.05849), which has one WordNet ID in a line.
    :return: the names, as they come.
    :raises MissingDirectoryError: when there is no such file, or no class in it.

    Example::

        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from avalanche_branchtune.streams import class_list
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "classes.txt")
        ...     _ = file.write_text("# two of a thousand\\nn01558993 robin\\n\\nn01601694\\n")
        ...     class_list(file)
        ['n01558993', 'n01601694']
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as cause:
        raise MissingDirectoryError(
            f"{os.fspath(file)}: expected a file with a class in each line; {cause}"
        ) from cause
    words = [line.partition("#")[0].split() for line in lines]
    found = [word[0] for word in words if word]
    if not found:
        raise MissingDirectoryError(f"{os.fspath(file)}: expected a class in each line; found none")
    return found


def tiny_imagenet(
    root: str | os.PathLike[str] | None,
    train: bool = True,
    *,
    download: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> ImageFiles:
    """Find the images of Tiny ImageNet: 200 classes of 64 x 64 pixels.

    :param root: the folder that has ``tiny-imagenet-200``, unpacked; None for Avalanche's own.
    :param train: the 500 images of each class for training, else the 50 for validation, by which it
        is tested: those for testing have no labels.
    :param download: whether to download it if it is not there: 237 MiB.
    :param cache: folder of decoded images, see :class:`ImageFiles`.
    :return: the images, their classes numbered as in ``wnids.txt``, which is what Avalanche does.
    :raises MissingDirectoryError: if it is neither there nor can be downloaded.

    Example::

        >>> from avalanche_branchtune.streams import tiny_imagenet
        >>> tiny_imagenet("nowhere")
        Traceback (most recent call last):
        avalanche_branchtune.errors.MissingDirectoryError: nowhere: no Tiny ImageNet, or a ...
    """
    root = folder_of(root, "tinyimagenet")
    url = TinyImagenet.filename[1]
    advice = f"Where there is a network, download {url} and unpack it in {root}"
    with looking_for("Tiny ImageNet", root, "its folder tiny-imagenet-200", advice, download):
        found = TinyImagenet(Path(root), train=train, download=download)
        classes = [found.id2label[number] for number in range(len(found.id2label))]
    pairs = sorted(zip(found.targets, map(str, found.data), strict=True))  # in the disk's order
    return ImageFiles([f for _, f in pairs], [n for n, _ in pairs], classes, cache=cache)
