"""Crops and blurs against Pillow's, whose weights are rounded as well.

One pixel in 1,000 may differ by one grey level, where a sum ends half-way between two.
"""

from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import functional as one_by_one

from solo_bridge.views.drawing import SIGMAS
from solo_bridge.views.resampling import bicubic_weights, blurred, resized_crops

N = 24


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (N, 3, height, width), generator=generator, dtype=torch.uint8)


def assert_close(got: Tensor, expected: list[Image.Image]) -> None:
    difference = (got - torch.stack([one_by_one.pil_to_tensor(e) for e in expected])).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(16, 16, 16), (32, 32, 24), (12, 20, 32), (70, 45, 32), (9, 64, 8), (3, 2, 16)],
)
def test_crops_larger_and_smaller_than_the_view(height: int, width: int, size: int) -> None:
    pixels = noise(height, width)
    generator = torch.Generator().manual_seed(1)
    heights = torch.randint(1, height + 1, (N,), generator=generator)
    widths = torch.randint(1, width + 1, (N,), generator=generator)
    heights[0], widths[0] = height, width
    top = (torch.rand(N, generator=generator) * (height - heights + 1)).long()
    left = (torch.rand(N, generator=generator) * (width - widths + 1)).long()
    flip = torch.arange(N) % 2 == 1
    got = resized_crops(pixels.float(), top, left, heights, widths, size, flip)
    assert got.shape == (N, 3, size, size) and torch.equal(got, got.round())
    expected = []
    for i, picture in enumerate(map(one_by_one.to_pil_image, pixels)):
        crop = one_by_one.crop(picture, int(top[i]), int(left[i]), int(heights[i]), int(widths[i]))
        # Columns first: from version 13 on, Pillow begins with the rows of tall crops.
        crop = crop.resize((size, crop.height), Image.Resampling.BICUBIC)
        crop = crop.resize((size, size), Image.Resampling.BICUBIC)
        expected.append(one_by_one.hflip(crop) if flip[i] else crop)
    assert_close(got, expected)


def test_a_crop_of_the_size_of_the_view_is_cut_out() -> None:
    pixels = noise(20, 20)
    where = torch.arange(N) % 5
    eight = torch.full((N,), 8)
    got = resized_crops(pixels.float(), where, where, eight, eight, 8, torch.zeros(N).bool())
    for image, view, i in zip(pixels, got, where.tolist(), strict=True):
        assert torch.equal(view, image[:, i : i + 8, i : i + 8].float())


def test_what_lies_around_the_crop_does_not_count() -> None:
    weights = bicubic_weights(torch.tensor([4]), torch.tensor([6]), 20, 9, torch.tensor([False]))
    assert weights[0, :4].abs().max() == 0 and weights[0, 10:].abs().max() == 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(1, 9))


@pytest.mark.parametrize("side", [1, 2, 3, 16, 33])
def test_blur(side: int) -> None:
    """Radii below and above one, at which a box takes in the second neighbours."""
    pixels = noise(side, side)
    low, high = SIGMAS
    sigma = torch.linspace(low + 0.01, high - 0.01, N, dtype=torch.float64)
    applied = torch.arange(N) % 4 > 0
    got = blurred(pixels.float(), sigma, applied)
    pictures = map(one_by_one.to_pil_image, pixels)
    expected = [
        p.filter(ImageFilter.GaussianBlur(s)) if apply else p
        for p, s, apply in zip(pictures, sigma.tolist(), applied.tolist(), strict=True)
    ]
    assert_close(got, expected)
    assert torch.equal(got[~applied], pixels[~applied].float())
