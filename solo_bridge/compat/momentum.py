"""Momentum networks that follow in place, all their parameters together."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn


def let_follow_in_place(solo: Any) -> None:
    """Let a method's momentum networks take their steps in the memory that they have.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/utils/momentum.py, MomentumUpdater.update.
    Differs: solo-learn's makes new tensors in each step, one parameter after the other; the values
    are the same bit by bit.

    :param solo: solo-learn's module; left alone if it has no momentum network.
    """
    updater = getattr(solo, "momentum_updater", None)
    if updater is not None:
        updater.update = partial(_follow, updater)


@torch.no_grad()
def _follow(updater: Any, online: nn.Module, momentum: nn.Module) -> None:
    tau = updater.cur_tau
    pairs = list(zip(online.parameters(), momentum.parameters(), strict=False))
    if pairs:
        leading, following = ([p.detach() for p in side] for side in zip(*pairs, strict=True))
        torch._foreach_mul_(following, tau)
        torch._foreach_add_(following, torch._foreach_mul(leading, 1 - tau))
