"""Views of digits on photographs, small as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from solo_bridge.augmentation import Augmentation


def views(size: int) -> Augmentation:
    """Return how two views of a digit are made.

    :param size: side of the images in pixels.
    """
    return Augmentation(
        crop_size=size,
        crop_min_scale=0.5,  # a smaller share of 16 pixels shows no digit any more
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.5,  # less, and two views can be matched by the background's colour alone
        flip_prob=0.0,  # mirrored digits are others
        num_crops=2,
    )


def remembered(size: int, options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return how plugins see remembered digits: name → arguments.

    :param size: side of the images in pixels.
    :param options: of the plugins, as they were asked for.
    """
    crop = replace(views(size), jitter_prob=0.0, grayscale_prob=0.0)
    found = {"der": {"replay_view": crop}}
    if options.get("lump", {}).get("views") != "before_augmentation":
        found["lump"] = {"replay_view": crop}
    return found
