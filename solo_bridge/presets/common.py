"""What the presets share: CaSSLe's code, of which most of the others are forks.

Authors' code: DonkeyShot21/cassle b5b0929, cassle/methods/base.py (optimizer and schedule, their
defaults) and cassle/utils/pretrain_dataloader.py (CifarTransform, ImagenetTransform).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from solo_bridge.augmentation import Augmentation

WARMUP_COSINE: Mapping[str, Any] = MappingProxyType(
    {
        "momentum": 0.9,
        "scheduler": "warmup_cosine",
        "schedule_every": "epoch",
        "warmup_epochs": 10,
        "warmup_start_lr": 0.003,
        "min_lr": 0.0,
    }
)
"""The schedule: SGD's momentum, 10 epochs from 0.003 on, a step after each epoch."""

LARS: Mapping[str, Any] = MappingProxyType(
    {**WARMUP_COSINE, "eta": 0.02, "clip": True, "exclude_bias_and_norm": True, "trust": "branch"}
)
"""SGD wrapped in LARS."""

LARS_ON_ALL: Mapping[str, Any] = MappingProxyType({**LARS, "exclude_bias_and_norm": False})
"""The same where a script does not say ``--exclude_bias_n_norm``: LARS on bias and norms too."""

COSINE: Mapping[str, Any] = MappingProxyType(
    {"momentum": 0.9, "scheduler": "cosine", "schedule_every": "epoch", "min_lr": 0.0}
)
"""SGD, half a cosine and no warm-up."""

CIFAR = Augmentation(std=(0.247, 0.243, 0.261))
"""A view of CIFAR: crops of at least 8 %, jitter 0.4, 0.4, 0.2, 0.1 with 0.8, grey with 0.2."""

IMAGENET = Augmentation(
    crop_size=224, blur_prob=0.5, mean=(0.485, 0.456, 0.406), std=(0.228, 0.224, 0.225)
)
"""A view of ImageNet: with blur, unless a script says otherwise."""


def asymmetric(
    view: Augmentation, *, blur: tuple[float, float] = (0.0, 0.0)
) -> tuple[Augmentation, ...]:
    """Return two pipelines, of which the second solarises.

    :param view: what they share.
    :param blur: probability of blur in each.
    """
    one, other = blur
    return replace(view, blur_prob=one), replace(view, blur_prob=other, solarization_prob=0.2)


def strong(view: Augmentation) -> tuple[Augmentation, ...]:
    """Return one pipeline for two views, with jitter 0.8, 0.8, 0.8, 0.2.

    :param view: all but the jitter.
    """
    return (replace(view, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, num_crops=2),)


def close(view: Augmentation) -> tuple[Augmentation, ...]:
    """Return VICReg's pipeline for two views: crops of at least 20 %, solarisation 0.1.

    :param view: the rest.
    """
    return (replace(view, crop_min_scale=0.2, solarization_prob=0.1, num_crops=2),)


def saturated(view: Augmentation) -> tuple[Augmentation, ...]:
    """Return MoCo v2+'s pipeline for two views: jitter 0.4, 0.4, 0.4, 0.1.

    :param view: the rest.
    """
    return (replace(view, saturation=0.4, num_crops=2),)


def mlp(hidden: int, output: int, **more: Any) -> dict[str, Any]:
    """Return solo-learn's settings of a projector, and others.

    :param hidden: width of its hidden layers.
    :param output: width of the embeddings.
    :param more: further settings of the method.
    """
    return {"proj_hidden_dim": hidden, "proj_output_dim": output, **more}


BARLOW: Mapping[str, Any] = MappingProxyType(mlp(2048, 2048, lamb=0.005, scale_loss=0.1))
VICREG: Mapping[str, Any] = MappingProxyType(
    mlp(2048, 2048, sim_loss_weight=25.0, var_loss_weight=25.0, cov_loss_weight=1.0)
)


def swav(*, queue_starts: int, freeze: int) -> dict[str, Any]:
    """Return SwAV's settings.

    :param queue_starts: epoch from which the queue is used.
    :param freeze: epochs in which the prototypes stand still.
    """
    return mlp(
        2048,
        128,
        num_prototypes=3000,
        queue_size=3840,
        epoch_queue_starts=queue_starts,
        freeze_prototypes_epochs=freeze,
        temperature=0.1,
        sk_iters=3,
        sk_epsilon=0.05,
    )
