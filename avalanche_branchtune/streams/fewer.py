"""Smaller data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch.utils.data import Subset

from avalanche_branchtune.errors import LabelError, UnknownOptionError
from avalanche_branchtune.options import at_least_one
from avalanche_branchtune.streams.digits import ArrayImages
from avalanche_branchtune.streams.labels import NO_LABEL, MapDataset, find_labels

__all__ = ["few"]


def few(dataset: MapDataset, per_class: int | Mapping[int, int], *, seed: int = 0) -> MapDataset:
    """Take some samples of each class at random, equally many or not, in the order of the data set.

    No image is read where the labels are known without (:func:`find_labels`). With the same seed,
    those of ``per_class=10`` are among those of ``per_class=20``.

    :param dataset: the data set; labels that :func:`hide_labels` hid count, and stay hidden.
    :param per_class: the number of samples of each class; or class → number, and all samples of
        classes without one.
    :param seed: decides which samples.
    :return: an :class:`ArrayImages` or AvalancheDataset of such a one, else a torch ``Subset``.
    :raises UnknownOptionError: when ``per_class`` is below 1, names a class that is none, or a
        class has fewer samples.
    :raises LabelError: when a label is no integer, or a sample has none.

    Example::

        >>> from avalanche_branchtune.streams import few
        >>> from avalanche_branchtune.streams.labels import find_labels
        >>> data = [(f"image {i}", i % 3) for i in range(12)]
        >>> sorted(find_labels(few(data, per_class=2)).true)
        [0, 0, 1, 1, 2, 2]
        >>> sorted(find_labels(few(data, {0: 2, 1: 1})).true)
        [0, 0, 1, 2, 2, 2, 2]
    """
    for number in per_class.values() if isinstance(per_class, Mapping) else [per_class]:
        at_least_one("few(per_class=…)", number)
    labels = find_labels(dataset).true
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()
    places: dict[int, list[int]] = {}
    for i in order:
        places.setdefault(labels[i], []).append(i)
    if NO_LABEL in places:
        raise LabelError(
            f"few(dataset=…): {len(places[NO_LABEL])} of {len(labels)} samples have no class "
            "(label -1); torch.utils.data.Subset takes samples without regard to class"
        )
    numbers = per_class if isinstance(per_class, Mapping) else dict.fromkeys(places, per_class)
    for count, label in sorted((len(places.get(label, ())), label) for label in numbers):
        if count < numbers[label]:
            raise UnknownOptionError(
                f"few(per_class=…): expected at most {count}, which is all of class {label}; "
                f"got {numbers[label]}"
            )
    kept = sorted(i for label, found in places.items() for i in found[: numbers.get(label)])
    whole: Any = dataset
    if isinstance(dataset, (ArrayImages, AvalancheDataset)):
        return whole.subset(kept)
    return Subset(whole, kept)
