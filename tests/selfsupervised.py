"""A small self-supervised continual run, shared by the bridge's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune.streams import ArrayImages, class_incremental, digits_on_photographs
from solo_bridge import Augmentation, EvalTransform, SelfSupervised, SoloMethod

METHODS = ("barlow_twins", "byol", "simclr")
SMALL = {"proj_hidden_dim": 16, "proj_output_dim": 8}
VIEW = Augmentation(crop_size=8, crop_min_scale=0.5, num_crops=2)


def backbone(width: int = 8) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def method(name: str = "simclr", seed: int = 0, **settings: Any) -> SoloMethod:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"image_size": 8, "num_classes": 10, "augmentations": [VIEW], **SMALL}
    if name == "byol":
        options["pred_hidden_dim"] = 16
    options.update(settings)
    return SoloMethod(name, options.pop("backbone", None) or backbone(), **options)


def data(samples: int = 100) -> ArrayImages:
    return digits_on_photographs(True, size=8, samples=samples, seed=0)


def stream(n_experiences: int = 2, train: Any = None) -> Any:
    return class_incremental(
        data() if train is None else train,
        digits_on_photographs(False, size=8, samples=100, seed=1),
        n_experiences,
        eval_transform=EvalTransform(8),
    )


def strategy(model: Any = None, plugins: Sequence[Any] = (), **settings: Any) -> SelfSupervised:
    options: dict[str, Any] = {
        "train_mb_size": 20,
        "train_epochs": 2,
        "plugins": list(plugins),
        "evaluator": None,
        "optimizer": "sgd",
        "lr": 1.0,
    }
    options.update(settings)
    return SelfSupervised(method() if model is None else model, **options)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([v.detach().double().flatten() for v in model.state_dict().values()])
