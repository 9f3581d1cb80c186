"""Changes of colours in minibatches of views, each of which has its own parameters.

All take and return whole grey levels from 0 to 255 in float32 tensors ``(N, 3, H, W)``, and give
what Pillow gives, which computes in 8 bits.  They choose by sums and products, which are
much faster on a CPU than comparisons and ``torch.where``.

Source: Pillow, src/libImaging/Blend.c and Convert.c, src/PIL/ImageEnhance.py and ImageOps.py;
torchvision's ``ColorJitter`` and ``adjust_hue``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)


def grey(x: Tensor) -> Tensor:
    """Return the luminance ``(N, 1, H, W)``, in whole grey levels.

    :param x: see the module.
    """
    red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
    y = (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return y.add_(0.5).floor_()


def blended(x: Tensor, target: Tensor, factor: Tensor) -> Tensor:
    """Go from a target towards the view, or beyond it.

    :param x: see the module.
    :param target: of a shape that broadcasts to it.
    :param factor: ``(N,)``: 0 for the target, 1 for the view.
    """
    difference = x - target
    return torch.addcmul(target, difference, _each(factor), out=difference).clamp_(0, 255).floor_()


def jittered(
    x: Tensor,
    factors: Sequence[Tensor],
    hue: Tensor | None,
    order: Tensor,
    applied: Tensor,
) -> Tensor:
    """Jitter brightness, contrast, saturation and hue, in an order for each view.

    Brightness, contrast and saturation are blends, with black, with the mean
    luminance and with the luminance of the pixel: one blend whose target depends
    on the view, three times before the hue and three times after it.  A factor of
    one changes nothing.

    :param x: see the module.
    :param factors: of brightness, contrast and saturation, each ``(N,)``.
    :param hue: shift, a share of the circle, float64 ``(N,)``; None for no view.
    :param order: ``(N, 4)``, see :class:`solo_bridge.views.drawing.Drawn`.
    :param applied: ``(N,)``, which views are jittered.
    """
    factor = torch.stack([*factors, torch.ones_like(factors[0])], dim=1).gather(1, order)
    factor = torch.where(applied[:, None], factor, 1.0)
    if hue is None:
        for step in range(4):
            x = _jitter_step(x, order[:, step], factor[:, step])
        return x
    before = (order == 3).cumsum(dim=1) == 0
    for step in range(3):
        x = _jitter_step(x, order[:, step], torch.where(before[:, step], factor[:, step], 1.0))
    x = _where(applied, hue_shifted(x, hue), x)
    for step in range(1, 4):
        x = _jitter_step(x, order[:, step], torch.where(before[:, step], 1.0, factor[:, step]))
    return x


def _jitter_step(x: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    luminance = grey(x)
    mean = luminance.mean(dim=(1, 2, 3)).add_(0.5).floor_()
    mean = torch.where(operation == 1, mean, 0.0)
    saturates = (operation == 2).float()
    target = torch.addcmul(_each(mean), luminance, _each(saturates))
    return blended(x, target, factor)


def hue_shifted(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue, by way of Pillow's HSV with 8 bits.

    :param x: see the module.
    :param shift: share of the circle, float64 ``(N,)``.
    """
    hue, saturation, value = to_hsv(x)
    turned = hue + _each((shift * 255).trunc().float())
    return from_hsv(turned.sub_((turned / 256).floor_().mul_(256)), saturation, value)


def to_hsv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue, saturation and value, each ``(N, 1, H, W)`` and whole from 0 to 255.

    Some colours lie on a border between two hues, which the order of the sums
    decides; in this one they fall to the side to which they fall in C.

    :param x: see the module.
    """
    red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
    value = torch.maximum(red, green).maximum(blue)
    red_leads = _same(red, value)
    green_leads = _same(green, value).mul_(1 - red_leads)
    blue_leads = 1 - red_leads - green_leads
    before = (red_leads * blue).addcmul_(green_leads, red).addcmul_(blue_leads, green)
    after = (red + green).add_(blue).sub_(value).sub_(before)
    sector = (green_leads * 2).add_(blue_leads, alpha=4)
    chroma = value - torch.minimum(before, after)
    saturation = (chroma / value.clamp(min=1)).mul_(255).floor_()
    share = (value - torch.maximum(before, after)).div_(chroma.clamp_(min=1))
    side = before.sub_(after).sign_()
    hue = sector.sub_(side).add_(share.mul_(side)).div_(6)
    return hue.sub_(hue.floor()).mul_(255).floor_(), saturation, value


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return the colours of :func:`to_hsv`, in whole numbers throughout.

    A channel loses all of the saturation where the hue is opposite to its own,
    within 60 degrees (255 of 1530), and nothing where it is nearer than 60.

    :param hue: ``(N, 1, H, W)``.
    :param saturation: likewise.
    :param value: likewise.
    """
    own = 510.0 * torch.arange(3, device=hue.device).view(3, 1, 1)
    away = (hue * 6 - own).abs_().sub_(765).abs_().neg_().add_(765)
    share = away.sub_(255).clamp_(0, 255)
    most = (value * 65025).add_(32512)
    return torch.addcmul(most, saturation * value, share, value=-1).div_(65025).floor_()


def grayscaled(x: Tensor, applied: Tensor) -> Tensor:
    """Drop the colours of some views.

    :param x: see the module.
    :param applied: ``(N,)``, which.
    """
    return _where(applied, grey(x), x)


def solarized(x: Tensor, applied: Tensor) -> Tensor:
    """Invert what is brighter than half, in some views.

    :param x: see the module.
    :param applied: ``(N,)``, which.
    """
    return torch.minimum(x, _each(torch.where(applied, 255.0, 510.0)) - x)


def equalized(x: Tensor, applied: Tensor) -> Tensor:
    """Equalise the histogram of every channel of some views.

    :param x: see the module.
    :param applied: ``(N,)``, which.
    """
    n, channels, height, width = x.shape
    levels = x.reshape(n, channels, height * width)
    index = levels.long()
    histogram = x.new_zeros(n, channels, 256).scatter_add_(2, index, torch.ones_like(levels))
    brightest = histogram.gather(2, index.amax(dim=2, keepdim=True))
    step = (height * width - brightest).div_(255).floor_()
    darker = histogram.cumsum(dim=2) - histogram
    table = darker.add_((step / 2).floor_()).div_(step.clamp(min=1)).floor_().clamp_(max=255)
    changes = (step > 0) & applied.view(n, 1, 1)
    return torch.where(changes, table.gather(2, index), levels).view(x.shape)


def normalized(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return values as networks take them.

    :param x: see the module.
    :param mean: of every channel, in [0, 1].
    :param std: deviations, likewise.
    """
    channels = zip(x.unbind(dim=1), mean, std, strict=True)
    return torch.stack([(c - 255 * m).div_(255 * s) for c, m, s in channels], dim=1)


def _same(x: Tensor, largest: Tensor) -> Tensor:
    """Return 1.0 where whole numbers are as large as the largest, else 0.0."""
    return (x - largest).add_(1).clamp_(min=0)


def _where(applied: Tensor, new: Tensor, x: Tensor) -> Tensor:
    """Return the new views where applied, else the old ones."""
    difference = new - x
    return torch.addcmul(x, difference, _each(applied.float()), out=difference)


def _each(values: Tensor) -> Tensor:
    """Return one value for each view, so that it broadcasts."""
    return values.view(-1, 1, 1, 1)
