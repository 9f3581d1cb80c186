"""What the metrics of a whole run have in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.experiences import begins, ends, experience_index, stream_length
from avalanche_branchtune.keeping import random_state_kept
from avalanche_branchtune.records.run import Run

WHERE = "eval_phase/test_stream"
"""Where values belong, in the names that Avalanche gives its own."""


class RunMetric(PluginMetric, ABC):
    """A metric of the whole network, measured once after every experience."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.trained = 0
        """Number of finished training experiences."""
        self.stream_length = 0
        """Number of training experiences of the stream that is trained on."""
        self.seconds = 0.0
        """Time that measuring took."""
        self._training = False
        self._paused = False  # the last part of an online experience ended as it should

    @abstractmethod
    def measure(self, strategy: Any) -> dict[str, float]:
        """Measure the network.

        :param strategy: the strategy.
        :return: names and values.
        """

    @abstractmethod
    def record(self, run: Run) -> None:
        """Write what was found so far into the record of a run."""

    @property
    @abstractmethod
    def missing(self) -> bool:
        """Whether the network as it is between experiences has not been measured yet."""

    def forget(self, experience: int) -> None:
        """Drop what was measured of an experience that is trained again.

        :param experience: its index, the last one.
        """

    def before_training_exp(self, strategy: Any) -> list[MetricValue] | None:
        """Measure the network as it was left, if that was not done.

        :raises ProbeError: if experiences are not trained in their order.
        """
        if self._training and not begins(strategy):
            self._paused = False
            return None  # a later part of an online experience
        if self._training and self._paused:  # Avalanche marked no part as the last
            self._finish(strategy)
        self._training = self._paused = False
        self.stream_length = stream_length(strategy) or max(1, self.stream_length)
        index = experience_index(strategy)
        if index == self.trained - 1 and self.stream_length > 1:  # it is trained again
            self.trained = index
        if self.stream_length > 1 and index != self.trained:
            raise ProbeError(
                f"experience {index} is to be trained after {self.trained} others: an accuracy "
                "matrix has its experiences in the stream's order, with the same metrics from the "
                "first on; train one that was interrupted again, or make new metrics for a new run"
            )
        self.forget(self.trained)
        # Branches that were just put on are zero: the function is still that of the last network.
        values = self._values(strategy) if self.missing else None
        self._training = True
        return values

    def after_training_exp(self, strategy: Any) -> None:
        """Count the experience."""
        self._paused = True
        if ends(strategy):
            self._finish(strategy)

    def after_training(self, strategy: Any) -> list[MetricValue] | None:
        """Measure what was trained last: ``eval`` may not be called any more."""
        return self._values(strategy) if self.missing and not self._training else None

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Measure the network."""
        return self._values(strategy)

    def result(self) -> None:
        """Give nothing: values belong to an event."""

    def reset(self) -> None:
        """Keep everything: a run is one series."""

    def _finish(self, strategy: Any) -> None:
        """Count an experience: when it ends, or when the next begins if only then that is known."""
        self._training = False
        self.trained += 1

    def _values(self, strategy: Any) -> list[MetricValue]:
        begin = time.perf_counter()
        with random_state_kept():
            found = self.measure(strategy)
        self.seconds += time.perf_counter() - begin
        x = strategy.clock.train_iterations
        return [MetricValue(self, name, value, x) for name, value in found.items()]
