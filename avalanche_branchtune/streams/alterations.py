"""Data sets whose images look otherwise, each of them always the same: domains of one data set.

A light stroke on dark ground is a dark one on light ground once it is inverted, and still the same
class; :func:`~avalanche_branchtune.streams.altered_domains` makes a stream of such domains.
Most self-supervised methods train with grey and blurred views anyway, so that these two may be
nothing new to them.

Images keep their size (of a rotated one, width and height change places). Grey ones stay grey, all
others become RGB. Radii are relative to the shorter side, so that a scene is altered alike at any
resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from torch.utils.data import Dataset

from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.options import at_least, one_of
from avalanche_branchtune.streams.folders import eight_bit
from avalanche_branchtune.streams.labels import (
    Labels,
    MapDataset,
    class_names,
    find_labels,
    refuse_transform_groups,
)

__all__ = ["ALTERATIONS", "Alteration", "Altered", "altered"]

#: From an image of mode L or RGB, and random numbers of its own, to another of that mode.
Alteration = Callable[[Image.Image, np.random.Generator], Image.Image]

BLUR = 1 / 24
"""Standard deviation over the shorter side."""

SMOOTHING = 1 / 64
"""The same, before edges are looked for; else they are those of the grain in large images."""

NOISE = 0.1 * 255
"""Standard deviation; the strongest Gaussian noise of CIFAR-10-C (Hendrycks and Dietterich,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019;
``gaussian_noise`` in ``make_cifar_c.py``)."""


def _plain(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image


def _inverted(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.invert(image)


def _grey(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.convert("L").convert(image.mode)


def _blurred(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(BLUR * min(image.size)))


def _edges(image: Image.Image, _: np.random.Generator) -> Image.Image:
    smooth = image.filter(ImageFilter.GaussianBlur(SMOOTHING * min(image.size)))
    values = np.atleast_3d(np.asarray(smooth, dtype=np.float32))
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    down = padded[2:, 1:-1] - padded[:-2, 1:-1]
    right = padded[1:-1, 2:] - padded[1:-1, :-2]
    gradient = np.hypot(down, right).max(axis=2)  # of the channel where it is largest
    shown = np.round(gradient * (255 / max(gradient.max(), 1))).astype(np.uint8)
    return Image.fromarray(shown).convert(image.mode)


def _rotated(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.ROTATE_90)


def _noise(image: Image.Image, random: np.random.Generator) -> Image.Image:
    values = np.asarray(image)
    noisy = values + NOISE * random.standard_normal(values.shape, dtype=np.float32)
    return Image.fromarray(np.round(np.clip(noisy, 0, 255)).astype(np.uint8))


ALTERATIONS: dict[str, Alteration] = {
    "plain": _plain,
    "inverted": _inverted,
    "grey": _grey,
    "blurred": _blurred,
    "edges": _edges,
    "rotated": _rotated,
    "noise": _noise,
}
"""What :func:`altered` knows, by name."""


class Altered(Dataset[tuple[Any, ...]]):
    """Items ``(altered image, label)``, or ``(altered image,)``; see :func:`altered`.

    :param dataset: the data set.
    :param alteration: a name in :data:`ALTERATIONS`.
    :param labels: of the data set.
    :param seed: as for :func:`altered`.

    Example::

        >>> from PIL import Image
        >>> from avalanche_branchtune.streams.alterations import Altered
        >>> from avalanche_branchtune.streams.labels import Labels
        >>> pixel = Image.new("RGB", (1, 1), (0, 100, 255))
        >>> data = Altered([(pixel, 5)], "inverted", Labels(shown=[5], true=[5]))
        >>> data[0][0].getpixel((0, 0)), data[0][1], data.targets
        ((255, 155, 0), 5, [5])
    """

    def __init__(self, dataset: MapDataset, alteration: str, labels: Labels, seed: int = 0) -> None:
        """Wrap ``dataset``; no image is read."""
        self.dataset = dataset
        self.alteration = alteration
        self.seed = at_least(0, "altered(seed=…)", seed)
        self.targets, self.true_targets = labels
        self.classes = class_names(dataset) or []

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Read and alter the image at ``index``."""
        place = range(len(self))[index]  # the same noise for -1 as for the last one
        item = self.dataset[place]
        image, *others = item if isinstance(item, (tuple, list)) else [item]
        random = np.random.default_rng([self.seed, place])
        return ALTERATIONS[self.alteration](_grey_or_rgb(image), random), *others


def altered(dataset: MapDataset, alteration: str, *, seed: int = 0) -> Altered:
    """Change all images in one way, when they are read; each is always the same.

    - ``"plain"``: not at all;
    - ``"inverted"``: 255 - value;
    - ``"grey"``: the luminance. Of ``digits_on_photographs`` it hides some digits, which are as
      light as what is behind them and differ in colour alone;
    - ``"blurred"``: by a Gaussian of 1/24 of the shorter side;
    - ``"edges"``: the length of the gradient, the steepest of the image white, the colour gone. It
      is that of the channel where it is longest, so that edges between colours are found;
    - ``"rotated"``: by 90° to the left. By 180° a 6 would be a 9 under the label of a 6, while no
      digit that lies on its side is another;
    - ``"noise"``: with Gaussian noise of 0.1 of the range of values on each.

    :param dataset: the data set of PIL images, with labels or without; not an AvalancheDataset, as
        for :func:`hide_labels`.
    :param alteration: one of these names.
    :param seed: draws the noise, with the number of an image in ``dataset``: neither the order nor
        the process in which images are read changes it. Give test data another seed.
    :raises UnknownOptionError: for an unknown name, a negative seed or an AvalancheDataset; when an
        image that is read is no PIL image.
    :raises LabelError: when a label is no integer.

    Example::

        >>> import numpy as np
        >>> from avalanche_branchtune.streams import altered, digits_on_photographs
        >>> digits = digits_on_photographs(samples=20)
        >>> blurred = altered(digits, "blurred")
        >>> bool(np.std(blurred[3][0]) < np.std(digits[3][0])), blurred.targets == digits.targets
        (True, True)
        >>> altered(digits, "blured")
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...got 'blured'; did you mean blurred?
    """
    refuse_transform_groups("altered", dataset)
    one_of("altered(alteration=…)", alteration, tuple(ALTERATIONS))
    return Altered(dataset, alteration, find_labels(dataset), seed)


def _grey_or_rgb(image: Any) -> Image.Image:
    if not isinstance(image, Image.Image):
        raise UnknownOptionError(
            f"altered(dataset=…): expected PIL images; got {type(image).__name__}. Give the data "
            "set without its transform to altered and the transform to the scenario"
        )
    return image if image.mode in ("L", "RGB") else eight_bit(image).convert("RGB")
