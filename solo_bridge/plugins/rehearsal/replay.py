"""Replay in whole batches, with the storage policy chosen by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from avalanche.training.plugins import ReplayPlugin
from avalanche.training.storage_policy import ExemplarsBuffer, ReservoirSamplingBuffer

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import BatchSizeError, UnknownOptionError
from avalanche_branchtune.experiences import experience_key
from avalanche_branchtune.options import at_least_one, one_of
from solo_bridge.plugins.rehearsal.buffers import (
    BalancedClassesBuffer,
    FirstPerClassBuffer,
    MinimumRedundancyBuffer,
)
from solo_bridge.registry import register

logger = logging.getLogger(__name__)

POLICIES: dict[str, Callable[[int], ExemplarsBuffer]] = {
    "reservoir": ReservoirSamplingBuffer,
    "class_balanced": BalancedClassesBuffer,
    "min_redundancy": MinimumRedundancyBuffer,
    "first_per_class": lambda size: FirstPerClassBuffer(max_size=size),
}


class WholeBatchReplay(ReplayPlugin):
    """Avalanche's replay, of which every joined batch has the same size.

    From the second experience on each minibatch is ``batch_size`` new samples
    and ``batch_size_mem`` of the buffer (fewer if there are not as many, all
    through the experience), as views, with their labels, so replayed samples
    enter every term of the loss.  Incomplete batches are dropped, as
    :class:`~solo_bridge.SelfSupervised` does without replay.

    Avalanche's code: ContinualAI/avalanche eb075be, avalanche/training/plugins/replay.py,
    ReplayPlugin.
    Authors' code: dr-bell/kaizen e36ee54, bash_files, ``--replay_batch_size``, for the 32.

    Methods with a queue (MoCo v2+, NNCLR …) take joined batches of any size up to
    the queue's, as in Kaizen's code; W-MSE takes multiples of its ``whitening_size``.

    :param policy: the buffer, any of Avalanche's or of
        :mod:`solo_bridge.plugins.rehearsal.buffers`.
    :param batch_size: new samples in a batch; by default ``train_mb_size``.
    :param batch_size_mem: replayed samples in a batch.
    :raises UnknownOptionError: for numbers below 1.
    :raises BatchSizeError: when an experience begins, for a joined batch that
        the method cannot take.
    """

    batch_size: int | None
    batch_size_mem: int | None

    def __init__(
        self, policy: ExemplarsBuffer, *, batch_size: int | None = None, batch_size_mem: int = 32
    ) -> None:
        """See the class."""
        name = type(self).__name__
        if batch_size is not None:
            at_least_one(f"{name}(batch_size=…)", batch_size)
        at_least_one(f"{name}(batch_size_mem=…)", batch_size_mem)
        super().__init__(
            mem_size=policy.max_size,
            batch_size=batch_size,
            batch_size_mem=batch_size_mem,
            storage_policy=policy,
        )
        self._taken: tuple[str, int] | None = None

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse, before anything is trained, a policy that would end it at a bad image."""
        looks = isinstance(self.storage_policy, MinimumRedundancyBuffer)
        if looks and strategy.on_bad_image == "skip":
            raise UnknownOptionError(
                "MinimumRedundancyBuffer compares all images of an experience: pass "
                "SelfSupervised(on_bad_image='stop'), after taking out what branchtune check names"
            )

    def before_training_exp(
        self,
        strategy: Any,
        num_workers: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        **kwargs: Any,
    ) -> None:
        """Put a loader of joined batches in place, once something is remembered."""
        remembered = len(self.storage_policy.buffer)
        if not remembered:
            return
        asked = self.batch_size, self.batch_size_mem
        new = min(self.batch_size or strategy.train_mb_size, len(strategy.adapted_dataset))
        old = min(self.batch_size_mem or new, remembered)
        over = (new + old) % ranks.size()
        if over and old > over:  # of a buffer that is not full: the ranks' shares are equal
            logger.warning(
                "%s: %d of the buffer's samples in a minibatch instead of %d, which %d processes "
                "cannot share equally",
                type(self).__name__,
                old - over,
                old,
                ranks.size(),
            )
            old -= over
        _check(strategy, new, old)
        self.batch_size, self.batch_size_mem = new, old
        try:
            super().before_training_exp(
                strategy, num_workers=num_workers, shuffle=shuffle, drop_last=drop_last, **kwargs
            )
        finally:
            self.batch_size, self.batch_size_mem = asked

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let an experience's samples enter the buffer, once if it is trained again."""
        key = experience_key(strategy, part=True)
        if key != self._taken:
            super().after_training_exp(strategy, **kwargs)
            self._taken = key


@register("replay", "replay", policy="reservoir")
@register("replay_class_balanced", "replay, class-balanced", policy="class_balanced")
@register("replay_first_per_class", "replay, first 1 %", policy="first_per_class")
@register("replay_min_redundancy", "replay, MinRed", policy="min_redundancy")
def replay(
    policy: str,
    size: int | None = None,
    batch_size_mem: int = 32,
    *,
    batch_size: int | None = None,
) -> WholeBatchReplay:
    """Make a replay plugin.

    :param policy: ``"reservoir"``: a uniform sample of the stream;
        ``"class_balanced"``: as many of each class, samples without a label
        being one class; ``"min_redundancy"``: see
        :class:`~solo_bridge.plugins.rehearsal.buffers.MinimumRedundancyBuffer`;
        ``"first_per_class"``: the first 1 % of each class, see
        :class:`~solo_bridge.plugins.rehearsal.buffers.FirstPerClassBuffer`.
    :param size: samples in the buffer; 200 by default, for
        ``"first_per_class"`` without limit.
    :param batch_size_mem: replayed samples in each batch.
    :param batch_size: new samples in each batch; by default ``train_mb_size``.
    :return: the plugin.
    :raises UnknownOptionError: for an unknown policy or numbers below 1.
    """
    one_of("replay(policy=…)", policy, POLICIES)
    if size is not None:
        at_least_one("replay(size=…)", size)
    if policy == "first_per_class" and size is None:
        buffer: ExemplarsBuffer = FirstPerClassBuffer()
    else:
        buffer = POLICIES[policy](200 if size is None else size)
    return WholeBatchReplay(buffer, batch_size=batch_size, batch_size_mem=batch_size_mem)


def _check(strategy: Any, new: int, old: int) -> None:
    """Refuse joined batches that the method cannot take."""
    reason = strategy.model.why_not_batch(new + old)
    if reason is not None:
        raise BatchSizeError(
            f"replay under {reason}, here of {new} new and {old} replayed samples: choose "
            "batch_size (of the new ones) and batch_size_mem so that together they are as many as "
            "train_mb_size, and a buffer of at least batch_size_mem"
        )
