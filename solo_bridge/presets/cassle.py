"""CaSSLe: Fini et al., "Self-Supervised Models are Continual Learners", arXiv 2112.04215.

Authors' code: DonkeyShot21/cassle b5b0929, bash_files/continual/cifar/…_distill.sh and
bash_files/continual/imagenet-100/class/…_distill.sh; what these leave open: the defaults in
cassle/methods/*.py and cassle/args/*.py.  Their fine-tuning scripts have the same settings.

There is no script for MoCo v2+ on CIFAR-100: Branch-tuning's authors have one, see
``branch_tuning/cifar100``.  SupCon on ImageNet-100 learns from labels and is not here.
"""

from __future__ import annotations

from dataclasses import replace

from solo_bridge.presets.common import (
    BARLOW,
    CIFAR,
    COSINE,
    IMAGENET,
    LARS,
    LARS_ON_ALL,
    VICREG,
    asymmetric,
    close,
    mlp,
    saturated,
    strong,
    swav,
)
from solo_bridge.presets.preset import MethodPreset, Preset

_CIFAR = "bash_files/continual/cifar"
_CLASS = "bash_files/continual/imagenet-100/class"
CLASSIFIES = (
    "On CIFAR-100 their code sends labelled images of all experiences through the network in "
    "training mode, for the online classifier: its BatchNorm statistics have seen all of them."
)
SHUFFLED = "Their classes are shuffled into experiences by torch.randperm after seed 5."
"""Of all forks of this code."""

CIFAR100 = Preset(
    name="cassle/cifar100",
    title='CaSSLe (Fini et al., "Self-Supervised Models are Continual Learners")',
    arxiv="2112.04215",
    repository="DonkeyShot21/cassle",
    commit="b5b0929",
    methods={
        "barlow_twins": MethodPreset(
            f"{_CIFAR}/barlow_distill.sh", BARLOW, asymmetric(CIFAR), 0.3, 1e-4, "lars", LARS
        ),
        "byol": MethodPreset(
            f"{_CIFAR}/byol_distill.sh",
            mlp(4096, 256, pred_hidden_dim=4096),
            asymmetric(CIFAR),
            1.0,
            1e-5,
            "lars",
            LARS,
            tau=(0.99, 1.0),
        ),
        "simclr": MethodPreset(
            f"{_CIFAR}/simclr_distill.sh",
            mlp(2048, 256, temperature=0.2),
            strong(CIFAR),
            0.4,
            1e-5,
            "lars",
            LARS,
        ),
        "swav": MethodPreset(
            f"{_CIFAR}/swav_distill.sh",
            swav(queue_starts=50, freeze=2),
            strong(CIFAR),
            0.6,
            1e-6,
            "lars",
            {**LARS_ON_ALL, "min_lr": 6e-4},
        ),
        "vicreg": MethodPreset(
            f"{_CIFAR}/vicreg_distill.sh", VICREG, close(CIFAR), 0.3, 1e-4, "lars", LARS
        ),
    },
    data="CIFAR-100",
    image_size=32,
    num_classes=100,
    experiences=5,
    train_epochs=500,
    train_mb_size=256,
    precision="16",
    strategies=("fine_tuning", "cassle", "joint"),
    plugins={"cassle": {"hidden": 2048}},
    notes=(CLASSIFIES, "The published accuracies are that online classifier's.", SHUFFLED),
)

IMAGENET100 = replace(
    CIFAR100,
    name="cassle/imagenet100",
    methods={
        "barlow_twins": MethodPreset(
            f"{_CLASS}/barlow_distill.sh",
            BARLOW,
            asymmetric(IMAGENET, blur=(1.0, 0.1)),
            0.4,
            1e-4,
            "lars",
            LARS,
        ),
        "byol": MethodPreset(
            f"{_CLASS}/byol_distill.sh",
            mlp(4096, 256, pred_hidden_dim=8192),
            asymmetric(IMAGENET, blur=(1.0, 0.1)),
            0.6,
            1e-5,
            "lars",
            LARS,
            tau=(0.99, 1.0),
        ),
        "mocov2plus": MethodPreset(
            f"{_CLASS}/mocov2plus_distill.sh",
            mlp(2048, 128, temperature=0.2, queue_size=65536),
            saturated(IMAGENET),
            0.4,
            1e-4,
            "sgd",
            COSINE,
            tau=(0.99, 0.999),
        ),
        "simclr": MethodPreset(
            f"{_CLASS}/simclr_distill.sh",
            mlp(2048, 128, temperature=0.2),
            strong(IMAGENET),
            0.4,
            1e-4,
            "lars",
            LARS,
        ),
        "swav": MethodPreset(
            f"{_CLASS}/swav_distill.sh",
            swav(queue_starts=100, freeze=5),
            strong(IMAGENET),
            0.8,
            1e-6,
            "lars",
            {**LARS, "min_lr": 6e-4},
        ),
        "vicreg": MethodPreset(
            f"{_CLASS}/vicreg_distill.sh", VICREG, close(IMAGENET), 0.4, 1e-4, "lars", LARS
        ),
    },
    data="ImageNet-100",
    image_size=224,
    train_epochs=400,
    notes=(
        "Theirs are two GPUs with 128 images each and synchronised BatchNorm: 256 on one here.",
        "Their images are loaded and augmented by NVIDIA's DALI, ours by torchvision.",
        SHUFFLED,
    ),
)
