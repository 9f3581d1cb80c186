"""Every operation against Pillow's and torchvision's: equal in every pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import functional as one_by_one

from solo_bridge.views import operations

N, SIDE = 48, 20


def made(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if kind == "noise":
        return torch.randint(256, (N, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    if kind == "flat":
        colours = torch.randint(256, (N, 3, 1, 1), generator=generator, dtype=torch.uint8)
        return colours.expand(N, 3, SIDE, SIDE).contiguous()
    coarse = torch.rand(N, 3, 4, 4, generator=generator)
    smooth = interpolate(coarse, size=(SIDE, SIDE), mode="bicubic") * 280 - 10
    return smooth.clamp(0, 255).to(torch.uint8)


@pytest.fixture(params=["noise", "smooth", "flat"])
def pixels(request: pytest.FixtureRequest) -> Tensor:
    return made(request.param)


def alone(pixels: Tensor, change: Callable[..., Image.Image], *parameters: Iterable) -> Tensor:
    """Change one image after the other, in Pillow."""
    pictures = map(one_by_one.to_pil_image, pixels)
    changed = [change(*values) for values in zip(pictures, *parameters, strict=True)]
    return torch.stack([one_by_one.pil_to_tensor(c) for c in changed]).float()


def drawn(low: float, high: float, seed: int = 0) -> Tensor:
    return torch.rand(N, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


HALF = torch.arange(N) % 2 == 0
JITTER = (
    one_by_one.adjust_brightness,
    one_by_one.adjust_contrast,
    one_by_one.adjust_saturation,
    one_by_one.adjust_hue,
)


def test_jitter_in_every_order(pixels: Tensor) -> None:
    order = torch.tensor([*permutations(range(4))] * 2)
    factors = [drawn(0.0, 2.0, seed) for seed in range(3)]
    hue = drawn(-0.5, 0.5, 3).double()
    applied = torch.arange(N) % 5 > 0

    def change(image: Image.Image, steps: list[int], apply: bool, *how: float) -> Image.Image:
        for step in steps if apply else ():
            image = JITTER[step](image, how[step])
        return image

    lists = (order.tolist(), applied.tolist(), *(f.tolist() for f in (*factors, hue)))
    got = operations.jittered(pixels.float(), factors, hue, order, applied)
    assert torch.equal(got, alone(pixels, change, *lists))
    without = operations.jittered(pixels.float(), factors, None, order, applied)
    lists[0][:] = [[step for step in steps if step < 3] for steps in order.tolist()]
    assert torch.equal(without, alone(pixels, change, *lists))


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 2.0])
def test_factors_that_end_between_two_grey_levels(pixels: Tensor, factor: float) -> None:
    order, same = torch.arange(4).expand(N, 4), torch.ones(N)
    for i in range(3):
        factors = [torch.full((N,), factor) if i == k else same for k in range(3)]
        got = operations.jittered(pixels.float(), factors, None, order, same.bool())
        expected = alone(pixels, lambda image, i=i: JITTER[i](image, factor))
        assert torch.equal(got, expected), JITTER[i].__name__


def test_hue(pixels: Tensor) -> None:
    shift = drawn(-0.5, 0.5).double()
    got = operations.hue_shifted(pixels.float(), shift)
    assert torch.equal(got, alone(pixels, one_by_one.adjust_hue, shift.tolist()))


def every_colour(red: int) -> Tensor:
    """All colours of one red: ``(3, 256, 256)``."""
    green, blue = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    return torch.stack([torch.full_like(green, red), green, blue]).to(torch.uint8)


@pytest.mark.parametrize(
    "reds", [(0, 85, 170, 255), pytest.param(range(256), marks=pytest.mark.slow)]
)
def test_every_colour_to_hsv_and_every_hsv_to_a_colour(reds: Iterable[int]) -> None:
    for red in reds:
        colours = every_colour(red)
        picture = one_by_one.to_pil_image(colours).convert("HSV")
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
        hue, saturation, value = (c[0, 0] for c in operations.to_hsv(colours[None].float()))
        assert torch.equal(value, expected[2]) and torch.equal(saturation, expected[1])
        assert torch.equal(hue[saturation > 0], expected[0][saturation > 0]), "grey has no hue"
        back = Image.merge("HSV", one_by_one.to_pil_image(colours).split()).convert("RGB")
        channels = colours[None, :, None].float().unbind(dim=1)
        assert torch.equal(
            operations.from_hsv(*channels)[0], one_by_one.pil_to_tensor(back).float()
        )


def test_grayscale_solarization_and_equalization(pixels: Tensor) -> None:
    for ours, theirs in (
        (operations.grayscaled, lambda image: one_by_one.to_grayscale(image, 3)),
        (operations.solarized, ImageOps.solarize),
        (operations.equalized, ImageOps.equalize),
    ):
        changed = alone(pixels, theirs)
        expected = torch.where(HALF.view(N, 1, 1, 1), changed, pixels.float())
        assert torch.equal(ours(pixels.float(), HALF), expected), ours.__name__


def test_equalization_of_few_colours() -> None:
    two = torch.zeros(N, 3, SIDE, SIDE, dtype=torch.uint8)
    two[:, :, : SIDE // 2] = 7
    two[:, :, 0, 0] = 200
    got = operations.equalized(two.float(), torch.ones(N).bool())
    assert torch.equal(got, alone(two, ImageOps.equalize))


def test_normalization(pixels: Tensor) -> None:
    mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
    expected = one_by_one.normalize(pixels.float() / 255, mean, std)
    got = operations.normalized(pixels.float(), mean, std)
    assert got.is_contiguous()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_nothing_is_changed_in_place(pixels: Tensor) -> None:
    x, ones = pixels.float(), torch.ones(N)
    order, all_of_them = torch.arange(4).expand(N, 4), ones.bool()
    operations.jittered(x, [ones * 2] * 3, ones.double() / 3, order, all_of_them)
    operations.jittered(x, [ones * 2] * 3, None, order, all_of_them)
    for operation in (operations.grayscaled, operations.solarized, operations.equalized):
        operation(x, all_of_them)
    operations.normalized(x, (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(x, pixels.float())
