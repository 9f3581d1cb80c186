"""Views of a minibatch against the same operations in Pillow, one image after the other."""

from __future__ import annotations

import copy
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import functional as one_by_one

from avalanche_branchtune.errors import ViewsError
from solo_bridge.augmentation import Augmentation
from solo_bridge.views import BatchedViews
from solo_bridge.views.drawing import Drawn, drawn

EVERYTHING = Augmentation(
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    blur_prob=0.5,
    solarization_prob=0.2,
    equalization_prob=0.2,
    num_crops=2,
)


def images(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth colours with some noise, as photographs have."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    smooth = interpolate(coarse, size=(height, width), mode="bicubic") * 255
    noise = 8 * torch.randn(n, 3, height, width, generator=generator)
    return (smooth + noise).clamp(0, 255).to(torch.uint8)


def by_pillow(a: Augmentation, image: Image.Image, d: Drawn) -> Tensor:
    """One view by Pillow, of what was drawn for one image."""
    left, top, width, height = (int(v) for v in (d.left, d.top, d.width, d.height))
    x = image.crop((left, top, left + width, top + height))
    # In two calls: from version 13 on, Pillow would begin with the rows of some crops.
    x = x.resize((a.crop_size, height), Image.Resampling.BICUBIC)
    x = x.resize((a.crop_size, a.crop_size), Image.Resampling.BICUBIC)
    for operation in d.order[0].tolist() if d.jitter else ():
        name = ("brightness", "contrast", "saturation", "hue")[operation]
        x = getattr(one_by_one, f"adjust_{name}")(x, float(getattr(d, name)))
    if d.grayscale:
        x = one_by_one.to_grayscale(x, 3)
    if d.blur:
        x = x.filter(ImageFilter.GaussianBlur(float(d.sigma)))
    if d.solarization:
        x = ImageOps.solarize(x)
    if d.equalization:
        x = ImageOps.equalize(x)
    if d.flip:
        x = ImageOps.mirror(x)
    return one_by_one.normalize(one_by_one.to_tensor(x), list(a.mean), list(a.std))


def grey_levels(difference: Tensor, a: Augmentation) -> Tensor:
    return (difference * torch.tensor(a.std).view(3, 1, 1) * 255).abs()


@pytest.mark.parametrize(("height", "width", "size"), [(16, 16, 16), (40, 33, 32), (60, 70, 24)])
def test_views_are_those_of_pillow(height: int, width: int, size: int) -> None:
    """In all pixels of six views in seven, and by less than a grey level in the others.

    A sum that ends half-way between two grey levels changes a pixel, and where it changes the mean
    luminance or the histogram, the contrast of all.
    """
    a = replace(EVERYTHING, crop_size=size)
    pixels, seeds = images(60, height, width), torch.arange(60)
    for number, view in enumerate(BatchedViews([a])(pixels, seeds)):
        d = drawn(a, seeds, torch.full((60,), height), torch.full((60,), width), number)
        pictures = map(one_by_one.to_pil_image, pixels)
        alone = [by_pillow(a, p, d.rows(i, i + 1)) for i, p in enumerate(pictures)]
        difference = grey_levels(view - torch.stack(alone), a).round().flatten(1)
        assert (difference.amax(dim=1) == 0).float().mean() >= 0.85
        assert difference.mean(dim=1).max() < 1


def test_a_view_depends_on_its_image_and_seed_only() -> None:
    pixels, seeds = images(20, 16, 16), torch.arange(20) * 2**57
    views = BatchedViews([replace(EVERYTHING, crop_size=16), Augmentation(crop_size=8)])
    together = views(pixels, seeds)
    assert [v.shape for v in together] == [(20, 3, 16, 16), (20, 3, 16, 16), (20, 3, 8, 8)]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))[:7]
    for whole, part in zip(together, views(pixels[order], seeds[order]), strict=True):
        assert torch.equal(whole[order], part)
    same = views(pixels[:1].expand(20, -1, -1, -1), seeds)[0]
    assert len(same.flatten(1).unique(dim=0)) == 20, "other seeds, other views"
    assert not torch.equal(together[0], together[1])


def test_images_in_a_corner_of_a_canvas_are_seen_as_if_alone() -> None:
    pixels, seeds = images(6, 24, 40), torch.arange(6)
    canvas = torch.randint(0, 256, (6, 3, 50, 64), dtype=torch.uint8)
    canvas[:, :, :24, :40] = pixels
    views = BatchedViews([EVERYTHING])
    sizes = torch.tensor([24, 40]).expand(6, 2)
    for alone, within in zip(views(pixels, seeds), views(canvas, seeds, sizes), strict=True):
        assert grey_levels(alone - within, EVERYTHING).gt(0.5).float().mean() < 1e-3


def test_no_random_state_is_touched_and_copies_are_the_same() -> None:
    views = BatchedViews([EVERYTHING])
    pixels, seeds = images(4, 32, 32), torch.arange(4)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    expected = views(pixels, seeds)
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all() and before[2] == after[2]
    for twin in (copy.deepcopy(views), pickle.loads(pickle.dumps(views))):
        assert all(map(torch.equal, twin(pixels, seeds), expected))


@pytest.mark.parametrize(
    ("pixels", "seeds", "sizes", "message"),
    [
        (torch.zeros(2, 3, 8, 8), torch.arange(2), None, "uint8 .N, 3, H, W., got torch.float32"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.arange(2), None, "got torch.uint8"),
        (images(2, 8, 8), torch.arange(3), None, "seeds of 2 images must be int64 .2,., got"),
        (images(2, 8, 8), torch.arange(2), torch.ones(2), "sizes of 2 images must be int64 .2, 2"),
    ],
)
def test_other_tensors_are_refused(
    pixels: Tensor, seeds: Tensor, sizes: Tensor | None, message: str
) -> None:
    with pytest.raises(ViewsError, match=message):
        BatchedViews([EVERYTHING])(pixels, seeds, sizes)


@pytest.mark.slow
def test_it_compiles_as_one_graph() -> None:
    views = BatchedViews([replace(EVERYTHING, num_crops=1)])
    pixels, seeds = images(8, 32, 32), torch.arange(8)
    (compiled,) = torch.compile(views.__call__, fullgraph=True)(pixels, seeds)
    difference = grey_levels(compiled - views(pixels, seeds)[0], EVERYTHING)
    assert (difference > 0.5).float().mean() < 1e-3
