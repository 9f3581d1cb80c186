"""In which mode DER's network runs, and on what: its authors' way, and one without a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune import ranks
from avalanche_branchtune.keeping import evaluating
from solo_bridge.plugins.rehearsal.remembering import (
    Held,
    MinibatchMemory,
    Remembered,
    copied,
)
from solo_bridge.plugins.rehearsal.replay_view import (
    Augment,
    ReplayView,
    augmenting,
    plain,
    stacked,
)

Network = Callable[[Tensor], Tensor]
"""f, from images ``(N, C, H, W)`` to outputs ``(N, D)``."""


class TrainMode:
    """As the method's own passes: f in training mode; stored is its output for view 1."""

    least = 2
    """Images in a memory and in an iteration: BatchNorm takes no single one in training."""

    def __init__(self) -> None:
        """See the class."""
        self.view: Augment

    def prepare(self, replay_view: ReplayView, strategy: Any) -> None:
        """Know how new views are made, before anything is trained.

        :param replay_view: what was asked for.
        :param strategy: about to train.
        """
        self.view = augmenting(replay_view, strategy, "DERPlugin")

    def running(self, parts: Sequence[nn.Module]) -> AbstractContextManager[None]:
        """Return the context in which f runs.

        :param parts: of f.
        """
        return nullcontext()

    def seen(self, memory: MinibatchMemory, strategy: Any, network: Network) -> Held:
        """Return the memory with the current minibatch.

        :param memory: what is remembered.
        :param strategy: in training.
        :param network: f.
        """
        with torch.no_grad():
            outputs = network(strategy.mb_x[0])

        def kept(places: list[int], images: list[Any]) -> list[Remembered]:
            found = map(copied, ranks.rows_of(outputs, places))
            return [Remembered(image, (z,)) for image, z in zip(images, found, strict=True)]

        return memory.with_minibatch(strategy, kept)

    def views(self, images: list[Any], seeds: Sequence[int] | None = None) -> Tensor:
        """Return what f takes of remembered images, ``(N, C, H, W)``.

        :param images: as they are kept.
        :param seeds: of what is drawn for each, see :data:`.replay_view.Augment`.
        """
        return self.view(images, seeds)


class EvalMode(TrainMode):
    """Without a trace: f in eval mode, on the image without augmentation, which is what is kept."""

    least = 1

    def prepare(self, replay_view: ReplayView, strategy: Any) -> None:
        """Know size, mean and deviation."""
        self.view = plain(replay_view, strategy, "DERPlugin")

    def running(self, parts: Sequence[nn.Module]) -> AbstractContextManager[None]:
        """Put f in eval mode for a while."""
        return evaluating(*parts)

    def seen(self, memory: MinibatchMemory, strategy: Any, network: Network) -> Held:
        """Return the memory with the current minibatch; f runs on the images that enter only."""

        def kept(places: list[int], images: list[Any]) -> list[Remembered]:
            views = super(EvalMode, self).views(images).to(strategy.mb_x[0].dtype)
            with torch.no_grad():
                outputs = network(views.to(strategy.device))
            return [
                Remembered(copied(view), (copied(z),))
                for view, z in zip(views, outputs, strict=True)
            ]

        return memory.with_minibatch(strategy, kept)

    def views(self, images: list[Any], seeds: Sequence[int] | None = None) -> Tensor:
        """Return the images: they are views already."""
        return stacked(images, "DERPlugin")


MODES = {"train": TrainMode, "eval": EvalMode}
