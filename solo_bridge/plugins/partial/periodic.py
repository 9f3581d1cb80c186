"""FPF and k-FPF: brief fine-tuning, on a small buffer, of the parameters that forget most."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import (
    BatchSizeError,
    IncompatiblePluginError,
    NonFiniteLossError,
    UnknownOptionError,
)
from avalanche_branchtune.experiences import begins, ends, experience_key
from avalanche_branchtune.keeping import buffers_kept
from avalanche_branchtune.norms import NORM_LAYERS
from avalanche_branchtune.options import at_least, fraction, not_negative
from avalanche_branchtune.parts import named_part
from solo_bridge.compat.memories import detach_normed_weights
from solo_bridge.plugins.partial.freezing import Freezer
from solo_bridge.registry import register

logger = logging.getLogger(__name__)

BY = ("norms+last", "change")


@register("periodic", "periodic fine-tuning")
class PeriodicFineTuningPlugin(SupervisedPlugin):
    """Zhao et al., "Does Continual Learning Equally Forget All Parameters?", arXiv 2304.04158.

    FPF (forgetting prioritised fine-tuning): when an experience ends, only the
    parameters that forget most are tuned for some steps on a small buffer of
    the stream's samples.  k-FPF: also every so many iterations in between.  The
    loss is the method's own, on views that are made anew; both begin with the
    second experience.

    The buffer (reservoir sampling, over all samples of the experiences so far)
    takes an experience's samples up when it ends, before the fine-tuning; in
    between it holds earlier experiences' samples only.

    Each fine-tuning has a fresh SGD; optimizer, schedule, clock and the method's
    counters do not notice it.  Momentum networks are not updated in it, they
    follow with the next ordinary step; queues, centres and other buffers are
    put back afterwards, but for the statistics of normalisation layers, which
    see the buffer's samples as any minibatch.  Parameters that do not learn at
    that time are not tuned.  What plugins add to the loss takes no part.

    At the end of an experience plugins act in their order: put this one in
    front of those that copy the network then (CaSSLe, Kaizen).  The random state
    moves on with each fine-tuning.

    No code of the authors is known.

    :param every: iterations between fine-tunings (k-FPF); None for one at the
        end of each experience only (FPF).
    :param steps: iterations of a fine-tuning.
    :param memory: samples in the buffer.
    :param by: which parameters: ``"norms+last"``, affine parameters of
        normalisation layers and the last linear layer of the projector (of a
        method without one, the last convolution or linear layer of the
        backbone); ``"change"``, the ``share`` of the parameter tensors with the
        largest relative change ``‖p − p′‖ / ‖p′‖`` since the experience began,
        p′ its value then (a copy of the network is kept for that); or names of
        modules or parameters, or patterns, as a sequence.
    :param share: of the number of tensors, for ``by="change"``; one at least.
    :param lr: learning rate for a batch of 256, scaled as the strategy's.
    :param momentum: of SGD.
    :param weight_decay: of SGD.
    :param batch_size: samples in a minibatch; by default the strategy's, at
        most the buffer's size.  Lowered where the method can only take fewer
        (a queue's size, W-MSE's multiples).
    :raises UnknownOptionError: for an unknown option, and in training for names
        that match no parameter.
    :raises IncompatiblePluginError: in training, for methods that keep a
        memory of samples by their number (DeepClusterV2).
    """

    def __init__(
        self,
        every: int | None = None,
        *,
        steps: int = 20,
        memory: int = 200,
        by: str | Sequence[str] = "norms+last",
        share: float = 0.1,
        lr: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        batch_size: int | None = None,
    ) -> None:
        """See the class."""
        super().__init__()
        for name, value, least in (
            ("every", every, 1),
            ("steps", steps, 1),
            ("memory", memory, 2),
            ("batch_size", batch_size, 2),
        ):
            if value is not None:
                at_least(least, f"PeriodicFineTuningPlugin({name}=…)", value)
        for name, number in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            not_negative(f"PeriodicFineTuningPlugin({name}=…)", number)
        if isinstance(by, str) and by not in BY:
            raise UnknownOptionError(
                f"PeriodicFineTuningPlugin(by={by!r}): expected one of {', '.join(BY)} or a list "
                "of names and patterns"
            )
        self.every = every
        self.steps = steps
        self.by = by if isinstance(by, str) else tuple(by)
        self.share = fraction("PeriodicFineTuningPlugin(share=…)", share)
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.storage = ReservoirSamplingBuffer(memory)
        """The buffer, see Avalanche."""
        self.fine_tunings = 0
        """How many there were."""
        self.tuned: tuple[str, ...] = ()
        """Names of the parameters that the last one tuned."""
        self.losses: list[float] = []
        """Its losses, one for each step."""
        self._before: dict[str, Tensor] = {}
        self._first = True  # of the experiences: nothing to forget
        self._owed = False  # a part ended, and it was not said whether it was the last
        self._iterations = 0
        self._begun: tuple[str, int] | None = None
        self._fine_tunings_before = 0
        self._taken: tuple[str, int] | None = None

    # ---- events

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what cannot work before anything is trained."""
        model = strategy.model
        if "index" in model.needs:
            raise IncompatiblePluginError(
                f"PeriodicFineTuningPlugin: {type(model).__name__} keeps a memory of this "
                "experience's samples by their number, which buffered samples do not have"
            )
        if self.by != "change":
            self.choose(model)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remember the parameters, if they are ranked by their change."""
        if not begins(strategy):
            return  # a later part of an online experience
        if self._owed and not self._first:  # Avalanche marked no part as the last
            self.fine_tune(strategy)
        self._owed = False
        self._iterations = 0
        key = experience_key(strategy)
        if key == self._begun:
            self.fine_tunings = self._fine_tunings_before  # it is trained again
        self._begun, self._fine_tunings_before = key, self.fine_tunings
        self._before = {}
        self._first = len(self.storage.buffer) == 0
        if self.by == "change" and not self._first:
            self._before = {n: p.detach().clone() for n, p in strategy.model.named_parameters()}

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fine-tune every so many iterations."""
        self._iterations += 1
        if self.every and self._iterations % self.every == 0 and not self._first:
            self.fine_tune(strategy)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take the experience's samples up, and fine-tune."""
        key = experience_key(strategy, part=True)
        if key != self._taken:  # once, if an experience is trained again
            self.storage.post_adapt(strategy, strategy.experience)
            self._taken = key
        self._owed = not ends(strategy)
        if self._owed:
            return  # of a part of an online experience
        if not self._first:
            self.fine_tune(strategy)
        self._before = {}

    # ---- the work

    def choose(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the parameters that a fine-tuning would tune now, by name.

        :param model: the method.
        :raises UnknownOptionError: if names match no parameter.
        """
        learning = _learning(model)
        if self.by == "change":
            return self._most_changed(learning)
        if self.by == "norms+last":
            chosen = {id(p) for p in _norms_and_last(model)}
            return {n: p for n, p in learning.items() if id(p) in chosen}
        names = [n for n, _ in model.named_parameters()]
        unused = [b for b in self.by if not any(_matches(n, b) for n in names)]
        if unused or not self.by:
            raise UnknownOptionError(
                f"PeriodicFineTuningPlugin(by={self.by}): no parameter of {type(model).__name__} "
                f"is called {unused[0] if unused else 'nothing'!r}; there are, for example, "
                f"{', '.join(names[:3])}"
            )
        return {n: p for n, p in learning.items() if any(_matches(n, b) for b in self.by)}

    def fine_tune(self, strategy: Any) -> None:
        """Tune the chosen parameters on the buffer.

        :param strategy: the strategy; its optimizer and clock are left alone.
        :raises NonFiniteLossError: naming the step; all is put back, the weights
            are those of the step before.
        :raises BatchSizeError: if the buffer's minibatches are too small for the
            method.
        """
        model = strategy.model
        chosen = self.choose(model)
        if not chosen:
            logger.warning("PeriodicFineTuningPlugin: none of the chosen parameters learns now")
            return
        tuned = {id(p) for p in chosen.values()}
        rest = Freezer()
        size = self._batch_size(strategy)
        optimizer = torch.optim.SGD(
            list(chosen.values()),
            lr=self.lr * strategy.lr_scale,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        self.tuned, self.losses = tuple(chosen), []
        try:
            with _memories_kept(model):
                rest.freeze(p for p in model.parameters() if id(p) not in tuned)
                for step, batch in enumerate(self._batches(strategy, size)):
                    optimizer.zero_grad()
                    loss = self._loss(strategy, batch)
                    mean = loss.detach().clone()
                    ranks.average([mean])
                    self.losses.append(float(mean))
                    if not torch.isfinite(mean):
                        raise NonFiniteLossError(
                            f"the loss is {mean.item()} in step {step} of a fine-tuning on the "
                            "buffer: a smaller PeriodicFineTuningPlugin(lr=…) helps"
                        )
                    loss.backward()  # type: ignore[no-untyped-call]
                    ranks.average([p.grad for p in chosen.values() if p.grad is not None])
                    model.after_backward()
                    optimizer.step()
        finally:
            optimizer.zero_grad()
            rest.release()
            detach_normed_weights(model)
        self.fine_tunings += 1

    def _loss(self, strategy: Any, batch: Any) -> Tensor:
        # Half precision would need the scaler, which is the other optimizer's.
        loss: Tensor = strategy.loss_of(batch, full_precision=strategy.scaler.is_enabled())
        return loss

    def _batches(self, strategy: Any, size: int) -> Iterator[Any]:
        buffer = self.storage.buffer.train()
        loader = strategy.loader_of(buffer, size, name="the buffer", drop_last=True)
        done = 0
        while True:
            for batch in loader:
                if done == self.steps:
                    return
                yield batch
                done += 1

    def _batch_size(self, strategy: Any) -> int:
        model, most = strategy.model, self.batch_size or strategy.train_mb_size
        most = min(most, len(self.storage.buffer))
        for size in range(most, 1, -1):
            if model.why_not_batch(size) is None and size % ranks.size() == 0:
                return size
        raise BatchSizeError(
            f"PeriodicFineTuningPlugin: minibatches of at most {most} from a buffer of "
            f"{len(self.storage.buffer)}: {model.why_not_batch(most) or 'two are needed'}: raise "
            "memory or batch_size"
        )

    def _most_changed(self, learning: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        changes = {
            n: relative_change(self._before[n], p) for n, p in learning.items() if n in self._before
        }
        ranked = sorted(changes, key=changes.__getitem__, reverse=True)
        most = set(ranked[: max(1, round(self.share * len(ranked)))])
        return {n: p for n, p in learning.items() if n in most}


@torch.no_grad()
def relative_change(before: Tensor, now: Tensor) -> float:
    """Return ``‖now − before‖ / ‖before‖``; infinity for what was zero and is not any more.

    :param before: any shape.
    :param now: the same shape.
    """
    change, size = float((now - before).norm()), float(before.norm())
    if change == 0:
        return 0.0
    return change / size if size else float("inf")


def _learning(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def _matches(name: str, pattern: str) -> bool:
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:i]), pattern) for i in range(1, len(parts) + 1))


def _norms_and_last(model: nn.Module) -> list[nn.Parameter]:
    chosen = [
        p
        for m in model.modules()
        if isinstance(m, NORM_LAYERS)
        for p in m.parameters(recurse=False)
    ]
    for name, kinds in (("projector", nn.Linear), ("backbone", _ConvNd | nn.Linear)):
        module = named_part(model, name)
        last = [m for m in module.modules() if isinstance(m, kinds)] if module is not None else []
        if last:
            return [*chosen, *last[-1].parameters(recurse=False)]
    return chosen


@contextmanager
def _memories_kept(model: nn.Module) -> Iterator[None]:
    """Put buffers back that are not statistics: queues, their pointers, centres."""
    with buffers_kept(model, of=lambda module: not isinstance(module, NORM_LAYERS)):
        for module in model.modules():
            if "queue_ptr" in module._buffers:  # other minibatches fit at the queue's begin
                module.get_buffer("queue_ptr").zero_()
        yield
