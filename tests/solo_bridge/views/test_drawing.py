"""What is drawn for views: 10,000 draws against those of torchvision and solo-learn.

All tests at a level of one in 10,000, with fixed seeds.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import permutations

import pytest
import torch
from scipy.stats import binomtest, chisquare, ks_2samp, kstest
from torch import Tensor
from torchvision.transforms import ColorJitter, RandomResizedCrop

from solo_bridge.augmentation import Augmentation
from solo_bridge.views.drawing import RATIOS, SIGMAS, Drawn, drawn, uniforms

N, LEVEL = 10_000, 1e-4
JITTER = Augmentation(
    jitter_prob=0.8,
    brightness=0.8,
    contrast=0.4,
    saturation=1.5,
    hue=0.2,
    grayscale_prob=0.2,
    blur_prob=0.5,
    solarization_prob=0.1,
    equalization_prob=0.3,
    flip_prob=0.4,
)


def draw(a: Augmentation, height: int = 32, width: int = 32, stream: int = 0) -> Drawn:
    seeds = torch.arange(N)
    return drawn(a, seeds, torch.full((N,), height), torch.full((N,), width), stream)


def mixed(z: int) -> int:
    """Stafford's mixer number 13, in Python's unlimited integers."""
    z &= 2**64 - 1
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_uniforms_are_those_of_splitmix() -> None:
    seeds = [0, 1, 2**63 - 1, -(2**63), -1, 123456789]
    got = uniforms(torch.tensor(seeds), 3, 5)
    keys = [mixed(mixed(seed) + 3) for seed in seeds]
    expected = [
        [(mixed(key + k * 0x13C6EF372FE94F9) >> 11) / 2**53 for k in range(1, 6)] for key in keys
    ]
    assert got.dtype == torch.float64 and got.tolist() == expected
    # Known from elsewhere: splitmix64 of seed 0 begins so (its step is the golden one).
    assert mixed(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_uniforms_are_uniform_and_independent() -> None:
    u = torch.stack([uniforms(torch.arange(N), stream, 4) for stream in range(3)], dim=2)
    u = u.flatten(1)
    assert u.min() >= 0 and u.max() < 1
    for column in u.unbind(dim=1):
        assert kstest(column, "uniform").pvalue > LEVEL
    correlated = torch.corrcoef(torch.cat([u, u.roll(1, dims=0)], dim=1).T).fill_diagonal_(0)
    assert correlated.abs().max() < 5 / math.sqrt(N), "five standard deviations"


@pytest.mark.parametrize(
    ("height", "width", "low", "high"),
    [(32, 32, 0.08, 1.0), (48, 20, 0.3, 1.0), (30, 100, 0.9, 1.0)],
)
def test_crops_are_those_of_torchvision(height: int, width: int, low: float, high: float) -> None:
    """The last is too long for nearly all ten attempts: most crops are the central one."""
    d = draw(Augmentation(crop_min_scale=low, crop_max_scale=high), height, width)
    torch.manual_seed(0)
    image, scale = torch.empty(3, height, width), [low, high]
    draws = N if height == width else N // 4  # of many attempts each, which take their time
    theirs = [RandomResizedCrop.get_params(image, scale, list(RATIOS)) for _ in range(draws)]
    top, left, rows, columns = torch.tensor(theirs).T
    assert (d.top >= 0).all() and (d.top + d.height <= height).all()
    assert (d.left >= 0).all() and (d.left + d.width <= width).all()

    def same(ours: Tensor, others: Tensor) -> None:
        assert ks_2samp(ours, others).pvalue > LEVEL

    same(d.height * d.width, rows * columns)
    same(d.height / d.width, rows / columns)
    same(d.top + d.height / 2, top + rows / 2)
    same(d.left + d.width / 2, left + columns / 2)
    same(d.left / (width - d.width).clamp(min=1), left / (width - columns).clamp(min=1))


def test_jitter_is_that_of_torchvision() -> None:
    a, d = JITTER, draw(JITTER)
    jitter = ColorJitter(a.brightness, a.contrast, a.saturation, a.hue)
    torch.manual_seed(0)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    theirs = [ColorJitter.get_params(*ranges) for _ in range(N)]
    for i, name in enumerate(("brightness", "contrast", "saturation", "hue"), start=1):
        ours = getattr(d, name)
        assert ks_2samp(ours, [p[i] for p in theirs]).pvalue > LEVEL, name
    counts = Counter(map(tuple, d.order.tolist()))
    assert counts.keys() == set(permutations(range(4)))
    assert chisquare(list(counts.values())).pvalue > LEVEL


def test_blur_is_that_of_solo_learn() -> None:
    rng = random.Random(0)
    theirs = [rng.uniform(0.1, 2.0) for _ in range(N)]  # as GaussianBlur() of either generation
    assert SIGMAS == (0.1, 2.0)
    assert ks_2samp(draw(JITTER).sigma, theirs).pvalue > LEVEL


def test_probabilities() -> None:
    d = draw(JITTER)
    for name, probability in {
        "jitter": 0.8,
        "grayscale": 0.2,
        "blur": 0.5,
        "solarization": 0.1,
        "equalization": 0.3,
        "flip": 0.4,
    }.items():
        count = int(getattr(d, name).sum())
        assert binomtest(count, N, probability).pvalue > LEVEL, name
    always = Augmentation(jitter_prob=1.0, grayscale_prob=0.0, flip_prob=1.0)
    d = draw(always)
    assert d.jitter.all() and d.flip.all() and not d.grayscale.any() and not d.blur.any()


def test_what_solo_learn_draws_from() -> None:
    """Its blur draws once, uniformly, between the two numbers of its range."""
    from solo_bridge.compat import load

    pipeline = load().pipeline(Augmentation(blur_prob=1.0, jitter_prob=0.0))
    steps = getattr(pipeline, "transform", pipeline).transforms
    blurs = [t for s in steps for t in getattr(s, "transforms", ()) if hasattr(t, "sigma")]
    assert [tuple(blur.sigma) for blur in blurs] == [SIGMAS]


def test_some_rows() -> None:
    d = draw(JITTER)
    part = d.rows(5, 9)
    assert torch.equal(part.order, d.order[5:9]) and part.sigma.tolist() == d.sigma[5:9].tolist()
