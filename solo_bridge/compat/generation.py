"""What the bridge asks of any solo-learn, whatever its generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from solo_bridge.augmentation import Augmentation
from solo_bridge.compat.detect import Found
from solo_bridge.compat.momentum import let_follow_in_place
from solo_bridge.compat.queues import let_wrap_around
from solo_bridge.compat.settings import Description, MethodSettings
from solo_bridge.compat.trainer import ignore

LONGEST = 100_000
"""Stands for lengths that only an experience knows, where a constructor asks for them: epochs (for
which DINO lays out a temperature) and samples in a minibatch (which W-MSE whitens in parts)."""


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
        let_wrap_around(module)
        let_follow_in_place(module)
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

    def momentum_backbone(self, module: Any) -> nn.Module | None:
        """Return the method's momentum backbone, None if it has none."""
        found = getattr(module, f"momentum_{self.backbone_key}", None)
        return found if isinstance(found, nn.Module) else None

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
    def warmup_cosine(self, optimizer: Optimizer, **settings: Any) -> LRScheduler:
        """Return the scheduler; settings as of :class:`.schedule.WarmupCosine`."""


def without_class_loss(out: dict[str, Any]) -> dict[str, Any]:
    """Add a class loss and accuracies of zero to the outputs of a forward pass.

    :param out: what solo-learn's ``forward`` returned, with ``feats`` ``(N, D)``.
    :return: the same with ``loss``, ``acc1`` and ``acc5``.
    """
    zero = torch.zeros((), device=out["feats"].device)
    return {**out, "loss": zero, "acc1": zero, "acc5": zero}
