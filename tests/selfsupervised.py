"""A small self-supervised continual run, shared by the bridge's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune.streams import ArrayImages, class_incremental, digits_on_photographs
from solo_bridge import (
    Augmentation,
    EvalTransform,
    SelfSupervised,
    SelfSupervisedMethod,
    SoloMethod,
    available_methods,
)

METHODS = ("barlow_twins", "byol", "simclr")
"""One method of each kind: redundancy reduction, momentum network, contrast."""

ALL_METHODS = tuple(n for n, problem in available_methods().items() if problem is None)
_PREDICTOR = {"pred_hidden_dim": 16}
_QUEUE = {"queue_size": 40}
_OF_METHOD: dict[str, dict[str, Any]] = {
    "all4one": {**_PREDICTOR, **_QUEUE},
    "byol": _PREDICTOR,
    "deepclusterv2": {"num_prototypes": [5, 5], "kmeans_iters": 2},
    "dino": {"num_prototypes": 12, "warmup_teacher_temperature_epochs": 1},
    "mae": {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2},
    "mocov2plus": _QUEUE,
    "mocov3": _PREDICTOR,
    "nnbyol": {**_PREDICTOR, **_QUEUE},
    "nnclr": {**_PREDICTOR, **_QUEUE},
    "nnsiam": {**_PREDICTOR, **_QUEUE},
    "ressl": _QUEUE,
    "simsiam": _PREDICTOR,
    "swav": {"num_prototypes": 6, "epoch_queue_starts": 1, "freeze_prototypes_epochs": 1, **_QUEUE},
    "wmse": {"whitening_size": 20},
}


def small(name: str) -> dict[str, Any]:
    """solo-learn's settings of a method, as small as it goes."""
    sizes = {} if name == "mae" else {"proj_hidden_dim": 16, "proj_output_dim": 8}
    return {**sizes, **_OF_METHOD.get(name, {})}


def small_options(spec: str, remembered: int = 4) -> dict[str, dict[str, Any]]:
    """Arguments of a specification's plugins, as small as they go.

    :param remembered: samples that replay adds to a minibatch.
    """
    quiet, narrow = {"verbose": False}, {"hidden": 16}
    replay = {"size": 40, "batch_size_mem": remembered}
    known: dict[str, dict[str, Any]] = {
        **dict.fromkeys(("branch_tuning", "clr", "fixed_norms", "kappatune"), quiet),
        **dict.fromkeys(("cassle", "pfr"), narrow),
        "der": {"memory": 20, "batch_size": 10},
        "kaizen": {"hidden": 16, "classifier_hidden": 16},
        "lump": {"memory": 20},
        "periodic": {"every": 2, "steps": 1},
        **dict.fromkeys(("replay", "replay_class_balanced", "replay_min_redundancy"), replay),
        "replay_first_per_class": {"batch_size_mem": remembered},
    }
    return {name: known[name] for name in spec.split("+") if name in known}


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


def small_backbone(name: str) -> str | nn.Module:
    """MAE works on solo-learn's own vision transformers only."""
    return "vit_tiny" if name == "mae" else backbone()


def method(name: str = "simclr", seed: int = 0, **settings: Any) -> SoloMethod:
    torch.manual_seed(seed)
    views = replace(VIEW, num_crops=1) if name == "mae" else VIEW
    options: dict[str, Any] = {"image_size": 8, "num_classes": 10, "augmentations": [views]}
    options.update(small(name))
    options.update(settings)
    return SoloMethod(name, options.pop("backbone", None) or small_backbone(name), **options)


BACKBONE = next(n for m in [method()] for n, part in m.named_modules() if part is m.backbone)
"""Name of the backbone in a SoloMethod, which depends on solo-learn's generation."""


@cache
def _digits(train: bool, samples: int) -> ArrayImages:
    return digits_on_photographs(train, size=8, samples=samples, seed=int(not train))


def data(samples: int = 100, train: bool = True) -> ArrayImages:
    """Digits, drawn once for all tests; each gets lists and pixels of its own."""
    return _digits(train, samples).subset(range(samples))


def stream(n_experiences: int = 2, train: Any = None) -> Any:
    return class_incremental(
        data() if train is None else train,
        data(train=False),
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


class Bare(SelfSupervisedMethod):
    """A method with neither backbone nor forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = backbone()

    def loss(self, views: Any) -> Tensor:
        a, b = (self.net(v) for v in views)
        return (a - b).square().mean() + (a.std(0) - 1).square().mean()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([v.detach().double().flatten() for v in model.state_dict().values()])
