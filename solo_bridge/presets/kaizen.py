"""Kaizen: Tang et al., "Kaizen: Practical Self-supervised Continual Learning …", arXiv 2303.17235.

Authors' code: dr-bell/kaizen e36ee54 (a fork of CaSSLe's code),
bash_files/…_cifar_distill_classifier_l1000_soft_label_replay_0.01_b32.sh; what these leave open:
the defaults in kaizen/methods/*.py, as SimCLR's temperature of 0.1.
Differs: their script for MoCo v2+ trains 2 epochs, presumably a trial; ours 500, as the paper.
"""

from __future__ import annotations

from dataclasses import replace

from solo_bridge.presets import cassle
from solo_bridge.presets.common import CIFAR, LARS, asymmetric, mlp
from solo_bridge.presets.preset import MethodPreset

_SCRIPTS = "bash_files/{}_cifar_distill_classifier_l1000_soft_label_replay_0.01_b32.sh"

CIFAR100 = replace(
    cassle.CIFAR100,
    name="kaizen/cifar100",
    title='Kaizen (Tang et al., "Kaizen: Practical Self-supervised Continual Learning …")',
    arxiv="2303.17235",
    repository="dr-bell/kaizen",
    commit="e36ee54",
    methods={
        "byol": replace(cassle.CIFAR100.methods["byol"], script=_SCRIPTS.format("byol")),
        "mocov2plus": MethodPreset(
            _SCRIPTS.format("mocov2plus"),
            mlp(2048, 256, temperature=0.2, queue_size=65536),
            asymmetric(CIFAR),
            1.0,
            1e-5,
            "lars",
            LARS,
            tau=(0.99, 0.999),
        ),
        "simclr": MethodPreset(
            _SCRIPTS.format("simclr"),
            mlp(4096, 256, temperature=0.1),
            asymmetric(CIFAR),
            1.0,
            1e-5,
            "lars",
            LARS,
        ),
        "vicreg": replace(
            cassle.CIFAR100.methods["vicreg"],
            script=_SCRIPTS.format("vicreg"),
            plugins={"kaizen": {"classifier_lr": 0.05}},
        ),
    },
    strategies=("fine_tuning", "cassle", "kaizen", "kaizen+replay_first_per_class", "joint"),
    plugins={
        **cassle.CIFAR100.plugins,
        "kaizen": {
            "hidden": 2048,
            "classifier_weight": 2.0,
            "classifier_hidden": 1000,
            "classifier_lr": 0.1,
        },
        "replay_first_per_class": {"batch_size_mem": 32},
    },
    notes=(
        "Their online evaluation sends images of the experiences seen through the network in "
        "training mode, which moves its BatchNorm statistics.",
        "The published accuracies are the continually trained classifier's.",
        "With replay a minibatch has 256 new images and 32 replayed ones.",
        cassle.SHUFFLED,
    ),
)
