"""How long an optimizer lasts: an experience, or the whole stream."""

from __future__ import annotations

from typing import Any

from avalanche_branchtune.experiences import stream_mark, stream_samples
from avalanche_branchtune.optimizers import renew_groups
from avalanche_branchtune.options import one_of
from solo_bridge.compat.schedule import Place

OPTIMIZER_PER = ("experience", "stream")


class Lasting:
    """Makes a strategy's optimizer anew, or lets it go on.

    :param per: ``"experience"``: each has a fresh one.  ``"stream"``: state and schedule go on from
        experience to experience, until another stream begins.
    """

    def __init__(self, per: str) -> None:
        """See the class."""
        self.per = one_of("SelfSupervised(optimizer_per=…)", per, OPTIMIZER_PER)
        self._mark: str | None = None  # of the stream that the optimizer was made for
        self._index = 0
        self._steps: list[int] | None = None  # in an epoch of each of its experiences

    def begin(self, strategy: Any) -> None:
        """Give the experience in training its optimizer.

        :param strategy: whose data of the experience are there.
        :raises OptimizerMismatchError: for an optimizer that cannot be kept.
        """
        if self.per == "experience":
            strategy.make_optimizer()
            return
        mark = stream_mark(strategy.experience)
        if mark != self._mark:
            strategy.make_optimizer()
            samples = stream_samples(strategy)
            batch = strategy.train_mb_size
            self._steps = None if samples is None else [max(1, n // batch) for n in samples]
            self._mark = mark
        self._index = getattr(strategy.experience, "current_experience", 0)
        renew_groups(strategy.optimizer, strategy.model.parameter_groups())

    def place(self, epochs: int) -> Place | None:
        """Return where the experience stands in the stream that the optimizer lasts for.

        :param epochs: of each experience.
        :return: None if it lasts for the experience alone.
        """
        if self.per == "experience":
            return None
        if self._steps is None:
            return Place(0, 1, None)
        begun, own = sum(self._steps[: self._index]), self._steps[self._index]
        return Place(begun * epochs, own * epochs, sum(self._steps) * epochs)
