"""Avalanche's mean losses, summed where the loss is: nothing waits for it in each step."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.evaluation.metrics import EpochLoss, ExperienceLoss
from torch import Tensor


class _SummedOnDevice:
    """The mean of ``strategy.loss`` over samples; 0 before the first, as Avalanche's.

    Avalanche's code: ContinualAI/avalanche eb075be, avalanche/evaluation/metrics/loss.py,
    LossPluginMetric.
    Differs: Avalanche's takes each minibatch's loss over into a Python float, ours the sum when it
    is asked for; it is in float64 all the same, and equal.
    """

    _sum: Tensor | float = 0.0
    _samples = 0

    def reset(self) -> None:
        """Begin anew."""
        self._sum, self._samples = 0.0, 0

    @torch.no_grad()
    def update(self, strategy: Any) -> None:
        """Add the current minibatch.

        :param strategy: with ``loss`` and the labels ``mb_y`` ``(N,)``.
        """
        samples, loss = len(strategy.mb_y), strategy.loss.detach().mean()
        if loss.device.type != "mps":  # which has no float64
            loss = loss.double()
        self._sum = self._sum + loss * samples
        self._samples += samples

    def result(self) -> float:
        """Return the mean."""
        return float(self._sum) / self._samples if self._samples else 0.0


class EpochLossOnDevice(_SummedOnDevice, EpochLoss):
    """Avalanche's ``Loss_Epoch``: of an epoch, in training."""


class ExperienceLossOnDevice(_SummedOnDevice, ExperienceLoss):
    """Avalanche's ``Loss_Exp``: of an experience, in evaluation."""
