"""Mixing two images of any kind, pixel by pixel."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from avalanche_branchtune.errors import ViewsError
from solo_bridge import solo_views
from solo_bridge.plugins.rehearsal.mixing import mixed
from tests.oracles.replay import mixed_by_hand
from tests.selfsupervised import VIEW


def _random(seed: int, height: int = 5, width: int = 4, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _array(image: Any) -> np.ndarray:
    """An image of any kind as (H, W, C) in 0 to 255."""
    if isinstance(image, Tensor):
        scaled = image.double() * (255 if image.is_floating_point() else 1)
        return scaled.permute(1, 2, 0).numpy()
    array = np.asarray(image).astype(np.float64)
    return array[:, :, None] if array.ndim == 2 else array


KINDS: dict[str, Any] = {
    "pil": Image.fromarray,
    "array": lambda a: a,
    "uint8": lambda a: torch.from_numpy(a).permute(2, 0, 1).contiguous(),
    "float": lambda a: torch.from_numpy(a).permute(2, 0, 1).double() / 255,
}


@pytest.mark.parametrize(("new", "old"), list(itertools.product(KINDS, KINDS)))
def test_pixels_are_mixed_as_by_hand_whatever_the_images_are(new: str, old: str) -> None:
    a, b = _random(0), _random(1)
    for share in (0.0, 0.3, 0.85, 1.0):
        found = mixed(KINDS[new](a), KINDS[old](b), share)
        assert type(found) is type(KINDS[new](a))
        assert not isinstance(found, Tensor) or found.dtype == KINDS[new](a).dtype
        expected = mixed_by_hand(a, b, share)
        tolerance = 1e-4 if new == "float" else 0.5 + 1e-4  # rounded to the nearest of 256
        assert np.abs(_array(found) - expected).max() <= tolerance


def test_modes_and_channels_are_brought_together() -> None:
    grey, colour = Image.fromarray(_random(0)[:, :, 0]), Image.fromarray(_random(1))
    three = np.repeat(_random(0)[:, :, :1], 3, axis=2)
    for a, b, x, y in (
        (grey, colour, three, _random(1)),
        (colour, grey, _random(1), three),
        (colour, colour.convert("RGBA"), _random(1), _random(1)),
        (grey.convert("P"), colour, three, _random(1)),
        (grey, grey, _random(0)[:, :, :1], _random(0)[:, :, :1]),
    ):
        found = mixed(a, b, 0.25)
        assert np.abs(_array(found) - mixed_by_hand(x, y, 0.25)).max() <= 0.5 + 1e-4
    assert mixed(grey, grey, 0.5).mode == "L"
    flat = mixed(_random(0)[:, :, 0], grey, 0.5)
    assert flat.shape == (5, 4), "a grey array stays one"
    with pytest.raises(ViewsError, match="5 channels with one of 3"):
        mixed(torch.zeros(5, 4, 4), colour, 0.5)


def test_another_size_is_brought_to_that_of_the_new_image() -> None:
    wide = np.zeros((6, 16, 3), dtype=np.uint8)
    wide[:, 8:] = 200  # dark left, bright right
    found = _array(mixed(torch.zeros(3, 4, 8), Image.fromarray(wide), 0.25))
    assert found.shape == (4, 8, 3)
    assert np.allclose(found[:, :3], 0) and np.allclose(found[:, 5:], 150, atol=1e-3)
    assert mixed(Image.fromarray(wide), torch.zeros(3, 4, 8), 0.5).size == (16, 6)


def test_resizing_never_leaves_the_range_that_views_accept() -> None:
    views = solo_views([VIEW])
    for size, other in itertools.product(range(2, 9), range(2, 40)):
        found = mixed(torch.ones(3, size, size), torch.ones(3, other, other), 0.0)
        assert found.max() <= 1
        found = mixed(torch.zeros(3, size, size), torch.zeros(3, other, other), 0.5)
        assert found.min() >= 0
    views(found)


@pytest.mark.parametrize("image", ["picture", torch.zeros(4, 4), np.zeros((4, 4, 3)), [1, 2]])
def test_what_is_no_image_cannot_be_mixed(image: Any) -> None:
    with pytest.raises(ViewsError, match="cannot mix"):
        mixed(image, torch.zeros(3, 4, 4), 0.5)
