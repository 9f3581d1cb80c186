"""Linear warm-up, then cosine decay, where solo-learn brings no scheduler of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True)
class Place:
    """Where an experience stands in what goes on over a whole stream, counted in steps.

    :param begun: steps of the experiences before it.
    :param own: its own steps.
    :param whole: steps of the stream; None if its length is not known.
    """

    begun: int
    own: int
    whole: int | None

    def at(self, step: int, steps: int) -> float:
        """Return the place of a step in the stream.

        :param step: in the experience.
        :param steps: that it really has: replay may make it longer than it was counted.
        """
        return self.begun + step * (self.own / steps)


class WarmupCosine(LRScheduler):
    """Learning rates that rise linearly and fall as half a cosine.

    Step 0 has ``warmup_start_lr``, step ``warmup_epochs − 1`` the group's own
    rate, step ``max_epochs`` has ``eta_min``.  The arguments are named as in
    the class of pl_bolts that solo-learn 1.0.2 expects; "epochs" counts calls
    of :meth:`step`, which may as well be iterations, or so many of them as
    ``every`` says.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/utils/lr_scheduler.py,
    LinearWarmupCosineAnnealingLR.

    :param optimizer: the optimizer.
    :param warmup_epochs: number of steps of the warm-up.
    :param max_epochs: number of steps in all.
    :param warmup_start_lr: rate of the first step.
    :param eta_min: rate of the last step.
    :param last_epoch: see :class:`torch.optim.lr_scheduler.LRScheduler`.
    :param every: calls of :meth:`step` for each of them, between which the rates stay.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_epochs: float,
        max_epochs: float,
        warmup_start_lr: float = 0.0,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        every: int = 1,
    ) -> None:
        """See the class."""
        self.warmup_epochs = warmup_epochs
        self.max_epochs = max_epochs
        self.warmup_start_lr = warmup_start_lr
        self.eta_min = eta_min
        self.every = every
        super().__init__(optimizer, last_epoch)

    def time(self) -> float:
        """Return the number of calls of :meth:`step` so far."""
        return self.last_epoch

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return the groups' rates at the current step."""
        t, warmup = self.time() // self.every, self.warmup_epochs
        if t < warmup:
            share = min(1.0, t / max(1.0, warmup - 1))  # the last step of a part is no higher
            start = self.warmup_start_lr
            return [start + share * (float(base) - start) for base in self.base_lrs]
        share = min(1.0, (t - warmup) / max(1.0, self.max_epochs - warmup))
        factor = (1 + math.cos(math.pi * share)) / 2
        return [self.eta_min + factor * (float(base) - self.eta_min) for base in self.base_lrs]


class OverStream(WarmupCosine):
    """The part of such a schedule that belongs to one experience of a stream.

    It is made anew for each, with the groups that its optimizer has then, and goes on where the one
    before ended.

    :param optimizer: the stream's optimizer.
    :param place: of the experience.
    :param steps: that the experience really has.
    :param settings: of :class:`WarmupCosine`, for the whole stream.
    """

    def __init__(self, optimizer: Optimizer, place: Place, steps: int, **settings: Any) -> None:
        """See the class."""
        self.begun = place.at(0, steps)
        self.stretch = place.at(1, steps) - self.begun
        super().__init__(optimizer, **settings)

    def time(self) -> float:
        """Return the steps of the stream so far."""
        return self.begun + self.last_epoch * self.stretch
