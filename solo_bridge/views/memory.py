"""Decoded images in memory: each is read and decoded once, and minibatches are taken at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from avalanche_branchtune import ranks
from avalanche_branchtune.hardware import free_memory
from avalanche_branchtune.loading import UNREADABLE, draw_from, drawing_from
from solo_bridge.views.decoded import SEEDS, Decoded, canvas

SHARE = 1 / 3
"""Of the memory that is free, how much a data set may take."""

TWICE = 8
"""Samples that are loaded once more, to see whether they are the same each time."""

CHUNK = 256
"""Samples that are loaded before memory is looked at again."""


class InMemory:
    """A data set's samples, decoded: its minibatches are those that a loader would make.

    :param images: uint8 ``(3, H, W)``, one for each sample.
    :param rest: what else samples have, collated: a tensor for each part.
    :param kind: of a minibatch: a class of lists of its parts.
    :param device: where images of one size are kept, if they fit there.
    """

    def __init__(
        self, images: list[Tensor], rest: list[Tensor], kind: type[list[Any]], device: torch.device
    ) -> None:
        """See the class."""
        same = len({image.shape for image in images}) == 1
        self._images: list[Tensor] | Tensor = torch.stack(images) if same else images
        if isinstance(self._images, Tensor) and self._images.nbytes <= SHARE * free_memory(device):
            self._images = self._images.to(device)
        self._rest = rest
        self._kind = kind

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._images)

    def minibatch(self, numbers: Sequence[int], seeds: Sequence[int] | None) -> Any:
        """Return samples as one minibatch.

        :param numbers: of the samples.
        :param seeds: each sample's own, from which a loader would have drawn; None for the global
            random state.
        """
        index = torch.tensor(numbers)
        if isinstance(self._images, Tensor):
            pixels = self._images[index.to(self._images.device, non_blocking=True)]
            sizes = None
        else:
            pixels, sizes = canvas([self._images[number] for number in numbers])
        drawn = torch.randint(SEEDS, index.shape) if seeds is None else _first_drawn(seeds)
        return self._kind([Decoded(pixels, drawn, sizes), *(part[index] for part in self._rest)])


def in_memory(
    dataset: Any, collate: Callable[[Any], Any], device: torch.device, workers: int = 0
) -> InMemory | str:
    """Load a data set into memory.

    Only what is the same each time can be kept: samples that draw random numbers, but for the seed
    of their views, or that are other ones when they are loaded again, stay where they are.

    :param dataset: its samples begin with a :class:`~solo_bridge.views.decoded.Decoded` image.
    :param collate: from samples to a minibatch, of which it collates each part as torch does.
    :param device: that trains.
    :param workers: processes that load it, 0 for this one.
    :return: the samples, or why they are not kept.
    """
    still, numbers = _Still(dataset), range(len(dataset))
    images: list[Tensor] = []
    others: list[list[Any]] = []
    limit, used = SHARE * free_memory() / ranks.on_this_machine(), 0
    ranks.rest(workers)
    for samples in DataLoader(still, CHUNK, num_workers=workers, collate_fn=list):
        for sample in samples:
            if isinstance(sample, str):
                return sample
            images.append(sample[0].pixels)
            others.append(list(sample[1:]))
            used += images[-1].nbytes
        if used * len(numbers) > limit * len(images):
            return f"{len(numbers)} of them take more than a third of the memory that is free"
    again = list(numbers[:: max(1, len(numbers) // TWICE)])
    for number, sample in zip(again, still.__getitems__(again), strict=True):
        if isinstance(sample, str) or not torch.equal(sample[0].pixels, images[number]):
            return "they are other ones each time that they are loaded"
    collated = collate(still.__getitems__(again[:1]))
    rest = default_collate(others) if others[0] else []
    if not all(isinstance(part, Tensor) and len(part) == len(images) for part in rest):
        return "they have parts besides the image that are no numbers"
    return InMemory(images, rest, type(collated), device)


class _Still(Dataset[Any]):
    """Samples that are the same each time, or why one of them is not known to be."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        with drawing_from(0):
            torch.randint(SEEDS, ())
            expected = _next_drawn()
            return [self._sample(number, expected) for number in numbers]

    def _sample(self, number: int, expected: tuple[float, ...]) -> Any:
        draw_from(0)
        try:
            sample = self.dataset[number]
        except UNREADABLE:
            return "one of them cannot be read"  # which is said when its turn comes
        if not isinstance(sample, tuple | list) or not isinstance(sample[0], Decoded):
            return "they are no images of which views are to be made"
        if _next_drawn() != expected:
            return "they draw random numbers when they are loaded"
        return sample


def _next_drawn() -> tuple[float, ...]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def _first_drawn(seeds: Sequence[int]) -> Tensor:
    """Return the seeds of views that a loader would draw from seeds of samples."""
    generator, found = torch.Generator(), []
    for seed in seeds:
        generator.manual_seed(seed)
        found.append(int(torch.randint(SEEDS, (), generator=generator)))
    return torch.tensor(found)
