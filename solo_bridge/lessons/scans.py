"""The stream and the network of the lessons: a laptop trains them in seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from avalanche_branchtune.streams import ArrayImages, class_incremental, hide_labels
from avalanche_branchtune.streams.digits import CLASSES, TEST_DIGITS
from solo_bridge.augmentation import Augmentation
from solo_bridge.backbones import small_resnet
from solo_bridge.method import SoloMethod
from solo_bridge.views import EvalTransform

SIZE = 8
"""Side of the scans in pixels."""

VIEWS = Augmentation(
    crop_size=SIZE,
    crop_min_scale=0.5,  # a smaller share of 8 pixels shows no digit any more
    brightness=0.8,
    contrast=0.8,
    saturation=0.0,  # the scans are grey
    hue=0.0,
    grayscale_prob=0.0,
    flip_prob=0.0,  # mirrored digits are others
    num_crops=2,
)
"""How two views of a scan are made."""

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
    """
    train: Any = scanned_digits()
    if labelled < 1:
        train = hide_labels(train, 1 - labelled)
    return class_incremental(
        train,
        scanned_digits(False),
        n_experiences,
        train_transform=train_transform,
        eval_transform=EvalTransform(SIZE),
        class_order=range(CLASSES),
    )


def simclr(seed: int = 0, width: int = 8) -> SoloMethod:
    """Return SimCLR on a small ResNet, with fresh weights.

    :param seed: of the weights, and of all that is drawn after it.
    :param width: channels of the network's first block; its features have four times as many.
    """
    torch.manual_seed(seed)
    return SoloMethod(
        "simclr",
        small_resnet(width),
        image_size=SIZE,
        num_classes=CLASSES,
        proj_hidden_dim=256,
        proj_output_dim=128,
        augmentations=[VIEWS],
    )
