"""Mixing images pixel by pixel, and by how much."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from avalanche_branchtune.errors import ViewsError


def share(alpha: float) -> float:
    """Draw ν ~ Beta(α, α) from torch's generator.

    :param alpha: α; the smaller, the closer ν is to 0 or 1.
    """
    return float(torch.distributions.Beta(alpha, alpha).sample())


def mixed(image: Any, other: Any, share: float) -> Any:
    """Return ``share · image + (1 − share) · other``, pixel by pixel.

    The result is of the kind and size of ``image``: ``other`` is resized to it
    (bilinear, with antialiasing).  Grey images become RGB where the other one
    is; PIL modes other than L and RGB are converted to RGB.  Where pixels are
    8-bit they are rounded to the nearest.

    :param image: PIL image, uint8 array ``(H, W[, C])``, or tensor ``(C, H, W)``
        of uint8 or floats.
    :param other: any of these.
    :param share: 0 to 1.
    :return: as ``image``.
    :raises ViewsError: for other kinds, or numbers of channels that do not fit.
    """
    a, b = pixels(image), pixels(other)
    if a.shape[0] != b.shape[0]:
        if 1 not in (a.shape[0], b.shape[0]):
            raise ViewsError(
                f"cannot mix an image of {a.shape[0]} channels with one of {b.shape[0]}: let the "
                "data set return images with the same channels in all experiences"
            )
        channels = max(a.shape[0], b.shape[0])
        a, b = a.expand(channels, -1, -1), b.expand(channels, -1, -1)
    if a.shape[1:] != b.shape[1:]:
        size = (int(a.shape[1]), int(a.shape[2]))
        resized = F.interpolate(b[None], size, mode="bilinear", antialias=True)[0]
        # Its weights do not always add up to 1, and views refuse what exceeds 1 by a hair.
        b = resized.clamp(b.amin(), b.amax())
    return _like(share * a + (1 - share) * b, image)


def pixels(image: Any) -> Tensor:
    """Return an image's pixels as floats ``(C, H, W)``, 8-bit ones in [0, 1].

    :param image: see :func:`mixed`.
    :raises ViewsError: for anything else.
    """
    if isinstance(image, Image.Image):
        picture = image if image.mode in ("L", "RGB") else image.convert("RGB")
        return pil_to_tensor(picture).float().div(255)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        array = torch.from_numpy(np.atleast_3d(image).copy())
        return array.permute(2, 0, 1).float().div(255)
    if isinstance(image, Tensor) and image.ndim == 3:
        if image.dtype == torch.uint8:
            return image.float().div(255)
        if image.is_floating_point():
            return image
    what = type(image).__name__
    if isinstance(image, Tensor | np.ndarray):
        what += f" {tuple(image.shape)} of {image.dtype}"
    raise ViewsError(
        f"cannot mix {what}: expected a PIL image, a uint8 array (H, W[, C]) or a tensor "
        "(C, H, W) of uint8 or floats; let the data set return one of these before the views"
    )


def _like(values: Tensor, image: Any) -> Any:
    if isinstance(image, Tensor) and image.is_floating_point():
        return values.to(image.dtype)
    values = values.mul(255).round().to(torch.uint8)
    if isinstance(image, Tensor):
        return values
    if isinstance(image, Image.Image):
        return to_pil_image(values)
    array = values.permute(1, 2, 0).numpy()
    return array[:, :, 0] if array.shape[2] == 1 and image.ndim == 2 else array
