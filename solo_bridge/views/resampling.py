"""Resizing and blurring of minibatches, where the weights of a sum differ from image to image.

Every sum runs along one axis and is rounded to whole grey levels, as Pillow does, which computes
in 8 bits.

Source: Pillow, src/libImaging/Resample.c (bicubic with antialiasing) and BoxBlur.c (Gaussian blur
as three extended box blurs after Gwosdek et al. 2011, Theoretical Foundations of Gaussian
Convolution by Extended Box Filtering).
"""

from __future__ import annotations

import torch
from torch import Tensor

_PASSES = 3
_FIXED_POINT = 1 << 24


def resized_crops(
    pixels: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    size: int,
    flip: Tensor,
) -> Tensor:
    """Cut a crop out of each image and resize it.

    :param pixels: grey levels ``(N, 3, H, W)``, float32.
    :param top: first row of each crop, ``(N,)``.
    :param left: first column.
    :param height: rows of the crop.
    :param width: columns of the crop.
    :param size: side of the result.
    :param flip: whether left and right of the result change places.
    :return: whole grey levels ``(N, 3, size, size)``, float32.
    """
    n, channels, rows, columns = pixels.shape
    across = bicubic_weights(left, width, columns, size, flip)
    narrow = torch.bmm(pixels.reshape(n, channels * rows, columns), across)
    narrow = _rounded(narrow).clamp_(0, 255).view(n, channels, rows, size)
    down = bicubic_weights(top, height, rows, size, torch.zeros_like(flip))
    return _rounded(torch.matmul(down.transpose(1, 2).unsqueeze(1), narrow)).clamp_(0, 255)


def bicubic_weights(
    start: Tensor, length: Tensor, pixels: int, size: int, mirrored: Tensor
) -> Tensor:
    """Return how much every pixel counts for every pixel of the result.

    :param start: first pixel of each crop, ``(N,)``.
    :param length: number of pixels of the crop.
    :param pixels: number of pixels of the image.
    :param size: number of pixels of the result.
    :param mirrored: whether the result runs backwards.
    :return: ``(N, pixels, size)``; the weights for one pixel of the result add up
        to one.
    """
    scale = (length.float() / size)[:, None]
    result = torch.arange(size, device=start.device)
    result = torch.where(mirrored[:, None], size - 1 - result, result)
    centre = (result + 0.5) * scale
    index = torch.arange(pixels, device=start.device) - start[:, None]
    inside = (index >= 0) & (index < length[:, None])
    position = torch.where(inside, index + 0.5, torch.inf)
    widening = scale.clamp(min=1.0)
    distance = (position / widening)[:, :, None] - (centre / widening)[:, None, :]
    weights = _bicubic(distance.abs_())
    return weights.div_(weights.sum(dim=1, keepdim=True))


def _bicubic(distance: Tensor) -> Tensor:
    """Return the cubic kernel with a = -1/2, in the two powers of which it is made; changes it."""
    outer = distance.neg_().add_(2).clamp_(min=0)
    inner = (outer - 1).clamp_(min=0)
    inner = inner.square().mul_(inner.mul_(-2).add_(1))
    return torch.addcmul(inner, outer.square(), outer.sub_(1), value=0.5)


def blurred(x: Tensor, sigma: Tensor, applied: Tensor) -> Tensor:
    """Blur some views.

    :param x: whole grey levels ``(N, 3, S, S)``.
    :param sigma: standard deviation of the Gaussian in pixels, float64 ``(N,)``,
        below 2.4: a box of it has at most five pixels.
    :param applied: ``(N,)``, which views are blurred; the others stay as they are.
    :return: whole grey levels.
    """
    weights = [
        torch.where(applied, weight, 0.0 if step else 1.0).float().view(-1, 1, 1, 1)
        for step, weight in enumerate(box_weights(sigma))
    ]
    for _ in range(2):
        x = x.transpose(2, 3).contiguous()
        for _ in range(_PASSES):
            x = _box(x, *weights)
    return x


def box_weights(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of one extended box, three of which make a Gaussian blur.

    :param sigma: see :func:`blurred`.
    :return: of the pixel itself, of each neighbour, and of each second neighbour.
    """
    variance = sigma.square() / _PASSES
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    radius = whole + part / (6 * (variance - (whole + 1).square()))
    full = (_FIXED_POINT / (2 * radius + 1)).floor()
    edge = ((_FIXED_POINT - (2 * whole + 1) * full) / 2).floor() / _FIXED_POINT
    full = full / _FIXED_POINT
    return full, torch.where(whole == 0, edge, full), torch.where(whole == 0, 0.0, edge)


def _box(x: Tensor, own: Tensor, next_: Tensor, second: Tensor) -> Tensor:
    """Sum along columns of pixels; beyond the edge lies the pixel of the edge."""
    first, last, rows = x[:, :, :1], x[:, :, -1:], x.shape[2]
    wide = torch.cat([first, first, x, last, last], dim=2)
    result = (x * own).addcmul_(wide[:, :, 1 : rows + 1] + wide[:, :, 3 : rows + 3], next_)
    return _rounded(result.addcmul_(wide[:, :, :rows] + wide[:, :, 4:], second))


def _rounded(x: Tensor) -> Tensor:
    return x.add_(0.5).floor_()
