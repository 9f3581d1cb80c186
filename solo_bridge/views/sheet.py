"""A picture of images and their views: those of Pillow beside those made by the minibatch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from avalanche_branchtune.loading import drawing_from
from solo_bridge.augmentation import Augmentation
from solo_bridge.views.batched import BatchedViews
from solo_bridge.views.decoded import canvas
from solo_bridge.views.pipelines import solo_views, to_rgb

CELL, GAP, HEADER = 96, 4, 18
"""Pixels of a picture's side, between pictures, and of the line of labels."""
COLUMNS = 4
"""Views of one kind that are shown of an image, at least."""


def contact_sheet(
    images: Sequence[Image.Image], augmentations: Sequence[Augmentation], seed: int = 0
) -> Image.Image:
    """Draw a row for each image: itself, views by Pillow, views by the minibatch.

    The two kinds are drawn from the same distributions, not from the same random
    numbers.

    :param images: the images.
    :param augmentations: the pipelines, see :func:`~solo_bridge.views.solo_views`.
    :param seed: which views are drawn.
    :return: an RGB picture.
    """
    pipelines = [a for a in augmentations for _ in range(a.num_crops)]
    draws = -(-COLUMNS // len(pipelines))
    by_pillow, batched = solo_views(augmentations), BatchedViews(augmentations)
    pixels, sizes = canvas([pil_to_tensor(to_rgb(image)) for image in images])
    seeds = torch.arange(len(images)) + seed * len(images)
    together = [view for k in range(draws) for view in batched(pixels, seeds + (k << 32), sizes)]
    side = CELL + GAP
    count = draws * len(pipelines)
    sheet = Image.new("RGB", (side * (1 + 2 * count) + GAP, HEADER + side * len(images)), "white")
    labels = ["image", *(f"Pillow {k + 1}" for k in range(count))]
    labels += [f"batched {k + 1}" for k in range(count)]
    for column, label in enumerate(labels):
        ImageDraw.Draw(sheet).text((GAP + column * side, GAP), label, fill="black")
    for row, image in enumerate(images):
        with drawing_from(int(seeds[row])):
            alone = [view for _ in range(draws) for view in by_pillow(image)]
        views = alone + [view[row] for view in together]
        shown = [to_rgb(image)]
        shown += [_seen(v, a) for v, a in zip(views, pipelines * 2 * draws, strict=True)]
        for column, picture in enumerate(shown):
            sheet.paste(_fitted(picture), (GAP + column * side, HEADER + row * side))
    return sheet


def _seen(view: Tensor, augmentation: Augmentation) -> Image.Image:
    """Undo the normalisation."""
    std, mean = (torch.tensor(v).view(3, 1, 1) for v in (augmentation.std, augmentation.mean))
    return to_pil_image(((view * std + mean) * 255).round().clamp(0, 255).to(torch.uint8))


def _fitted(picture: Image.Image) -> Image.Image:
    """Enlarge or reduce a picture until its longer side is a cell's; pixels stay visible."""
    factor = CELL / max(picture.size)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    filtered = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    return picture.resize((width, height), filtered)
