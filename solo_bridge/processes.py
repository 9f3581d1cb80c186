"""Several processes that train one model: what the strategy asks and tells them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from avalanche.core import BasePlugin
from torch import Tensor, nn

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.checkpoints.state import random_states, restore_random_states
from avalanche_branchtune.errors import (
    BatchSizeError,
    IncompatiblePluginError,
    OtherProcessError,
    UnknownOptionError,
)
from avalanche_branchtune.loading import drawing_from
from avalanche_branchtune.metrics import RunRecorder
from avalanche_branchtune.options import one_of, positive
from avalanche_branchtune.records import Run
from solo_bridge.interface import SelfSupervisedMethod
from solo_bridge.spreading import NORMS, over, spread

logger = logging.getLogger(__name__)


class Processes:
    """How the processes of a job, started by ``torchrun``, train one model together.

    Each minibatch of ``train_mb_size`` images is shared among them, and its loss is that of the
    whole, see :mod:`solo_bridge.spreading`.  After the backward pass the gradients of everything in
    the optimizer, whatever plugins put there, are averaged over the ranks; so all of them go on
    with equal weights.  Rank 0 alone evaluates, writes and prints; the others wait for it.

    :param norms: ``"synchronised"``: BatchNorm has the statistics of the whole minibatch, and
        training is the same as in one process but for rounding.  ``"local"``: those of each share,
        and running statistics follow rank 0's; less is sent, and shares should have 32 images or
        more.
    :param wait_minutes: how long a process waits for another one, for example while the first one
        evaluates, before it takes it to have failed.
    :raises UnknownOptionError: for options that are none.
    """

    def __init__(self, norms: str = "synchronised", wait_minutes: float = ranks.WAIT) -> None:
        """See the class."""
        self.norms = one_of("Processes(norms=…)", norms, NORMS)
        self.wait_minutes = positive("Processes(wait_minutes=…)", wait_minutes)
        self._stop = False

    # ---- when the strategy is made

    def join(self, device: torch.device) -> torch.device:
        """Become one of the job's ranks, if there is a job.

        :param device: that was asked for.
        :return: this rank's own.
        """
        device = ranks.local_device(device)
        if device.type == "cuda" and ranks.launched():
            torch.cuda.set_device(device)
        ranks.join(device, self.wait_minutes)
        return device

    def refuse(self, model: SelfSupervisedMethod, train_mb_size: int, compile: bool) -> None:
        """Refuse what several processes cannot do.

        :param model: the method.
        :param train_mb_size: images in the whole minibatch.
        :param compile: whether networks run compiled.
        :raises BatchSizeError: for minibatches that cannot be shared equally.
        :raises UnknownOptionError: for compiled networks, whose norms cannot be synchronised.
        :raises IncompatiblePluginError: for a method whose loss is not known to be a mean.
        """
        if not ranks.joined():
            return
        if train_mb_size % ranks.size():
            raise BatchSizeError(
                f"SelfSupervised(train_mb_size={train_mb_size}): {ranks.size()} processes cannot "
                f"share it equally: it is the whole minibatch of all of them; choose a multiple of "
                f"{ranks.size()}, or another number of processes"
            )
        if compile and self.norms == "synchronised":
            raise UnknownOptionError(
                "SelfSupervised(compile=True) in several processes: norms of compiled networks "
                'cannot be synchronised: pass processes=Processes(norms="local") too, or no compile'
            )
        _, projectors = model.spread_networks()
        if not projectors and not model.mean_over_samples:
            raise IncompatiblePluginError(
                f"{model.name} in several processes: it has no module called projector, where the "
                "whole minibatch's embeddings are brought together: give it one, or say "
                "mean_over_samples = True in its class if its loss is a mean over the samples"
            )

    def begin(self, strategy: Any) -> None:
        """Let all ranks begin with rank 0's weights and random states.

        :param strategy: that was made.
        :raises OtherProcessError: if they have other models.
        """
        if not ranks.joined():
            return
        model = strategy.model
        _agree("the models", {n: tuple(w.shape) for n, w in model.state_dict().items()})
        ranks.as_first([w for w in model.state_dict().values() if isinstance(w, Tensor)])
        self.same_random_states()
        strategy.evaluator.active = ranks.leads()

    def begin_call(self) -> None:
        """Forget a stop that was asked for after the last step of another call of ``train``."""
        self._stop = False

    def same_random_states(self) -> None:
        """Go on with rank 0's random states."""
        if ranks.joined():
            restore_random_states(ranks.of_first(random_states))

    # ---- an experience

    def check(self, strategy: Any) -> None:
        """See that all ranks are about to train the same, when an experience begins.

        :param strategy: in training; plugins have changed what they change.
        :raises OtherProcessError: naming the first thing that differs.
        :raises IncompatiblePluginError: for a plugin that is not known to work.
        """
        if not ranks.joined():
            return
        for plugin in strategy.plugins:
            _check_plugin(plugin)
        content = {f"weight {n}": w for n, w in strategy.model.named_parameters()}
        content |= {f"buffer {n}": b for n, b in strategy.model.named_buffers()}
        settings: dict[str, Any] = {"epochs": strategy.train_epochs}
        for i, group in enumerate(strategy.optimizer.param_groups):
            name = group.get("name", i)
            content |= {f"group {name}, {j}": p for j, p in enumerate(group["params"])}
            plain = {k: v for k, v in group.items() if isinstance(v, int | float | str)}
            settings |= {f"{k} of group {name}": v for k, v in plain.items()}
        data = strategy.adapted_dataset
        settings |= {
            "samples": len(data),
            "targets": hash(tuple(map(int, getattr(data, "targets", ())))),
            "minibatches of an epoch": len(strategy.dataloader),
        }
        with drawing_from(0):
            settings["the first sample"] = _digest(strategy.first_view())
        _agree("the networks and optimizers", {n: _digest(t) for n, t in content.items()})
        _agree("settings and data", settings)

    @contextmanager
    def step(self, strategy: Any) -> Iterator[None]:
        """Take minibatches as shares, in training.

        :param strategy: whose method's networks work on them.
        """
        together = ranks.joined() and strategy.is_training
        with spread(self.norms if together else None), over(*strategy.model.spread_networks()):
            yield

    def average(self, strategy: Any) -> None:
        """Average gradients and loss over the ranks, and agree on whether to stop.

        :param strategy: after its backward pass.
        """
        if not ranks.joined():
            return
        learning = _learning(strategy)
        checkpoints = _checkpoints(strategy)
        asked = [] if checkpoints is None else checkpoints.votes()
        device = strategy.loss.device
        there = torch.tensor([float(p.grad is not None) for p in learning], device=device)
        loss = strategy.loss.detach().float().reshape(1).clone()
        votes = torch.tensor([float(self._stop), *asked])  # on the CPU: a GPU is not waited for
        without = [i for i, p in enumerate(learning) if p.grad is None]
        for i in without:
            learning[i].grad = torch.zeros_like(learning[i])
        gradients = [p.grad for p in learning if p.grad is not None]
        ranks.average([*gradients, there, loss, votes])
        for i in without:
            if not there[i]:  # in no rank
                learning[i].grad = None
        strategy.loss = loss[0].to(strategy.loss.dtype)
        stop, *asked = votes.tolist()
        if stop:
            strategy._stop_training, self._stop = True, False
        if checkpoints is not None:
            checkpoints.take(asked)
        if self.norms == "local":
            ranks.as_first(_statistics(strategy))

    def ask_to_stop(self) -> None:
        """Stop training on all ranks, after the next step at the latest."""
        self._stop = True

    def agree_to_stop(self, strategy: Any) -> None:
        """Stop training on all ranks, if any wants to; between two epochs.

        :param strategy: in training.
        """
        if ranks.joined() and any(ranks.of_all(self._stop)):
            strategy._stop_training, self._stop = True, False

    # ---- results

    @staticmethod
    def told(strategy: Any, make: Callable[[], Any]) -> Any:
        """Return metrics that rank 0 alone has; to the others it tells what is numbers or text.

        So it does with the run of each :class:`~avalanche_branchtune.metrics.RunRecorder`.

        :param strategy: whose metrics they are.
        :param make: gives them.
        """
        if not ranks.joined():
            return make()
        whole: list[Any] = []
        loggers = strategy.evaluator.loggers
        recorders = [logger for logger in loggers if isinstance(logger, RunRecorder)]

        def here() -> tuple[dict[str, Any], list[Run]]:
            whole.append(make())
            told = {k: v for k, v in (whole[0] or {}).items() if isinstance(v, _TOLD)}
            return told, [recorder.run for recorder in recorders]

        told, runs = ranks.of_first(here)
        if ranks.leads():
            return whole[0]
        for recorder, run in zip(recorders, runs, strict=False):
            recorder.run = run
        strategy.evaluator.last_metric_results.update(told)
        return told

    def record_settings(self) -> dict[str, Any]:
        """Return on what of several processes the numbers depend; their number is elsewhere."""
        if not ranks.joined() or self.norms == "synchronised":
            return {}
        return {"norms": f"{self.norms}: of a share of the minibatch, 1 of {ranks.size()}"}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was asked for and not yet agreed on."""
        return {**vars(self), "_stop": False}


OURS = ("avalanche_branchtune", "solo_bridge")
"""Packages of which every plugin is known to work."""

_TOLD = (int, float, str, bool, Tensor, np.ndarray, type(None))


def chosen(processes: Processes | bool | None) -> Processes:
    """Return how several processes work together, if there are several.

    :param processes: see :class:`~solo_bridge.SelfSupervised`.
    :raises UnknownOptionError: for another value, and for one that is alone among others.
    """
    if isinstance(processes, Processes):
        return processes
    if processes is False:
        ranks.stay_alone("SelfSupervised(processes=False)")
    elif processes is not None and processes is not True:
        raise UnknownOptionError(
            f"SelfSupervised(processes={processes!r}): expected Processes(…), True or False"
        )
    return Processes()


def _check_plugin(plugin: BasePlugin) -> None:
    ours = type(plugin).__module__.split(".")[0] in OURS
    if not ours and not getattr(plugin, "supports_distributed", False):
        name = type(plugin).__name__
        raise IncompatiblePluginError(
            f"{name} in several processes: it does not say that it does the same on all of them; "
            f"if it does, write class {name}(…, supports_distributed=True)"
        )


def _agree(what: str, content: Mapping[str, Any]) -> None:
    mark = hashlib.blake2b(repr(list(content.items())).encode(), digest_size=8).hexdigest()
    if len(set(ranks.of_all(mark))) == 1:
        return
    by_rank = ranks.of_all(dict(content))
    names = list(dict.fromkeys(name for found in by_rank for name in found))
    values = {name: [found.get(name, "nothing") for found in by_rank] for name in names}
    first = next((n for n, v in values.items() if any(x != v[0] for x in v)), "their order")
    differ = ", ".join(map(str, values.get(first, [])))
    raise OtherProcessError(
        f"{what} of the job's {ranks.size()} processes differ, first in {first} ({differ}): all of "
        "them must run the same script with the same options and data"
    )


@torch.no_grad()
def _digest(tensor: Tensor) -> tuple[Any, ...]:
    """Return shape, type and a sum over the bits, at which places they stand included."""
    content = tensor.detach().contiguous().view(-1)
    if content.is_complex():
        content = torch.view_as_real(content).reshape(-1)
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[content.element_size()]
    bits = content.view(whole).long() if content.dtype != torch.bool else content.long()
    places = torch.arange(1, len(bits) + 1, device=bits.device)
    return tuple(tensor.shape), str(tensor.dtype), int(bits.sum()), int((bits * places).sum())


def _learning(strategy: Any) -> list[nn.Parameter]:
    groups = strategy.optimizer.param_groups
    return list(dict.fromkeys(p for g in groups for p in g["params"] if p.requires_grad))


def _statistics(strategy: Any) -> list[Tensor]:
    """Return the running statistics of everything that is trained, the plugins' networks too."""
    holders = [vars(holder).values() for holder in (strategy, *strategy.plugins)]
    modules = [value for held in holders for value in held if isinstance(value, nn.Module)]
    found = (b for m in modules for n, b in m.named_buffers() if "running_" in n)
    return list({id(b): b for b in found}.values())


def _checkpoints(strategy: Any) -> Checkpoints | None:
    return next((p for p in strategy.plugins if isinstance(p, Checkpoints)), None)
