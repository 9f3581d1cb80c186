"""Streams and a network that a laptop trains in seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from avalanche_branchtune.options import fraction
from avalanche_branchtune.streams import (
    ArrayImages,
    class_incremental,
    digits_on_photographs,
    hide_labels,
)
from avalanche_branchtune.streams.digits import CLASSES, TEST_DIGITS
from solo_bridge.augmentation import Augmentation
from solo_bridge.backbones import small_resnet
from solo_bridge.comparison import digits
from solo_bridge.method import SoloMethod
from solo_bridge.views import EvalTransform

SCANS = replace(digits.views(8), saturation=0.0, hue=0.0, grayscale_prob=0.0)
"""How two views of a scan are made: it is grey, and 8 pixels wide."""

PHOTOGRAPHS = digits.views(12)
"""The same of a digit on a photograph, 12 pixels wide."""

LAPTOP: dict[str, Any] = {
    "views": "batched",
    "optimizer": "sgd",
    "lr": 0.5,
    "weight_decay": 5e-4,
    "train_mb_size": 64,
    "reproducible_views": True,
    "evaluator": None,
}
"""Settings of :class:`~solo_bridge.SelfSupervised`, but for the epochs and plugins."""


def scanned_digits(train: bool = True) -> ArrayImages:
    """Return the handwritten digits that scikit-learn ships, as RGB images of 8 × 8 pixels.

    "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI machine learning
    repository, 1998), its test part: 1797 scans.  Of each class the last 50 are for testing here.

    :param train: the 1297 for training, else the 500 for testing.
    """
    files = load_digits()
    testing = np.zeros(len(files.target), dtype=bool)
    for label in range(CLASSES):
        testing[np.flatnonzero(files.target == label)[-TEST_DIGITS:]] = True
    chosen = ~testing if train else testing
    grey = np.round(files.images[chosen] * (255 / 16)).astype(np.uint8)
    targets = files.target[chosen].tolist()
    return ArrayImages(np.stack([grey] * 3, axis=-1), targets, [0] * len(targets))


def digit_stream(
    n_experiences: int = 5,
    *,
    labelled: float = 1.0,
    train_transform: Callable[[Any], Any] | None = None,
) -> Any:
    """Return a class-incremental stream of the scans: the digits come in their order, 0 first.

    :param n_experiences: a divisor of 10.
    :param labelled: share of the training images that keep their label; the others have −1.
    :param train_transform: of the training images; None leaves it to the strategy.
    :raises UnknownOptionError: unless ``labelled`` is above 0 and at most 1.
    """
    train: Any = scanned_digits()
    if fraction("digit_stream(labelled=…)", labelled) < 1:
        train = hide_labels(train, 1 - labelled)
    return class_incremental(
        train,
        scanned_digits(False),
        n_experiences,
        train_transform=train_transform,
        eval_transform=EvalTransform(SCANS.crop_size),
        class_order=range(CLASSES),
    )


def photograph_stream(n_experiences: int = 5) -> Any:
    """Return a class-incremental stream of 2000 digits on photographs, in the digits' order.

    They are harder than the scans: what a network has learnt of some says less of the others.

    :param n_experiences: a divisor of 10.
    """
    size = PHOTOGRAPHS.crop_size
    return class_incremental(
        digits_on_photographs(True, size=size, samples=2000),
        digits_on_photographs(False, size=size),
        n_experiences,
        eval_transform=EvalTransform(size),
        class_order=range(CLASSES),
    )


def simclr(seed: int = 0, views: Augmentation = SCANS) -> SoloMethod:
    """Return SimCLR on a small ResNet with 32 features, with fresh weights.

    :param seed: of the weights, and of all that is drawn after it.
    :param views: how they are made, :data:`SCANS` or :data:`PHOTOGRAPHS`.
    """
    torch.manual_seed(seed)
    return SoloMethod(
        "simclr",
        small_resnet(8),
        image_size=views.crop_size,
        num_classes=CLASSES,
        proj_hidden_dim=256,
        proj_output_dim=128,
        augmentations=[views],
    )
