"""LUMP: Madaan et al., "Representational Continuity for Unsupervised Continual Learning", arXiv
2110.06976.

Authors' code: divyam3897/UCL cfaa81d, configs/simsiam_c10.yaml and barlow_c10.yaml,
models/{simsiam,barlowtwins}.py and augmentations/simsiam_aug.py.  The files describe a warm-up and
a cosine; but nothing in that commit steps the schedule (models/utils/continual_model.py makes it,
models/mixup.py and main.py never call it), so the learning rate stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from solo_bridge.augmentation import Augmentation
from solo_bridge.presets.common import mlp
from solo_bridge.presets.preset import MethodPreset, Preset

_VIEWS = (
    Augmentation(crop_min_scale=0.2, saturation=0.4, num_crops=2, std=(0.247, 0.2435, 0.2615)),
)
_SGD: Mapping[str, Any] = MappingProxyType({"momentum": 0.9, "scheduler": "none"})

CIFAR10 = Preset(
    name="lump/cifar10",
    title='LUMP (Madaan et al., "Representational Continuity for Unsupervised …")',
    arxiv="2110.06976",
    repository="divyam3897/UCL",
    commit="cfaa81d",
    methods={
        "barlow_twins": MethodPreset(
            "configs/barlow_c10.yaml",
            mlp(2048, 2048, lamb=0.005, scale_loss=1.0),
            _VIEWS,
            0.03,
            5e-4,
            "sgd",
            _SGD,
        ),
        "simsiam": MethodPreset(
            "configs/simsiam_c10.yaml",
            mlp(2048, 2048, pred_hidden_dim=512),
            _VIEWS,
            0.03,
            5e-4,
            "sgd",
            _SGD,
        ),
    },
    data="CIFAR-10",
    image_size=32,
    num_classes=10,
    experiences=5,
    train_epochs=200,
    train_mb_size=256,
    precision="32",
    strategies=("fine_tuning", "lump", "joint"),
    plugins={"lump": {"memory": 256, "alpha": 0.4}},
    notes=(
        "Their configurations ask for a warm-up and a cosine, which their code never steps: the "
        "learning rate is 0.03 throughout.",
        "Their classes are in order, two to an experience: not shuffled.",
        "The published accuracies are kNN's, with the experience of a test image given.",
    ),
)
