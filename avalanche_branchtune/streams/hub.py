"""Image data sets of the Hugging Face hub, or of a folder that its library has written."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from avalanche_branchtune.errors import (
    MissingDirectoryError,
    UnknownOptionError,
    UnreadableImageError,
    expected_one_of,
)
from avalanche_branchtune.streams.folders import eight_bit

__all__ = ["HubImages", "hub_images"]


class HubImages(Dataset[tuple[Image.Image, int]]):
    """Images of a table (``datasets.Dataset``), decoded when they are read, as RGB.

    :param table: with a column of images, and one of class numbers.
    :param image: name of the first; by default the only column of images.
    :param label: name of the second; by default the only one of classes (``ClassLabel``).
    :raises UnknownOptionError: for a name that is no such column, or if there is not one alone.

    Example::

        >>> from avalanche_branchtune.streams import HubImages
        >>> HubImages(["no table"])
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: HubImages(table=…): expected a table of ...
    """

    def __init__(self, table: Any, image: str | None = None, label: str | None = None) -> None:
        """Look for the columns, and read the labels."""
        features = getattr(table, "features", None)
        if features is None:
            raise UnknownOptionError(
                "HubImages(table=…): expected a table of the package datasets, one part of it; "
                f"got {type(table).__name__}"
            )
        self.image = _column(features, "image", image, "Image")
        self.label = _column(features, "label", label, "ClassLabel")
        self.table = table
        self.targets = [int(value) for value in table[self.label]]
        self.classes = list(getattr(features[self.label], "names", None) or [])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Decode the image at ``index``."""
        place = range(len(self))[index]
        try:
            image = eight_bit(self.table[place][self.image]).convert("RGB")
        except Exception as cause:  # damaged files fail in a great many ways
            raise UnreadableImageError(
                f"image {place} of {self.table.builder_name or 'the table'} cannot be decoded "
                f"({cause})"
            ) from cause
        return image, self.targets[place]


def hub_images(
    data: str | os.PathLike[str],
    split: str,
    *,
    config: str | None = None,
    image: str | None = None,
    label: str | None = None,
) -> HubImages:
    """Read a data set by Hugging Face's package ``datasets``.

    :param data: its name on the hub, such as ``"uoft-cs/cifar10"``, which is downloaded once; or a
        folder that ``save_to_disk`` has written.
    :param split: the part, such as ``"train"``.
    :param config: which of the data set's configurations.
    :param image: name of the column of images, see :class:`HubImages`.
    :param label: name of the column of classes, see :class:`HubImages`.
    :return: the images.
    :raises UnknownOptionError: without the package, and for an unknown part.
    :raises MissingDirectoryError: if it is neither there nor can be downloaded.

    Example::

        >>> from avalanche_branchtune.streams import hub_images
        >>> data = hub_images("uoft-cs/cifar10", "train")  # doctest: +SKIP
        >>> data[0][0].size, data.classes[:2]  # doctest: +SKIP
        ((32, 32), ['airplane', 'automobile'])
    """
    try:
        datasets = import_module("datasets")
    except ImportError as cause:
        raise UnknownOptionError(
            f"hub_images({os.fspath(data)!r}): it is read by Hugging Face's package datasets, "
            f"which is not there ({cause}): pip install datasets"
        ) from cause
    name = os.fspath(data)
    try:
        parts = (
            datasets.load_from_disk(name)
            if Path(name).is_dir() and not config
            else datasets.load_dataset(name, config)
        )
    except Exception as cause:  # its own, those of the network, of archives and of tables
        raise MissingDirectoryError(
            f"{name}: neither a folder that datasets.save_to_disk has written nor a data set that "
            f"can be downloaded ({type(cause).__name__}: {cause})"
        ) from cause
    if not isinstance(parts, dict):  # a single part was saved
        parts = {str(parts.split): parts}
    if split not in parts:
        raise expected_one_of("hub_images(split=…)", split, sorted(map(str, parts)))
    return HubImages(parts[split], image, label)


def _column(features: Any, what: str, name: str | None, kind: str) -> str:
    argument = f"HubImages({what}=…)"
    if name is not None:
        if name not in features:
            raise expected_one_of(argument, name, sorted(features))
        return name
    found = [n for n, feature in features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        raise UnknownOptionError(
            f"{argument}: expected the name of the column of {what}s, one of "
            f"{', '.join(sorted(features))}: {len(found)} of them are of the type {kind}"
        )
    return found[0]
