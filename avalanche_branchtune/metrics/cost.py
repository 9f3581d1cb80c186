"""What training and evaluation cost, as an Avalanche metric."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from avalanche_branchtune.experiences import begins
from avalanche_branchtune.metrics.base import WHERE, RunMetric
from avalanche_branchtune.records.environment import peak_memory_mib
from avalanche_branchtune.records.run import Run


class CostMetric(RunMetric):
    """Seconds of training and of evaluation per experience, and peak memory.

    ``Train_Seconds`` is without evaluation; ``Eval_Seconds`` is all evaluation
    from the beginning of the experience to that of the next one.  It must be
    the last of the metrics.

    Of a run that went on from a checkpoint, seconds are those of the training that counts: of each
    part until its last checkpoint, without what was done again and without the time between.

    :param others: metrics whose ``seconds``, wherever they take them, are evaluation.
    """

    def __init__(self, others: Sequence[Any] = ()) -> None:
        """See the class."""
        super().__init__()
        self.others = list(others)
        self.training: list[float] = []
        self.evaluation: list[float] = []
        self.peak = 0.0
        self._begin = self._accounted = 0.0  # of this experience; evaluation that is in the lists
        self._eval_begin = self._others_begin = 0.0
        self._taken = 0.0  # by the training of the experience, without evaluation
        self._in_eval = self._others_in_eval = 0.0

    @property
    def missing(self) -> bool:
        """Never: time is taken as it passes."""
        return False

    def forget(self, experience: int) -> None:
        """Drop the times of an experience that is trained again."""
        del self.training[experience:], self.evaluation[experience:]

    def before_training_exp(self, strategy: Any) -> None:
        """Start the clock of an experience."""
        part = self._training and not begins(strategy)
        super().before_training_exp(strategy)
        if part:
            return  # a later one of an online experience
        self._account()
        self._accounted, self._begin = self._evaluation(), time.perf_counter()

    def after_training_exp(self, strategy: Any) -> None:
        """Stop it."""
        self._taken = time.perf_counter() - self._begin - self._evaluation() + self._accounted
        self.peak = max(self.peak, peak_memory_mib(strategy.device))
        super().after_training_exp(strategy)

    def _finish(self, strategy: Any) -> None:
        super()._finish(strategy)
        self.training.append(self._taken)
        self.evaluation.append(0.0)
        self._account()

    def after_training(self, strategy: Any) -> None:
        """Take in what the others measured at the end."""
        if not self._training:
            self._account()

    def restored(self, *, more: bool, away: float) -> None:
        """Go on from a checkpoint: the time until it was loaded is not that of the run.

        :param more: whether a later state will follow.
        :param away: seconds by which clocks are to be put on.
        """
        self._begin += away
        self._eval_begin += away

    def before_eval(self, strategy: Any) -> None:
        """Start the clock of an evaluation."""
        self._eval_begin, self._others_begin = time.perf_counter(), self._elsewhere()

    def measure(self, strategy: Any) -> dict[str, float]:
        """Stop it, and return the cost so far."""
        self._in_eval += time.perf_counter() - self._eval_begin
        self._others_in_eval += self._elsewhere() - self._others_begin
        if not self._training:
            self._account()
        self.peak = max(self.peak, peak_memory_mib(strategy.device))
        values = {f"Peak_MiB/{WHERE}": self.peak}
        if self.training:
            values[f"Train_Seconds/{WHERE}"] = self.training[-1]
            values[f"Eval_Seconds/{WHERE}"] = self.evaluation[-1]
        return values

    def record(self, run: Run) -> None:
        """Write seconds and memory."""
        run.seconds, run.evaluation_seconds = list(self.training), list(self.evaluation)
        run.peak_memory_mib = self.peak

    def _account(self) -> None:
        """Put evaluation that is in no list yet down to the last finished experience."""
        if self.evaluation:
            self.evaluation[-1] += self._evaluation() - self._accounted
        self._accounted = self._evaluation()

    def _evaluation(self) -> float:
        """Return the seconds of all evaluation: inside of ``eval``, and the others' outside."""
        return self._in_eval + self._elsewhere() - self._others_in_eval

    def _elsewhere(self) -> float:
        return sum(m.seconds for m in self.others)
