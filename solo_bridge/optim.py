"""Optimizer and schedule of one experience, or of a stream."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.options import not_negative, one_of
from solo_bridge.compat import load
from solo_bridge.compat.parts import STATIC_LR
from solo_bridge.compat.schedule import OverStream, Place, WarmupCosine
from solo_bridge.lars import LARS

OPTIMIZERS = ("lars", "sgd", "adam", "adamw")
SCHEDULERS = ("warmup_cosine", "cosine", "none")
EVERY = ("step", "epoch")

SHORTEST_WARMUP = 2
"""Steps (or epochs, where the schedule counts these) that a rising rate takes at least: the first
has the warm-up's rate, the last its own."""

logger = logging.getLogger(__name__)

MakeOptimizer: TypeAlias = Callable[[list[dict[str, Any]]], Optimizer]


@dataclass(frozen=True)
class OptimizerSettings:
    """How each experience is optimised; a fresh optimizer and schedule each time.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/args/pretrain.py, parse_cfg, and
    solo/methods/base.py, BaseMethod.configure_optimizers.
    Differs: solo-learn warms up for 10 epochs, ours for at most a tenth of the experience, and not
    at all where that is less than two steps.
    Differs: CaSSLe (DonkeyShot21/cassle b5b0929, cassle/methods/base.py) and solo-learn 1.0.2 warm
    up from 0.003 and CaSSLe steps with each epoch; ours from 3e-5 with each iteration, as
    solo-learn's main branch, unless ``warmup_start_lr=0.003, schedule_every="epoch"``, as
    :mod:`solo_bridge.presets` have it.

    :param name: ``"lars"`` (SGD with LARS, as solo-learn's), ``"sgd"``, ``"adam"``
        or ``"adamw"``.
    :param lr: learning rate, for the batch that is used.
    :param weight_decay: weight decay.
    :param momentum: momentum of SGD and LARS.
    :param betas: decays of Adam's and AdamW's averages.
    :param eta: trust coefficient of LARS.
    :param trust: whose norm LARS takes for a branch: ``"branch"`` its own, as
        in the runs of Liu et al. (a branch then grows by at most ``eta`` per
        step), or ``"kernel"`` that of the kernel it is added to: faster.
        Measured with SimCLR on CIFAR-10 re-encoded as JPEG, linear accuracy:
        20 epochs an experience, fine-tuning 61.3, own norm 57.8, kernel's norm
        59.9; 85 epochs, fine-tuning 70.1, kernel's norm 70.2.
    :param clip: clip LARS's rate at the group's.
    :param exclude_bias_and_norm: leave parameters with one axis out of LARS.
    :param scheduler: ``"warmup_cosine"``; ``"cosine"``, which begins with ``lr``; or
        ``"none"``.
    :param schedule_every: when the schedule advances: with each ``"step"``, as in
        solo-learn's main branch; or with each ``"epoch"``, in which the rate then
        stays: epoch 0 has the warm-up's rate, the last epoch of the warm-up the
        full one, and each later epoch t ``min_lr + (lr − min_lr) · (1 + cos(π ·
        (t − warmup) / (epochs − warmup))) / 2``, as in CaSSLe's code.
    :param warmup_epochs: epochs of the linear warm-up; None for 10, but at most a
        tenth of the experience, counted in steps: a tenth of fewer than two steps
        is none, since its first step has next to no rate (an experience of 1 to 19
        steps begins with ``lr``); other tenths are as they are, also in parts of
        a step.  What is left out is logged.  With ``schedule_every="epoch"`` the
        same counted in epochs, of which only whole ones.
    :param unfinished_warmup: whether a warm-up may be longer than the experience,
        which then trains its first part, as in solo-learn; else it is refused.
    :param warmup_start_lr: rate of the first step.
    :param min_lr: rate that the schedule ends at.
    :raises UnknownOptionError: for an unknown optimizer or scheduler, and for a
        warm-up of ``"cosine"``.
    """

    name: str = "lars"
    lr: float = 0.3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eta: float = 0.02
    trust: str = "branch"
    clip: bool = True
    exclude_bias_and_norm: bool = True
    scheduler: str = "warmup_cosine"
    schedule_every: str = "step"
    warmup_epochs: float | None = None
    unfinished_warmup: bool = False
    warmup_start_lr: float = 3e-5
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        one_of("SelfSupervised(optimizer=…)", self.name, OPTIMIZERS)
        one_of("SelfSupervised(scheduler=…)", self.scheduler, SCHEDULERS)
        one_of("SelfSupervised(schedule_every=…)", self.schedule_every, EVERY)
        one_of("SelfSupervised(trust=…)", self.trust, ("branch", "kernel"))
        for name in ("lr", "weight_decay", "momentum", "eta", "warmup_start_lr", "min_lr"):
            not_negative(f"SelfSupervised({name}=…)", getattr(self, name))
        if self.warmup_epochs is not None:
            not_negative("SelfSupervised(warmup_epochs=…)", self.warmup_epochs)
            if self.scheduler == "cosine" and self.warmup_epochs:
                raise UnknownOptionError(
                    f"SelfSupervised(warmup_epochs={self.warmup_epochs}): the scheduler 'cosine' "
                    "has no warm-up: pass 0, or scheduler='warmup_cosine'"
                )

    def optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Build the optimizer.

        :param groups: parameter groups, each may override lr and weight_decay.
        :return: the optimizer.
        """
        if self.name == "lars":
            return LARS(
                groups,
                lr=self.lr,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                eta=self.eta,
                clip=self.clip,
                exclude=self.exclude_bias_and_norm,
                trust=self.trust,
                rounding=load().short,
            )
        common: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.name == "sgd":
            return torch.optim.SGD(groups, momentum=self.momentum, **common)
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return kind(groups, betas=self.betas, **common)

    def schedule(
        self,
        optimizer: Optimizer,
        steps_per_epoch: int,
        epochs: int,
        place: Place | None = None,
    ) -> LRScheduler | None:
        """Build the schedule of one experience, to be stepped after each iteration.

        :param optimizer: the experience's optimizer.
        :param steps_per_epoch: iterations in an epoch.
        :param epochs: epochs in the experience.
        :param place: where the experience stands in its stream, if the schedule is one of the whole
            stream: that of one experience of as many epochs, with the steps of all in each.
        :return: the scheduler, or None for ``"none"``.
        :raises UnknownOptionError: if the warm-up is longer than the experience; for a stream whose
            length is not known.
        """
        if self.scheduler == "none":
            return None
        real_steps = steps_per_epoch * epochs
        if place is not None:
            if place.whole is None:
                raise UnknownOptionError(
                    f"SelfSupervised(optimizer_per='stream', scheduler={self.scheduler!r}): the "
                    "stream does not say how long it is, and so the schedule cannot: pass "
                    "optimizer_settings={'scheduler': 'none'}, or a stream with a length "
                    "(avalanche_branchtune.streams.online instead of split_online_stream)"
                )
            steps_per_epoch = place.whole // epochs
        by_epoch = self.schedule_every == "epoch"
        every, units = (steps_per_epoch, 1) if by_epoch else (1, steps_per_epoch)
        warmup = 0.0 if self.scheduler == "cosine" else self._warmup(units, epochs)
        # A sum over steps, as in solo-learn's main branch, ends too high after 2.1 of them, and
        # knows neither epochs nor the groups' own rates where there is no warm-up.
        in_parts = self.warmup_epochs is None and abs(warmup - round(warmup)) > 1e-6
        settings: dict[str, Any] = {
            "warmup_epochs": warmup,
            "max_epochs": units * epochs,
            "warmup_start_lr": self.warmup_start_lr if warmup > 0 else self.lr,
            "eta_min": self.min_lr,
        }
        scheduler: LRScheduler
        if place is not None:
            scheduler = OverStream(optimizer, place, real_steps, every=every, **settings)
        elif by_epoch or in_parts or self.scheduler == "cosine":
            scheduler = WarmupCosine(optimizer, every=every, **settings)
        else:
            scheduler = load().warmup_cosine(optimizer, **settings)
        static = [i for i, g in enumerate(optimizer.param_groups) if g.get(STATIC_LR)]
        if static:  # as in solo-learn
            scheduler.get_lr = _StaticRates(scheduler, static, self.lr)  # type: ignore[method-assign]
        return scheduler

    def _warmup(self, units: int, epochs: int) -> float:
        """Return the length of the warm-up; say if it is left out, or all there is.

        :param units: what is counted, of which an epoch has so many: steps, or itself.
        :param epochs: epochs in the experience.
        """
        if self.warmup_epochs is None:
            by_epoch, called = self.schedule_every == "epoch", f"{self.schedule_every}s"
            warmup = min(10, epochs // 10) if by_epoch else min(10, epochs / 10) * units
            if warmup < SHORTEST_WARMUP:
                logger.info(
                    "no warm-up: a tenth of %d %s is less than two %s",
                    units * epochs,
                    called,
                    called,
                )
                return 0.0
            return warmup
        if self.warmup_epochs > epochs and not self.unfinished_warmup:
            raise UnknownOptionError(
                f"SelfSupervised(warmup_epochs={self.warmup_epochs}): the experience has {epochs} "
                "epochs"
            )
        if self.warmup_epochs >= epochs:
            logger.warning(
                "the warm-up of %g epochs takes all of the experience's %d: the learning rate only "
                "rises, from %g towards %g; optimizer_settings={'warmup_epochs': None} makes it a "
                "tenth of the experience",
                self.warmup_epochs,
                epochs,
                self.warmup_start_lr,
                self.lr,
            )
        return self.warmup_epochs * units


class _StaticRates:
    """A scheduler's rates, but for some groups that keep theirs; checkpoints know its parts."""

    def __init__(self, scheduler: LRScheduler, static: list[int], lr: float) -> None:
        self.scheduler = scheduler
        self.static = static
        self.lr = lr

    def __call__(self) -> list[Any]:
        rates = list(type(self.scheduler).get_lr(self.scheduler))
        for i in self.static:
            rates[i] = self.lr
        return rates
