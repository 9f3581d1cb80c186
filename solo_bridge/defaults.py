"""Settings that each method starts from; every one can be overridden.

Method, optimizer and temperature: the runs of Liu et al., arXiv 2403.18266
(CIFAR-100, ResNet-18, batch 256); augmentations: the same, else solo-learn's
pipelines for CIFAR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from solo_bridge.augmentation import Augmentation


@dataclass(frozen=True)
class Defaults:
    """Where a method starts from.

    :param method_kwargs: solo-learn's own settings of the method.
    :param lr: learning rate for a batch of 256.
    :param weight_decay: weight decay.
    :param augmentations: pipelines of the views.
    :param tau: first and last decay of the momentum network.
    :param small_views: whether the method can compare small views too.
    """

    method_kwargs: Mapping[str, Any]
    lr: float
    weight_decay: float
    augmentations: tuple[Augmentation, ...]
    tau: tuple[float, float] = (0.99, 1.0)
    small_views: bool = field(default=False)


_STRONG = Augmentation(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, num_crops=2)
_ASYMMETRIC = (Augmentation(), Augmentation(solarization_prob=0.2))

DEFAULTS: Mapping[str, Defaults] = MappingProxyType(
    {
        "barlow_twins": Defaults(
            {"proj_hidden_dim": 2048, "proj_output_dim": 2048, "lamb": 0.005, "scale_loss": 0.1},
            lr=0.3,
            weight_decay=1e-4,
            augmentations=_ASYMMETRIC,
        ),
        "byol": Defaults(
            {"proj_hidden_dim": 4096, "proj_output_dim": 256, "pred_hidden_dim": 4096},
            lr=1.0,
            weight_decay=1e-5,
            augmentations=_ASYMMETRIC,
            small_views=True,
        ),
        "simclr": Defaults(
            {"proj_hidden_dim": 2048, "proj_output_dim": 256, "temperature": 0.2},
            lr=0.4,
            weight_decay=1e-5,
            augmentations=(_STRONG,),
            small_views=True,
        ),
    }
)
"""By solo-learn's name of the method."""
