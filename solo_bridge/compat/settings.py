"""What a solo-learn method is built from and described by, in no generation's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class MethodSettings:
    """What a solo-learn method is built from.

    :param backbone: name of one of solo-learn's backbones, or a module that
        maps ``(N, C, H, W)`` to ``(N, num_features)`` and says ``num_features``.
    :param cifar_stem: 3×3 first convolution, stride 1, no max-pool (ResNets only).
    :param num_classes: classes of solo-learn's online classifier, which is not trained here.
    :param large_views: number of full-size views.
    :param small_views: number of small views (multi-crop).
    :param backbone_kwargs: arguments of the backbone's constructor.
    :param method_kwargs: solo-learn's own settings of the method.
    :param tau: first and last decay of the momentum network.
    """

    backbone: str | nn.Module = "resnet18"
    cifar_stem: bool = True
    num_classes: int = 10
    large_views: int = 2
    small_views: int = 0
    backbone_kwargs: Mapping[str, Any] = field(default_factory=dict)
    method_kwargs: Mapping[str, Any] = field(default_factory=dict)
    tau: tuple[float, float] = (0.99, 1.0)


@dataclass(frozen=True)
class Description:
    """What ``args.json``, which solo-learn writes beside a checkpoint, says of a method.

    :param method: solo-learn's name of the method.
    :param settings: what it was built from; the backbone by name.
    :param optimizer: name of its optimizer.
    :param lr: learning rate for a batch of 256.
    :param weight_decay: weight decay.
    :param epochs: epochs of its last experience.
    """

    method: str
    settings: MethodSettings
    optimizer: str
    lr: float
    weight_decay: float
    epochs: int

    # What all generations call alike, though they put it into different places:

    @property
    def run(self) -> dict[str, Any]:
        """Entries about the run."""
        return {"name": self.method, "method": self.method, "max_epochs": self.epochs}

    @property
    def data(self) -> dict[str, Any]:
        """Entries about the data."""
        return {
            "num_classes": self.settings.num_classes,
            "num_large_crops": self.settings.large_views,
            "num_small_crops": self.settings.small_views,
        }

    @property
    def rates(self) -> dict[str, Any]:
        """Entries about the optimizer."""
        rates = {"lr": self.lr, "weight_decay": self.weight_decay, "classifier_lr": 0.0}
        return {**rates, "batch_size": 256}
