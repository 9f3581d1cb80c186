"""Resizing and blurring of minibatches: sums along columns, then along rows, weighted per image.

Every sum is rounded to whole grey levels, as Pillow does, which computes in 8 bits.

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
    rows, columns = pixels.shape[2:]
    across = bicubic_weights(left, width, columns, size, flip)
    narrow = _along_columns(pixels, across).clamp_(0, 255)
    down = bicubic_weights(top, height, rows, size, torch.zeros_like(flip))
    return _along_rows(narrow, down).clamp_(0, 255)


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
        below 2.4: a box of it has five taps.
    :param applied: which views are blurred; the others stay as they are.
    :return: whole grey levels.
    """
    weights = box_weights(sigma, applied, x.shape[-1])
    for _ in range(_PASSES):
        x = _along_columns(x, weights)
    for _ in range(_PASSES):
        x = _along_rows(x, weights)
    return x


def box_weights(sigma: Tensor, applied: Tensor, size: int) -> Tensor:
    """Return the weights of one extended box, three of which make a Gaussian blur.

    :param sigma: see :func:`blurred`.
    :param applied: where not, a pixel counts for itself only.
    :param size: side of the view.
    :return: ``(N, size, size)``; beyond the edge lies the pixel of the edge.
    """
    variance = sigma.square() / _PASSES
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    radius = whole + part / (6 * (variance - (whole + 1).square()))
    full = (_FIXED_POINT / (2 * radius + 1)).floor() / _FIXED_POINT
    edge = (1 - (2 * whole + 1) * full) / 2
    weights = (full, torch.where(whole == 0, edge, full), torch.where(whole == 0, 0, edge))
    index = torch.arange(size, device=sigma.device)
    box = (index[:, None] == index) * torch.where(applied, weights[0], 1.0).float()[:, None, None]
    for step, weight in ((1, weights[1]), (2, weights[2])):
        left, right = (index - step).clamp(min=0), (index + step).clamp(max=size - 1)
        times = (index[:, None] == left).float() + (index[:, None] == right)
        box.addcmul_(times, torch.where(applied, weight, 0.0).float()[:, None, None])
    return box


def _along_columns(x: Tensor, weights: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    result = torch.bmm(x.reshape(n, channels * height, width), weights)
    return _rounded(result).view(n, channels, height, -1)


def _along_rows(x: Tensor, weights: Tensor) -> Tensor:
    return _rounded(torch.matmul(weights.transpose(1, 2).unsqueeze(1), x))


def _rounded(x: Tensor) -> Tensor:
    return x.add_(0.5).floor_()
