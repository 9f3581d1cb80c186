"""From an image to its views: solo-learn's own pipelines, and the one view of probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize, pil_to_tensor, to_pil_image

from avalanche_branchtune.errors import ViewsError
from avalanche_branchtune.streams.folders import eight_bit
from solo_bridge.augmentation import MEAN, STD, Augmentation
from solo_bridge.compat import load

Views: TypeAlias = Callable[[Any], Sequence[Tensor]]
"""From an image to its views, each ``(C, H, W)``."""


def solo_views(augmentations: Sequence[Augmentation]) -> Views:
    """Build solo-learn's own augmentations, for PIL images, tensors or arrays.

    :param augmentations: one entry per pipeline; an image gets
        ``sum(a.num_crops)`` views, in this order.
    :return: a transform for a data set; it can be pickled.
    :raises ViewsError: when called, for an image that cannot be turned into RGB.
    """
    generation = load()
    transform = generation.many_views(
        [generation.pipeline(a) for a in augmentations], [a.num_crops for a in augmentations]
    )
    return _FromAnyImage(transform)


class EvalTransform:
    """One deterministic view for probes: resize, tensor, normalise.

    :param size: side in pixels.
    :param mean: channel means.
    :param std: channel deviations.
    """

    def __init__(self, size: int, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        """See the class."""
        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)

    @classmethod
    def beside(cls, pipelines: Sequence[Augmentation], size: int) -> EvalTransform:
        """Return the view that is normalised as the first of some pipelines has it.

        :param pipelines: of the views that are trained on; none for CIFAR-10's numbers.
        :param size: side in pixels.
        """
        return cls(size, pipelines[0].mean, pipelines[0].std) if pipelines else cls(size)

    def facts(self) -> dict[str, Any]:
        """Return what stands in a record: the size, and other numbers than CIFAR-10's."""
        if (self.mean, self.std) == (MEAN, STD):
            return {"image size": self.size}
        return {"image size": self.size, "image mean": self.mean, "image deviation": self.std}

    def __call__(self, image: Any) -> Tensor:
        """Return ``(3, size, size)``."""
        picture = to_rgb(image)
        if picture.size != (self.size, self.size):
            picture = picture.resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = pil_to_tensor(picture).float().div(255)
        return normalize(pixels, list(self.mean), list(self.std))


class _FromAnyImage:
    def __init__(self, transform: Callable[[Any], list[Tensor]]) -> None:
        self.transform = transform

    def __call__(self, image: Any) -> list[Tensor]:
        return self.transform(to_rgb(image))


def to_rgb(image: Any) -> Image.Image:
    """Turn an image into a PIL image with three channels.

    :param image: PIL image, uint8 array ``(H, W[, C])``, or tensor ``(C, H, W)``
        of uint8 or of floats in [0, 1], C 1 or 3.
    :return: an RGB image.
    :raises ViewsError: for anything else; a tensor outside [0, 1] has been
        normalised already and cannot be augmented any more.
    """
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else eight_bit(image).convert("RGB")
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        return Image.fromarray(image.squeeze()).convert("RGB")
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] in (1, 3):
        if not torch.isfinite(image).all():
            raise ViewsError("an image has values that are not finite (NaN): leave it out")
        if image.is_floating_point() and not (image.amin() >= 0 and image.amax() <= 1):
            if image.amin() >= 0 and image.amax() > 1.5:
                raise ViewsError(
                    f"a float tensor with values up to {image.amax():.0f} cannot be augmented: "
                    "divide by 255, or pass uint8"
                )
            raise ViewsError(
                f"a tensor with values from {image.amin():.2f} to {image.amax():.2f} cannot be "
                "augmented: views are made of PIL images or tensors in [0, 1]; remove Normalize "
                "from the data set's training transform (views are normalised themselves)"
            )
        return to_pil_image(image).convert("RGB")
    shape = getattr(image, "shape", "")
    raise ViewsError(
        f"cannot make views of {type(image).__name__} {tuple(shape) if len(shape) else ''}: "
        "expected a PIL image, a uint8 array (H, W[, C]) or a tensor (C, H, W) with 1 or 3 channels"
    )
