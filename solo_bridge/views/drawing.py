"""What is drawn at random for a view: a pure function of the image's seed and the view's number.

Source: the distributions are those of solo-learn's pipelines (prepare_transform): torchvision's
``RandomResizedCrop.get_params``, ``ColorJitter.get_params`` and ``RandomApply``, and solo-learn's
``GaussianBlur``.  The numbers come from splitmix64 (Steele, Lea and Flood 2014, Fast Splittable
Pseudorandom Number Generators), in wrapping int64 arithmetic, the same on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from solo_bridge.augmentation import Augmentation

SIGMAS = (0.1, 2.0)
"""Range of the blur's standard deviation in pixels, which solo-learn does not let one set."""
ATTEMPTS = 10
"""Crops that are tried before the largest central one is taken."""
RATIOS = (3 / 4, 4 / 3)
"""Range of the crop's width divided by its height."""

_STEP = 0x13C6EF372FE94F9  # odd, and so short that no multiple in use overflows when compiled
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_COLUMNS = 2 * ATTEMPTS + 17


@dataclass(frozen=True)
class Drawn:
    """Parameters of one view of each image of a minibatch; every tensor has N rows.

    :param top: first row of the crop, int64.
    :param left: first column of the crop, int64.
    :param height: rows of the crop, int64.
    :param width: columns of the crop, int64.
    :param jitter: whether the colours are jittered.
    :param order: ``(N, 4)``, the operations of colour jitter as they follow each
        other: 0 brightness, 1 contrast, 2 saturation, 3 hue.
    :param brightness: factor, float32.
    :param contrast: factor, float32.
    :param saturation: factor, float32.
    :param hue: shift, a share of the circle, float64.
    :param grayscale: whether the colours are dropped.
    :param blur: whether the view is blurred.
    :param sigma: the blur's standard deviation in pixels, float64.
    :param solarization: whether the view is solarised.
    :param equalization: whether the view is equalised.
    :param flip: whether left and right change places.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    jitter: Tensor
    order: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    grayscale: Tensor
    blur: Tensor
    sigma: Tensor
    solarization: Tensor
    equalization: Tensor
    flip: Tensor

    def rows(self, begin: int, end: int) -> Drawn:
        """Return the parameters of some of the images.

        :param begin: first of them.
        :param end: the one after the last.
        """
        return Drawn(**{f.name: getattr(self, f.name)[begin:end] for f in fields(self)})


def drawn(
    augmentation: Augmentation, seeds: Tensor, heights: Tensor, widths: Tensor, stream: int
) -> Drawn:
    """Draw the parameters of one view of each image.

    :param augmentation: the pipeline.
    :param seeds: int64 ``(N,)``, one for each image.
    :param heights: rows of each image, ``(N,)``.
    :param widths: columns of each image, ``(N,)``.
    :param stream: number of the view; views of different numbers are independent.
    :return: the parameters, where the seeds are.
    """
    a = augmentation
    u = uniforms(seeds, stream, _COLUMNS)
    top, left, height, width = _crop(a, u[:, : 2 * ATTEMPTS + 2], heights, widths)
    u = u[:, 2 * ATTEMPTS + 2 :]
    return Drawn(
        top=top,
        left=left,
        height=height,
        width=width,
        jitter=u[:, 0] < a.jitter_prob,
        order=u[:, 1:5].argsort(dim=1),
        brightness=_between(max(0.0, 1 - a.brightness), 1 + a.brightness, u[:, 5]).float(),
        contrast=_between(max(0.0, 1 - a.contrast), 1 + a.contrast, u[:, 6]).float(),
        saturation=_between(max(0.0, 1 - a.saturation), 1 + a.saturation, u[:, 7]).float(),
        hue=_between(-a.hue, a.hue, u[:, 8]),
        grayscale=u[:, 9] < a.grayscale_prob,
        blur=u[:, 10] < a.blur_prob,
        sigma=_between(*SIGMAS, u[:, 11]),
        solarization=u[:, 12] < a.solarization_prob,
        equalization=u[:, 13] < a.equalization_prob,
        flip=u[:, 14] < a.flip_prob,
    )


def uniforms(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Return numbers in [0, 1) with 53 random bits.

    :param seeds: int64 ``(N,)``.
    :param stream: which of a seed's sequences.
    :param count: how many of each sequence.
    :return: float64 ``(N, count)``, where the seeds are.
    """
    state = _mixed(_mixed(seeds) + stream)
    steps = torch.arange(1, count + 1, device=seeds.device) * _STEP
    return _shifted(_mixed(state[:, None] + steps), 11).double() * 2.0**-53


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift to the right as unsigned numbers are shifted."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _between(low: float, high: float, u: Tensor) -> Tensor:
    return u * (high - low) + low


def _crop(a: Augmentation, u: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
    areas = (
        _between(a.crop_min_scale, a.crop_max_scale, u[:, :ATTEMPTS]) * (rows * columns)[:, None]
    )
    low, high = map(math.log, RATIOS)
    ratios = _between(low, high, u[:, ATTEMPTS : 2 * ATTEMPTS]).exp()
    widths, heights = (areas * ratios).sqrt().round(), (areas / ratios).sqrt().round()
    fits = (widths > 0) & (widths <= columns[:, None]) & (heights > 0) & (heights <= rows[:, None])
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.gather(1, first).squeeze(1)
    width = torch.where(
        found,
        widths.gather(1, first).squeeze(1).long(),
        torch.minimum(columns, (rows * RATIOS[1]).round().long()),
    )
    height = torch.where(
        found,
        heights.gather(1, first).squeeze(1).long(),
        torch.minimum(rows, (columns / RATIOS[0]).round().long()),
    )
    top = torch.where(found, (u[:, -2] * (rows - height + 1)).long(), (rows - height) // 2)
    left = torch.where(found, (u[:, -1] * (columns - width + 1)).long(), (columns - width) // 2)
    return top, left, height, width
