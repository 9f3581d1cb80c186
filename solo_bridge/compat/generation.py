"""What the bridge asks of any solo-learn, whatever its generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from solo_bridge.augmentation import Augmentation
from solo_bridge.compat.detect import Found


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


class _Loader:
    """A data loader's lengths."""

    def __init__(self, steps: int, samples: int) -> None:
        self.steps = steps
        self.dataset = range(samples)

    def __len__(self) -> int:
        return self.steps


class TrainerStandIn:
    """What solo-learn's methods read of a Lightning trainer, and nothing else.

    :param steps_per_epoch: optimizer steps in an epoch.
    :param epochs: epochs of the experience.
    :param samples: samples of the experience.
    """

    def __init__(self, steps_per_epoch: int = 1, epochs: int = 1, samples: int = 1) -> None:
        """See the class."""
        self.global_step = 0
        self.current_epoch = 0
        self.max_epochs = epochs
        self.train_dataloader = _Loader(steps_per_epoch, samples)
        self.accumulate_grad_batches = 1
        self.world_size = 1
        self.global_rank = 0
        self.sanity_checking = False

    @property
    def num_training_batches(self) -> int:
        """Optimizer steps in an epoch."""
        return self.train_dataloader.steps

    @property
    def estimated_stepping_batches(self) -> int:
        """Optimizer steps in the experience."""
        return self.train_dataloader.steps * self.max_epochs


LONGEST = 100_000
"""Stands for lengths that only an experience knows, where a constructor asks for them: epochs (for
which DINO lays out a temperature) and samples in a minibatch (which W-MSE whitens in parts)."""


def ignore(*args: Any, **kwargs: Any) -> None:
    """Take the place of Lightning's ``log`` and ``log_dict``."""


class Generation(ABC):
    """Adapter for one API generation of solo-learn.

    :param found: what was found.
    :param classes: solo-learn's own table of methods.
    """

    name: str

    short: str
    """Its name as an option."""

    backbone_key: str
    """What it calls a method's online backbone: the attribute, and in names of tensors."""

    multicrop: frozenset[str]
    """Methods that can compare small views too."""

    def __init__(self, found: Found, classes: Mapping[str, type]) -> None:
        """See the class."""
        self.found = found
        self.classes = {n: c for n, c in classes.items() if n not in ("base", "linear")}

    def build(self, name: str, settings: MethodSettings) -> Any:
        """Build a method that computes its loss without labels and without a trainer.

        :param name: solo-learn's name of the method.
        :param settings: see :class:`MethodSettings`.
        :return: solo-learn's own LightningModule.
        """
        module = self.construct(name, settings)
        module.log = ignore
        module.log_dict = ignore
        self.silence_labels(module)
        module.classifier.requires_grad_(False)
        return module

    @abstractmethod
    def construct(self, name: str, settings: MethodSettings) -> Any:
        """Call solo-learn's constructor."""

    @abstractmethod
    def silence_labels(self, module: Any) -> None:
        """Make the class loss exactly zero, so that no label enters the loss."""

    @abstractmethod
    def end_batch(self, module: Any, batch: list[Any], index: int) -> None:
        """Call the hook that follows an optimizer step (momentum update)."""

    def backbone(self, module: Any) -> nn.Module:
        """Return the method's online backbone."""
        backbone: nn.Module = getattr(module, self.backbone_key)
        return backbone

    @classmethod
    @abstractmethod
    def args(cls, described: Description) -> dict[str, Any]:
        """Return the content of ``args.json``, as far as a description goes."""

    @abstractmethod
    def backbone_names(self) -> tuple[str, ...]:
        """Return the names of solo-learn's own backbones."""

    @abstractmethod
    def pipeline(self, augmentation: Augmentation) -> Callable[[Any], Tensor]:
        """Return solo-learn's augmentation pipeline, PIL image to ``(3, H, W)``."""

    @abstractmethod
    def many_views(
        self, pipelines: list[Callable[[Any], Tensor]], counts: list[int]
    ) -> Callable[[Any], list[Tensor]]:
        """Return solo-learn's transform from a PIL image to a list of views."""

    @abstractmethod
    def lars(self, groups: list[dict[str, Any]], **settings: Any) -> Optimizer:
        """Return solo-learn's LARS; settings lr, weight_decay, momentum, eta, clip, exclude."""

    @abstractmethod
    def warmup_cosine(self, optimizer: Optimizer, **settings: Any) -> LRScheduler:
        """Return the scheduler; settings as of :class:`.schedule.WarmupCosine`."""


def without_class_loss(out: dict[str, Any]) -> dict[str, Any]:
    """Add a class loss and accuracies of zero to the outputs of a forward pass.

    :param out: what solo-learn's ``forward`` returned, with ``feats`` ``(N, D)``.
    :return: the same with ``loss``, ``acc1`` and ``acc5``.
    """
    zero = torch.zeros((), device=out["feats"].device)
    return {**out, "loss": zero, "acc1": zero, "acc5": zero}
