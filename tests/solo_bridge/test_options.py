"""Choices are checked when they are made, and named as they were typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from avalanche_branchtune.errors import UnknownOptionError, ViewsError
from avalanche_branchtune.streams import data_incremental
from solo_bridge import Augmentation
from solo_bridge.plugins import CaSSLePlugin, KaizenPlugin, L2Plugin, NaPPlugin, PFRPlugin
from solo_bridge.views import to_rgb
from tests.selfsupervised import method, strategy

NAN = float("nan")
BAD: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (Augmentation, {"crop_size": 0}, r"Augmentation\(crop_size=…\).*got 0"),
    (Augmentation, {"num_crops": 0}, r"num_crops=….*at least 1; got 0"),
    (Augmentation, {"jitter_prob": 1.5}, r"jitter_prob=….*0 to 1; got 1.5"),
    (Augmentation, {"blur_prob": NAN}, r"blur_prob=….*got nan"),
    (Augmentation, {"hue": 0.6}, r"hue=….*0 to 0.5; got 0.6"),
    (Augmentation, {"brightness": -1}, r"brightness=….*got -1"),
    (Augmentation, {"crop_min_scale": 0}, r"crop_min_scale=….*got 0"),
    (Augmentation, {"crop_min_scale": 0.5, "crop_max_scale": 0.2}, r"crop_max_scale=….*got 0.2"),
    (Augmentation, {"std": (1.0, 0.0, 1.0)}, r"std=….*got 0.0"),
    (method, {"proj_hidden_dim": 0}, r"SoloMethod\(proj_hidden_dim=…\).*got 0"),
    (method, {"temperature": 0.0}, r"temperature=….*got 0.0"),
    (method, {"image_size": 0}, r"image_size=….*got 0"),
    (method, {"num_classes": 0}, r"num_classes=….*got 0"),
    (method, {"large_views": 0}, r"large_views=….*got 0"),
    (method, {"tau": (0.9, 1.1)}, r"tau=….*got 1.1"),
    (strategy, {"lr": -1.0}, r"SelfSupervised\(lr=…\).*got -1.0"),
    (strategy, {"lr": float("inf")}, r"lr=….*got inf"),
    (strategy, {"weight_decay": -0.1}, r"weight_decay=….*got -0.1"),
    (strategy, {"train_epochs": 0}, r"train_epochs=….*got 0"),
    (strategy, {"train_epochs": -1}, r"train_epochs=….*got -1"),
    (strategy, {"eval_mb_size": -5}, r"eval_mb_size=….*got -5"),
    (strategy, {"optimizer_settings": {"momentum": -1.0}}, r"momentum=….*got -1.0"),
    (CaSSLePlugin, {"weight": -1.0}, r"CaSSLePlugin\(weight=…\).*got -1.0"),
    (CaSSLePlugin, {"hidden": 0}, r"CaSSLePlugin\(hidden=…\).*got 0"),
    (PFRPlugin, {"hidden": 1.5}, r"PFRPlugin\(hidden=…\).*got 1.5"),
    (KaizenPlugin, {"classifier_lr": NAN}, r"classifier_lr=….*got nan"),
    (KaizenPlugin, {"num_classes": -1}, r"num_classes=….*got -1"),
    (L2Plugin, {"weight": -1.0}, r"L2Plugin\(weight=…\).*got -1.0"),
    (NaPPlugin, {"affine_decay": 2.0}, r"affine_decay=….*0 to 1; got 2.0"),
]


@pytest.mark.parametrize(
    ("make", "options", "message"), BAD, ids=lambda case: getattr(case, "__name__", str(case))[:60]
)
def test_refused_when_built(
    make: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        make(**options)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_sample_without_views_is_named(workers: int) -> None:
    images = torch.rand(40, 3, 8, 8)
    images[17, 1, 2, 3] = float("nan")
    data = TensorDataset(images, torch.zeros(40, dtype=torch.long))
    data.targets = [0] * 40
    run = strategy(train_epochs=1)
    with pytest.raises(ViewsError, match=r"^sample 17 of experience 0: .* not finite \(NaN\)"):
        run.train(data_incremental(data, data, 1).train_stream[0], num_workers=workers)


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    values = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    for mode in ("I;16", "I"):
        picture = Image.fromarray(values)
        picture = picture if picture.mode == mode else picture.convert(mode)
        got = np.asarray(to_rgb(picture))[..., 0].astype(int)
        assert np.abs(got - values / 257).max() <= 1, mode
    with pytest.raises(ViewsError, match="mode F with values"):
        to_rgb(Image.fromarray(values.astype(np.float32)))
