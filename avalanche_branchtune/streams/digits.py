"""Real handwritten digits on real photographs: an image stream without a download.

Both sources are files inside scikit-learn. The digits are the test part of "Optical
Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI machine learning repository,
1998; 1797 grey images of 8 x 8). The photographs are ``china.jpg`` and ``flower.jpg``
(CC BY). They are blended as in MNIST-M (Ganin and Lempitsky, "Unsupervised Domain Adaptation
by Backpropagation", ICML 2015): ``|photograph - digit|``, so that neither the colour
of a pixel nor its brightness says whether it belongs to the digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import Dataset

from avalanche_branchtune.errors import EmptyExperienceError, UnknownOptionError, expected_one_of

__all__ = ["ArrayImages", "digits_on_photographs"]

Box = tuple[int, int, int, int]


class Region(NamedTuple):
    """A domain: (left, top, right, bottom) boxes in the pixels of a photograph.

    Example::

        >>> from avalanche_branchtune.streams.digits import REGIONS, Region
        >>> sky = Region("china.jpg", train=(340, 0, 520, 130), test=(520, 0, 640, 130))
        >>> sky == REGIONS[1], sky.train[2] <= sky.test[0]  # no pixel in both parts
        (True, True)
    """

    photograph: str
    train: Box
    test: Box


REGIONS = (  # no two boxes overlap
    Region("china.jpg", (90, 165, 240, 360), (240, 165, 325, 360)),  # pagoda
    Region("china.jpg", (340, 0, 520, 130), (520, 0, 640, 130)),  # sky
    Region("china.jpg", (335, 315, 480, 427), (480, 315, 560, 427)),  # bushes
    Region("flower.jpg", (210, 140, 325, 300), (325, 140, 405, 300)),  # petals
    Region("flower.jpg", (0, 60, 150, 240), (0, 240, 150, 400)),  # blurred leaves
)
PATCH = 32  # side of the square of photograph behind a digit, in pixels of the photograph
CLASSES = 10
TEST_DIGITS = 50  # digit images of each class that are kept for testing
TRAIN_SAMPLES, TEST_SAMPLES = 4000, 1000


class ArrayImages(Dataset[tuple[Image.Image, int]]):
    """Images in memory, with a class and a domain each.

    :param images: ``(N, H, W, 3)``, uint8, RGB.
    :param targets: N class numbers.
    :param domains: N domain numbers.
    :raises UnknownOptionError: when the three differ in length or ``images`` has another shape.

    Example::

        >>> import numpy as np
        >>> from avalanche_branchtune.streams import ArrayImages
        >>> pixels = np.arange(2, dtype=np.uint8).repeat(8 * 8 * 3).reshape(2, 8, 8, 3)
        >>> data = ArrayImages(pixels, targets=[7, 9], domains=[0, 1])
        >>> data[1][0].getpixel((0, 0)), data[1][1]
        ((1, 1, 1), 9)
        >>> data.subset([1]).domains
        [1]
    """

    def __init__(self, images: np.ndarray, targets: Sequence[int], domains: Sequence[int]) -> None:
        """Check the lengths and keep the array; it is not copied."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise UnknownOptionError(
                f"ArrayImages(images=…): expected uint8 of shape (N, H, W, 3); "
                f"got {images.dtype} of shape {images.shape}"
            )
        if not len(images) == len(targets) == len(domains):
            raise UnknownOptionError(
                f"ArrayImages: expected as many targets and domains as images; "
                f"got {len(images)} images, {len(targets)} targets, {len(domains)} domains"
            )
        self.images = images
        self.targets = list(targets)
        self.domains = list(domains)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return the image at ``index`` as RGB, and its class."""
        return Image.fromarray(self.images[index]), self.targets[index]

    def subset(self, indices: Iterable[int]) -> ArrayImages:
        """Return the images at ``indices``, in that order, as a data set of their own."""
        chosen = list(indices)
        return ArrayImages(
            self.images[np.asarray(chosen, dtype=np.int64)],
            [self.targets[i] for i in chosen],
            [self.domains[i] for i in chosen],
        )


def digits_on_photographs(
    train: bool = True,
    *,
    size: int = 16,
    samples: int | None = None,
    backgrounds: int = len(REGIONS),
    seed: int = 0,
) -> ArrayImages:
    """Make the digits: 10 classes in ``backgrounds`` domains, all pairs equally frequent.

    Training and test images share neither a digit image (the last 50 of each class in file
    order are for testing, the 124 to 133 others for training) nor a pixel of photograph. A
    digit image serves several times, with another patch, colour, place and size. Equal
    arguments give equal images; another ``size`` gives the same scenes at another resolution,
    up to rounding.

    :param train: the training part, else the test part.
    :param size: height and width of the images in pixels, at least 8.
    :param samples: number of images; 4000 for training and 1000 for testing when None. Where
        it does not divide evenly, classes differ by one image and domains by at most two.
    :param backgrounds: number of domains, 1 to 5: pagoda, sky, bushes, petals, leaves.
    :param seed: decides on patches, colours, places, sizes and order, not on the split.
    :return: the images, their classes 0 to 9 and their domains 0 to ``backgrounds`` - 1.
    :raises UnknownOptionError: for a ``size`` or ``backgrounds`` out of range.
    :raises EmptyExperienceError: for ``samples`` below 1.

    Example::

        >>> from avalanche_branchtune.streams import digits_on_photographs
        >>> data = digits_on_photographs(samples=20, size=8, backgrounds=2)
        >>> data.images.shape, data[0][0].size
        ((20, 8, 8, 3), (8, 8))
        >>> [data.targets.count(digit) for digit in range(10)]
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
        >>> sorted(zip(data.targets, data.domains))[:4]
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    if size < 8:
        raise UnknownOptionError(
            f"digits_on_photographs(size=…): expected at least 8 pixels; got {size}"
        )
    if not 1 <= backgrounds <= len(REGIONS):
        known = [str(number + 1) for number in range(len(REGIONS))]
        raise expected_one_of("digits_on_photographs(backgrounds=…)", backgrounds, known)
    if samples is None:
        samples = TRAIN_SAMPLES if train else TEST_SAMPLES
    if samples < 1:
        raise EmptyExperienceError(
            f"digits_on_photographs(samples=…): expected at least 1 image; got {samples}"
        )
    rng = np.random.default_rng([seed, int(train)])
    order = rng.permutation(samples)
    targets = order % CLASSES
    domains = (order + order // CLASSES) % backgrounds
    strokes = _strokes(_digits(train, targets, rng), size, rng)
    images = np.empty((samples, size, size, 3), dtype=np.uint8)
    for domain, region in enumerate(REGIONS[:backgrounds]):
        members = np.flatnonzero(domains == domain)
        box = region.train if train else region.test
        patches = _patches(region.photograph, box, len(members), size, rng)
        digits = strokes[members, :, :, None] * _colours(patches, rng)[:, None, None, :]
        images[members] = np.round(255 * np.abs(patches - digits))
    return ArrayImages(images, targets.tolist(), domains.tolist())


def _digits(train: bool, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose a digit image for each target, each about as often: ``(N, 8, 8)`` in 0 to 1."""
    files = load_digits()
    chosen = np.empty((len(targets), 8, 8), dtype=np.float32)
    for label in range(CLASSES):
        pool = files.images[files.target == label] / 16
        pool = pool[:-TEST_DIGITS] if train else pool[-TEST_DIGITS:]
        members = np.flatnonzero(targets == label)
        rounds = 1 + len(members) // len(pool)
        draws = np.concatenate([rng.permutation(len(pool)) for _ in range(rounds)])
        chosen[members] = pool[draws[: len(members)]]
    return chosen


def _strokes(digits: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Scale each digit and place it in its image: ``(N, size, size)`` in 0 to 1."""
    count = len(digits)
    scale = rng.uniform(0.7, 1.0, (count, 1))  # side of the 8 x 8 square over that of the image
    shift = rng.uniform(-1.0, 1.0, (count, 2)) * (1 - scale)
    theta = np.zeros((count, 2, 3), dtype=np.float32)
    theta[:, [0, 1], [0, 1]] = 1 / scale
    theta[:, :, 2] = -shift / scale
    grid = affine_grid(torch.from_numpy(theta), [count, 1, size, size], align_corners=False)
    placed = grid_sample(torch.from_numpy(digits)[:, None], grid, align_corners=False)
    return np.asarray(placed[:, 0])


def _patches(
    photograph: str, box: Box, count: int, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Cut random squares from a box of a photograph: ``(count, size, size, 3)`` in 0 to 1."""
    left, top, right, bottom = box
    region = Image.fromarray(load_sample_image(photograph)[top:bottom, left:right])
    width, height = (side * size // PATCH for side in region.size)
    pixels = np.asarray(region.resize((width, height), Image.Resampling.BILINEAR)) / np.float32(255)
    squares = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(0, 1))
    rows, columns = (rng.random((count, 2)) * squares.shape[:2]).astype(np.int64).T
    return squares[rows, columns].transpose(0, 2, 3, 1)


def _colours(patches: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose the colour of each digit: ``(N, 3)`` in 0 to 1.

    Of eight random colours it is the one that changes the mean colour of the patch most: a
    digit twice as bright as the patch would vanish, since ``|p - 2p| = p``.
    """
    mean = patches.mean(axis=(1, 2))[:, None]
    candidates = rng.random((len(patches), 8, 3), dtype=np.float32)
    change = np.abs(np.abs(mean - candidates) - mean).sum(axis=2)
    return candidates[np.arange(len(patches)), change.argmax(axis=1)]
