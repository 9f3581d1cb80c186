"""Views of a whole minibatch at once, in plain tensor code, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from avalanche_branchtune.errors import ViewsError
from solo_bridge.augmentation import Augmentation
from solo_bridge.views.drawing import Drawn, drawn
from solo_bridge.views.operations import (
    equalized,
    grayscaled,
    jittered,
    normalized,
    solarized,
)
from solo_bridge.views.resampling import blurred, resized_crops


class BatchedViews:
    """solo-learn's augmentations of a minibatch of images of 8 bits.

    A view is a function of its image, its seed and its number, whatever else is in
    the minibatch and on whatever device; no random generator is used or changed.
    Nothing of it waits for the device, and all shapes follow from those of the
    arguments: it can be compiled and be part of a CUDA graph.

    :param augmentations: one entry per pipeline; an image gets
        ``sum(a.num_crops)`` views, in this order.
    """

    def __init__(self, augmentations: Sequence[Augmentation]) -> None:
        """See the class."""
        self.augmentations = tuple(augmentations)

    @torch.no_grad()
    def __call__(self, pixels: Tensor, seeds: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
        """Make the views.

        :param pixels: uint8 ``(N, 3, H, W)``.
        :param seeds: int64 ``(N,)``, one for each image.
        :param sizes: int64 ``(N, 2)``, height and width of the images, which lie in
            the top left corner; None if all fill the whole.
        :return: normalised views ``(N, 3, S, S)``, float32.
        :raises ViewsError: for tensors of another type or shape.
        """
        _check(pixels, seeds, sizes)
        if sizes is None:
            heights, widths = (torch.full_like(seeds, side) for side in pixels.shape[2:])
        else:
            heights, widths = sizes.unbind(dim=1)
        views: list[Tensor] = []
        with torch.autocast(pixels.device.type, enabled=False):
            levels = pixels.float()
            for augmentation in self.augmentations:
                for _ in range(augmentation.num_crops):
                    d = drawn(augmentation, seeds, heights, widths, len(views))
                    views.append(view(augmentation, levels, d))
        return views


def view(augmentation: Augmentation, levels: Tensor, d: Drawn) -> Tensor:
    """Make one view of each image with given parameters.

    :param augmentation: the pipeline.
    :param levels: grey levels ``(N, 3, H, W)``, float32.
    :param d: what was drawn.
    :return: normalised, ``(N, 3, S, S)``.
    """
    a = augmentation
    x = resized_crops(levels, d.top, d.left, d.height, d.width, a.crop_size, d.flip)
    if a.jitter_prob and (a.brightness or a.contrast or a.saturation or a.hue):
        factors = (d.brightness, d.contrast, d.saturation)
        x = jittered(x, factors, d.hue if a.hue else None, d.order, d.jitter)
    if a.grayscale_prob:
        x = grayscaled(x, d.grayscale)
    if a.blur_prob:
        x = blurred(x, d.sigma, d.blur)
    if a.solarization_prob:
        x = solarized(x, d.solarization)
    if a.equalization_prob:
        x = equalized(x, d.equalization)
    return normalized(x, a.mean, a.std)


def _check(pixels: Tensor, seeds: Tensor, sizes: Tensor | None) -> None:
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ViewsError(
            f"views by the minibatch are made of uint8 (N, 3, H, W), got {pixels.dtype} "
            f"{tuple(pixels.shape)}: pass the images' pixels as they are, before normalisation"
        )
    for name, given, shape in (
        ("seeds", seeds, (len(pixels),)),
        ("sizes", sizes, (len(pixels), 2)),
    ):
        if given is not None and (given.dtype != torch.int64 or given.shape != shape):
            raise ViewsError(
                f"{name} of {len(pixels)} images must be int64 {shape}, "
                f"got {given.dtype} {tuple(given.shape)}"
            )
