"""Branch-tuning: Liu, Zhu, Liu, arXiv 2403.18266.

Authors' code: SmallPigPeppa/ISSL 37827a5 (branch v1.0-reparm-add-bn-rm-bn-cka-fixbug, a fork of
CaSSLe's code), bash_files/continual/cifar/…_reparam_fixbn_1x3.sh.  Those for five of the methods
say what CaSSLe's say; but the optimizer's weight decay is 0 whatever they say
(cassle/methods/base.py, configure_optimizers).
"""

from __future__ import annotations

from dataclasses import replace

from solo_bridge.presets import cassle
from solo_bridge.presets.common import CIFAR, LARS_ON_ALL, mlp, saturated
from solo_bridge.presets.preset import MethodPreset

_SCRIPTS = "bash_files/continual/cifar/{}_reparam_fixbn_1x3.sh"

CIFAR100 = replace(
    cassle.CIFAR100,
    name="branch_tuning/cifar100",
    title='Branch-tuning (Liu, Zhu, Liu, "Branch-Tuning: Balancing Stability and Plasticity …")',
    arxiv="2403.18266",
    repository="SmallPigPeppa/ISSL",
    commit="37827a5",
    methods={
        **{
            name: replace(
                run, script=_SCRIPTS.format(name.removesuffix("_twins")), weight_decay=0.0
            )
            for name, run in cassle.CIFAR100.methods.items()
        },
        "mocov2plus": MethodPreset(
            _SCRIPTS.format("mocov2plus"),
            mlp(2048, 128, temperature=0.2, queue_size=65536),
            saturated(CIFAR),
            0.3,
            0.0,
            "lars",
            LARS_ON_ALL,
            tau=(0.99, 0.999),
        ),
    },
    strategies=("fine_tuning", "branch_tuning", "cassle", "branch_tuning+cassle", "joint"),
    plugins={
        "branch_tuning": {"branch": "1x3+3x1", "norm_mode": "affine"},
        **cassle.CIFAR100.plugins,
    },
    notes=(
        "Their scripts say weight decay 1e-4 to 1e-6; their code gives the optimizer 0.",
        "Which probe the published accuracies are of is not said: their fine-tuning, CaSSLe and "
        "joint columns are those of CaSSLe's and solo-learn's tables, by online classifiers.",
        cassle.CLASSIFIES,
        cassle.SHUFFLED,
    ),
)
