"""PFR: Gomez-Villa et al., "Continually Learning Self-Supervised Representations with Projected
Functional Regularization", arXiv 2112.15022.

Authors' code: alviur/CVPR_PFR b95f701 (a fork of CaSSLe's code),
bash_files/continual/cifar/pfr_distill.sh and cassle/distillers/pfr.py.  Barlow Twins is the only
method with a script; that of the first experience, barlow.sh, trains 2 epochs, presumably a trial.
"""

from __future__ import annotations

from dataclasses import replace

from solo_bridge.presets import cassle

CIFAR100 = replace(
    cassle.CIFAR100,
    name="pfr/cifar100",
    title='PFR (Gomez-Villa et al., "… with Projected Functional Regularization")',
    arxiv="2112.15022",
    repository="alviur/CVPR_PFR",
    commit="b95f701",
    methods={
        "barlow_twins": replace(
            cassle.CIFAR100.methods["barlow_twins"],
            script="bash_files/continual/cifar/pfr_distill.sh",
        )
    },
    strategies=("fine_tuning", "pfr", "joint"),
    plugins={"pfr": {"weight": 1.0, "hidden": 256}},
    notes=(
        "The predictor's hidden width is half of ResNet-18's 512.",
        cassle.CLASSIFIES,
        cassle.SHUFFLED,
    ),
)
