"""Settings of solo-learn's augmentation pipelines, the same for every generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from avalanche_branchtune.options import at_least_one, between, fraction, not_negative, positive

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Channel statistics of CIFAR-10's training images, in [0, 1].

Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/data/pretrain_dataloader.py,
build_transform_pipeline.
"""


@dataclass(frozen=True)
class Augmentation:
    """Settings of one of solo-learn's augmentation pipelines.

    :param crop_size: side of the view in pixels.
    :param crop_min_scale: smallest share of the image's area in a crop.
    :param crop_max_scale: largest share.
    :param jitter_prob: probability of colour jitter.
    :param brightness: jitter of the brightness.
    :param contrast: jitter of the contrast.
    :param saturation: jitter of the saturation.
    :param hue: jitter of the hue.
    :param grayscale_prob: probability of dropping the colours.
    :param blur_prob: probability of Gaussian blur.
    :param solarization_prob: probability of solarisation.
    :param equalization_prob: probability of equalisation (solo-learn's main branch only).
    :param flip_prob: probability of a horizontal flip.
    :param num_crops: number of views that this pipeline makes of an image.
    :param mean: channel means that are subtracted.
    :param std: channel deviations that are divided by.
    """

    crop_size: int = 32
    crop_min_scale: float = 0.08
    crop_max_scale: float = 1.0
    jitter_prob: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale_prob: float = 0.2
    blur_prob: float = 0.0
    solarization_prob: float = 0.0
    equalization_prob: float = 0.0
    flip_prob: float = 0.5
    num_crops: int = 1
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def __post_init__(self) -> None:
        """Refuse what no pipeline can do, as it was typed."""
        for name in ("crop_size", "num_crops"):
            at_least_one(f"Augmentation({name}=…)", getattr(self, name))
        for field in fields(self):
            if field.name.endswith("_prob"):
                between(0, 1, f"Augmentation({field.name}=…)", getattr(self, field.name))
        for name in ("brightness", "contrast", "saturation"):
            not_negative(f"Augmentation({name}=…)", getattr(self, name))
        between(0, 0.5, "Augmentation(hue=…)", self.hue)
        fraction("Augmentation(crop_min_scale=…)", self.crop_min_scale)
        between(self.crop_min_scale, 1, "Augmentation(crop_max_scale=…)", self.crop_max_scale)
        for deviation in self.std:
            positive("Augmentation(std=…)", deviation)


def resized(augmentations: Sequence[Augmentation], size: int) -> list[Augmentation]:
    """Return pipelines with another view size.

    :param augmentations: the pipelines.
    :param size: side in pixels.
    :return: new settings.
    """
    return [replace(a, crop_size=size) for a in augmentations]
