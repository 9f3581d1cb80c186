"""Losses and gradients that are not finite: how they are seen, and what a step of them leaves."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune.errors import NonFiniteLossError, UnknownOptionError
from avalanche_branchtune.experiences import experience_index
from avalanche_branchtune.options import at_least_one, one_of

logger = logging.getLogger(__name__)

POLICIES = ("stop", "skip", "lower_scale")

EVERY = 50
"""Steps after which a device that works on its own is asked whether all was finite."""

MOST_IN_A_ROW = 100
"""Steps that may be left out one after the other."""


class FiniteCheck:
    """Sees to it that no step with a loss or gradient that is not finite changes a model.

    Each step notes on the device whether its loss and its gradients' norms are finite; the note is
    read every so many steps, since on a GPU a reading waits for all that was asked of it.  With a
    reading in each step the network's buffers (statistics, queues), and those of plugins' modules,
    are copied before the step and put back if it is left out, and nothing else has to be: it is
    left out before its update.  With fewer readings the weights and the optimizer's state are
    copied after each good one, on the device, and all of it is put back to there; what plugins
    remember besides is not (DER's outputs): with ``"skip"`` they want a reading in each step.

    Where the loss is scaled, gradients are the scaler's to check.

    :param policy: ``"stop"``, ``"skip"`` or ``"lower_scale"``, see
        :class:`solo_bridge.SelfSupervised`.
    :param every: steps from one reading to the next; None for 1 on a CPU and where the loss is
        scaled (the scaler waits in each step itself), else :data:`EVERY`.
    :param device: that trains.
    :param scaled: whether the loss is scaled.
    :raises UnknownOptionError: for another policy, and for one that lowers a scale without one.
    """

    def __init__(
        self, policy: str, every: int | None, device: torch.device, *, scaled: bool
    ) -> None:
        """See the class."""
        self.policy = one_of("SelfSupervised(on_non_finite=…)", policy, POLICIES)
        if policy == "lower_scale" and not scaled:
            raise UnknownOptionError(
                "SelfSupervised(on_non_finite='lower_scale'): there is a scale with precision='16' "
                "on a GPU only: choose 'skip' or 'stop'"
            )
        if every is None:
            every = 1 if scaled or device.type == "cpu" else EVERY
        self.every = at_least_one("SelfSupervised(check_finite_every=…)", every)
        self.skipped = 0
        """Steps that were left out, in all experiences."""
        self.left_out = False
        """Whether the current step is."""
        self.begin(device)

    def begin(self, device: torch.device) -> None:
        """Begin an experience.

        :param device: that trains.
        """
        self._first = torch.full((), -1, dtype=torch.long, device=device)  # bad step's number
        self._loss = torch.zeros((), device=device)  # of that step
        self._unread = 0  # steps
        self._kept_at = 0  # step
        self._in_a_row = 0
        self._skipped_before = self.skipped
        self._place = ""  # of the first step that was left out

    def before_forward(self, strategy: Any) -> None:
        """Keep what the step will change, if there is no copy that is to be kept for longer."""
        if not strategy._last_good:
            strategy._last_good = _copies(strategy, weights=self.every > 1)
            self._kept_at = strategy.clock.train_exp_iterations

    def after_backward(self, strategy: Any) -> None:
        """Note whether loss and gradients are finite, and read the note if it is time to.

        :raises NonFiniteLossError: see :meth:`read`.
        """
        self.left_out = False
        clock = strategy.clock
        if not strategy.model.expects_nan(clock.train_exp_epochs):
            self._note(strategy.loss, _gradients(strategy), clock.train_exp_iterations)
        self._unread += 1
        if self._unread >= self.every:
            self.read(strategy)
        if self.left_out:
            for gradient in _gradients(strategy, scaled=True):
                gradient.zero_()

    @torch.no_grad()
    def _note(self, loss: Tensor, gradients: list[Tensor], step: int) -> None:
        value = loss.detach().float().mean()
        bad = ~value.isfinite()
        if gradients:
            bad = bad | ~torch.stack(torch._foreach_norm(gradients)).isfinite().all()
        bad = bad & (self._first < 0)
        self._first.masked_fill_(bad, step)
        self._loss = torch.where(bad, value, self._loss)

    def read(self, strategy: Any) -> None:
        """See whether all steps since the last reading were finite; if not, put back what was good.

        :param strategy: in training.
        :raises NonFiniteLossError: naming experience, epoch and step, unless steps are to be left
            out and not too many were in a row.
        """
        steps, self._unread = self._unread, 0
        if not steps:
            return
        first = int(self._first)
        if first < 0:
            strategy._last_good = []
            self._in_a_row = 0
        else:
            self._leave_out(strategy, steps, first)
        scaler = strategy.scaler
        if scaler.is_enabled() and scaler.get_scale() < 1:
            raise NonFiniteLossError(
                f"the loss scale fell below 1 in experience {experience_index(strategy)}, step "
                f"{strategy.clock.train_exp_iterations}: with any scale the gradients are not "
                "finite; the model keeps its weights. Train in precision 'bf16' or '32'"
            )

    def _leave_out(self, strategy: Any, steps: int, first: int) -> None:
        epoch, step = divmod(first, len(strategy.dataloader))
        loss, before = float(self._loss), first - self._kept_at
        finite = torch.isfinite(self._loss)
        what = "a gradient is not finite" if finite else f"the loss is {loss}"
        place = f"{what} in experience {experience_index(strategy)}, epoch {epoch}, step {step}"
        _put_back(strategy, weights=self.every > 1)
        self._first.fill_(-1)
        self._in_a_row += steps
        if self.policy == "stop" or self._in_a_row >= MOST_IN_A_ROW:
            row = f", and {self._in_a_row} steps in a row were left out" if self.skips else ""
            kept = f"of {before} steps before" if before else "before this step"
            raise NonFiniteLossError(
                f"{place}{row}; the model keeps the weights {kept}. A smaller learning rate or a "
                "longer warm-up helps; check the images too (branchtune check FOLDER)"
            )
        self.left_out = True
        self.skipped += steps
        self._place = self._place or place

    @property
    def skips(self) -> bool:
        """Whether training goes on."""
        return self.policy != "stop"

    @contextlib.contextmanager
    def no_update_is_meant(self) -> Iterator[None]:
        """Keep torch from warning of a schedule that advances before the first update."""
        with warnings.catch_warnings() if self.left_out else contextlib.nullcontext():
            if self.left_out:
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            yield

    def end(self) -> None:
        """Say what an experience left out."""
        skipped = self.skipped - self._skipped_before
        if skipped:
            logger.warning(
                "%d step%s left out; at the first of them %s",
                skipped,
                " was" if skipped == 1 else "s were",
                self._place,
            )


def _gradients(strategy: Any, *, scaled: bool = False) -> list[Tensor]:
    """Return the gradients that the optimizer will use; none that the scaler checks, unless asked.

    :param strategy: after a backward pass.
    :param scaled: whether scaled ones are wanted.
    """
    if strategy.scaler.is_enabled() and not scaled:
        return []
    parameters = (p for group in strategy.optimizer.param_groups for p in group["params"])
    return [p.grad for p in parameters if p.grad is not None]


def _copies(strategy: Any, *, weights: bool) -> list[tuple[Any, Any, Any]]:
    """Copy what a step may change.

    :param strategy: in training.
    :param weights: whether also what only an update changes: weights and the optimizer's state.
    :return: containers, keys in them, and the values there.
    """
    holders = [vars(holder).values() for holder in (strategy, *strategy.plugins)]
    modules = [value for held in holders for value in held if isinstance(value, nn.Module)]
    # By name: a method may put a new tensor in a buffer's place (DINO's centre).
    places: list[tuple[Any, Any]] = [
        (m._buffers, name) for module in modules for m in module.modules() for name in m._buffers
    ]
    if weights:
        optimizer = strategy.optimizer
        learning = (p for group in optimizer.param_groups for p in group["params"])
        places += [([p], 0) for p in dict.fromkeys([*strategy.model.parameters(), *learning])]
        places += [(state, key) for state in optimizer.state.values() for key in state]
    found = [(place, key, place[key]) for place, key in places]
    return [
        (place, key, value.detach().clone() if isinstance(value, Tensor) else value)
        for place, key, value in found
        if value is not None
    ]


@torch.no_grad()
def _put_back(strategy: Any, *, weights: bool) -> None:
    kept, strategy._last_good = strategy._last_good, []
    for place, key, value in kept:
        if isinstance(value, Tensor):
            place[key].copy_(value)
        else:
            place[key] = value
    known = {id(place) for place, _, _ in kept}
    for state in strategy.optimizer.state.values() if weights else ():
        if id(state) not in known:  # made since then
            state.clear()
