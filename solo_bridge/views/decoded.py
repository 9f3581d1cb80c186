"""Images as they were decoded: what data yields whose views are made by the minibatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map
from torchvision.transforms.functional import pil_to_tensor

from solo_bridge.views.pipelines import to_rgb

SEEDS = 1 << 62
"""A seed is one of so many."""


@dataclass(frozen=True)
class Decoded:
    """An image, or a minibatch of images, of which views are still to be made.

    torch's ``default_collate`` makes a minibatch of images; smaller ones lie in the top left
    corner of its canvas then.

    :param pixels: uint8, ``(3, H, W)`` or ``(N, 3, H, W)``.
    :param seeds: int64, ``()`` or ``(N,)``: all that is drawn for an image's views follows from
        its seed.
    :param sizes: int64 ``(N, 2)``, height and width of each image; None if all fill the canvas.
    """

    pixels: Tensor
    seeds: Tensor
    sizes: Tensor | None = None

    def to(self, device: torch.device) -> Decoded:
        """Return it on another device.

        :param device: where to.
        """
        return self._each(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> Decoded:
        """Return it in pinned memory, as torch's loader asks for it."""
        return self._each(Tensor.pin_memory)

    def _each(self, moved: Callable[[Tensor], Tensor]) -> Decoded:
        sizes = None if self.sizes is None else moved(self.sizes)
        return Decoded(moved(self.pixels), moved(self.seeds), sizes)


class Decode:
    """From an image to its pixels and a seed, which is drawn from torch's global random state."""

    def __call__(self, image: Any) -> Decoded:
        """Return the image, decoded.

        :param image: see :func:`~solo_bridge.views.to_rgb`, whose errors these are.
        """
        return Decoded(pil_to_tensor(to_rgb(image)), torch.randint(SEEDS, ()))


def canvas(images: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Put images on one canvas each, all of one size.

    :param images: uint8 ``(3, H, W)``, each of its own size.
    :return: ``(N, 3, H, W)``, and the sizes ``(N, 2)``; None if all are the same.
    """
    if len({image.shape for image in images}) == 1:
        return torch.stack(list(images)), None
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = (int(side) for side in sizes.amax(0))
    pixels = images[0].new_zeros(len(images), 3, height, width)
    for place, image in zip(pixels, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return pixels, sizes


def _collated(images: Sequence[Decoded], *, collate_fn_map: Any = None) -> Decoded:
    pixels, sizes = canvas([image.pixels for image in images])
    return Decoded(pixels, torch.stack([image.seeds for image in images]), sizes)


default_collate_fn_map[Decoded] = _collated
