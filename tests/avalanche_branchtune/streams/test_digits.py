from __future__ import annotations

import pickle
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from sklearn.neighbors import KNeighborsClassifier

from avalanche_branchtune.errors import EmptyExperienceError, UnknownOptionError
from avalanche_branchtune.streams import ArrayImages, digits_on_photographs, split_domains
from avalanche_branchtune.streams import digits as module


@pytest.fixture(scope="module")
def train() -> ArrayImages:
    return digits_on_photographs()


@pytest.fixture(scope="module")
def held_out() -> ArrayImages:
    return digits_on_photographs(train=False)


def flat(data: ArrayImages) -> np.ndarray:
    return data.images.reshape(len(data), -1) / 255


def test_default_shapes_and_items(train: ArrayImages, held_out: ArrayImages) -> None:
    assert train.images.shape == (4000, 16, 16, 3) and train.images.dtype == np.uint8
    assert held_out.images.shape == (1000, 16, 16, 3)
    image, label = train[7]
    assert isinstance(image, Image.Image) and image.mode == "RGB" and image.size == (16, 16)
    assert np.array_equal(np.asarray(image), train.images[7])
    assert type(label) is int and label == train.targets[7]


def test_every_pair_of_class_and_domain_is_equally_frequent(
    train: ArrayImages, held_out: ArrayImages
) -> None:
    for data, each in ((train, 80), (held_out, 20)):
        pairs = Counter(zip(data.targets, data.domains, strict=True))
        assert pairs == {(c, d): each for c in range(10) for d in range(5)}


@pytest.mark.parametrize("backgrounds", [1, 2, 3, 4, 5])
def test_uneven_sample_numbers_stay_balanced(backgrounds: int) -> None:
    for samples in (1, 7, 23, 48, 99):
        data = digits_on_photographs(samples=samples, backgrounds=backgrounds, size=8)
        assert len(data) == samples
        classes = np.bincount(data.targets, minlength=10)
        domains = np.bincount(data.domains, minlength=backgrounds)
        assert classes.max() - classes.min() <= 1
        assert domains.max() - domains.min() <= 2 and len(domains) == backgrounds


def test_same_seed_same_images_other_seed_or_part_other_images() -> None:
    first = digits_on_photographs(samples=60, seed=3)
    again = digits_on_photographs(samples=60, seed=3)
    assert np.array_equal(first.images, again.images)
    assert first.targets == again.targets and first.domains == again.domains
    assert not np.array_equal(first.images, digits_on_photographs(samples=60, seed=4).images)
    assert first.targets != digits_on_photographs(train=False, samples=60, seed=3).targets


def test_global_random_state_is_not_touched() -> None:
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    digits_on_photographs(samples=10)
    assert np.random.random() == expected


def test_sizes_show_the_same_scenes() -> None:
    small, large = (digits_on_photographs(samples=100, size=size) for size in (16, 32))
    assert large.images.shape == (100, 32, 32, 3)
    shrunk = large.images.reshape(100, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    close = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(shrunk, small.images, strict=True)
    ]
    assert np.median(close) > 0.9


def test_train_and_test_share_neither_digits_nor_photograph() -> None:
    pool = load_digits()
    used = {}
    for train in (True, False):
        rng = np.random.default_rng(0)
        chosen = module._digits(train, np.arange(4000) % 10, rng)
        used[train] = {digit.tobytes() for digit in (chosen * 16).astype(np.uint8)}
    assert not used[True] & used[False]
    everything = {digit.astype(np.uint8).tobytes() for digit in pool.images}
    assert used[True] | used[False] == everything
    assert len(used[False]) == 500
    boxes = [
        (region.photograph, box) for region in module.REGIONS for box in (region.train, region.test)
    ]
    for photograph, (left, top, right, bottom) in boxes:
        height, width, _ = load_sample_image(photograph).shape
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
    for (name, a), (other, b) in combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert name != other or apart


def test_blend_is_the_absolute_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = []

    def patches(name, box, count, size, rng):
        boxes.append((name, box))
        return np.full((count, size, size, 3), 0.25)

    monkeypatch.setattr(module, "_patches", patches)
    monkeypatch.setattr(module, "_colours", lambda patches, rng: np.ones((len(patches), 3)))
    for train in (True, False):
        images = digits_on_photographs(train, samples=20).images
        # |0.25 - s|: 0.25 where there is no digit, down to 0 and up to 0.75 towards full strokes.
        assert images.max() == 191 and images.min() < 10 and np.median(images[:, 0]) == 64
        assert np.array_equal(images[..., 0], images[..., 2])
    assert boxes[:5] == [(region.photograph, region.train) for region in module.REGIONS]
    assert boxes[5:] == [(region.photograph, region.test) for region in module.REGIONS]


def test_domains_differ_and_raw_pixels_are_a_poor_representation(
    train: ArrayImages, held_out: ArrayImages
) -> None:
    knn = KNeighborsClassifier(5).fit(flat(train), train.targets)
    accuracy = knn.score(flat(held_out), held_out.targets)
    assert 0.2 < accuracy < 0.65  # above chance, far from perfect
    domains = KNeighborsClassifier(5).fit(flat(train), train.domains)
    assert domains.score(flat(held_out), held_out.domains) > 0.6


def test_subset_and_pickle(train: ArrayImages) -> None:
    part = train.subset([5, 2])
    assert part.targets == [train.targets[5], train.targets[2]]
    assert part.domains == [train.domains[5], train.domains[2]]
    assert np.array_equal(part.images, train.images[[5, 2]])
    assert len(train.subset([])) == 0
    copy = pickle.loads(pickle.dumps(part))
    assert np.array_equal(copy.images, part.images) and copy.targets == part.targets


def test_split_domains(train: ArrayImages) -> None:
    parts = split_domains(train)
    assert [set(part.domains) for part in parts] == [{0}, {1}, {2}, {3}, {4}]
    assert [len(part) for part in parts] == [800] * 5


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"size": 4}, UnknownOptionError, r"size=…\): expected at least 8 pixels; got 4"),
        ({"backgrounds": 6}, UnknownOptionError, r"expected one of 1, 2, 3, 4, 5; got 6"),
        ({"backgrounds": 0}, UnknownOptionError, r"got 0"),
        ({"samples": 0}, EmptyExperienceError, r"samples=…\): expected at least 1 image; got 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, int], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        digits_on_photographs(**arguments)


def test_array_images_refuses_what_does_not_fit() -> None:
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(UnknownOptionError, match="2 images, 1 targets, 2 domains"):
        ArrayImages(images, [0], [0, 0])
    with pytest.raises(UnknownOptionError, match="float64"):
        ArrayImages(images / 255, [0, 0], [0, 0])
