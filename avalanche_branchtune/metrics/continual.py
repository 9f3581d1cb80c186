"""Continual evaluation: a probe measured during training, as an Avalanche metric."""

from __future__ import annotations

import math
import time
from typing import Any

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.stream import StreamProbe
from avalanche_branchtune.evaluation.traces import StabilityGap, Trace, stability_gap
from avalanche_branchtune.experiences import begins, ends, experience_index
from avalanche_branchtune.keeping import random_state_kept
from avalanche_branchtune.options import at_least, at_least_one
from avalanche_branchtune.records.run import Run

WHERE = "train_phase/test_stream"
"""Where values belong, in the names that Avalanche gives its own."""


class ContinualEvaluation(PluginMetric):
    """Measure a probe every few iterations of training, for the stability gap.

    Also before the first and after the last iteration of every experience.
    Training is the same, bit for bit, as without it.  Emits
    ``<probe>_Continual_Acc/train_phase/test_stream/Exp000`` at each
    measurement, and after each experience ``<probe>_MinAcc``, ``_WCAcc``,
    ``_WF<window>``, ``_WP<window>`` (those that are defined, see
    :func:`~avalanche_branchtune.evaluation.stability_gap`) and
    ``_Continual_Seconds``, at x = iterations done.

    In an online stream that gives access to its task boundaries, an experience
    is the one that the small ones are cut from.

    Authors' code: Mattdl/ContinualEvaluation 7ffa368, src/eval/continual_eval.py,
    ContinualEvaluationPhasePlugin (De Lange et al., arXiv 2205.13452).
    Differs: theirs measures before the first iteration of the stream only, ours of each experience,
    and this enters WF and WP of the new one.

    :param probe: what is measured; with ``scope="seen"`` on the experiences up
        to the one in training.
    :param every: iterations between two measurements, counted in each experience.
    :param window: measurements in a window of WF and WP.
    :raises UnknownOptionError: for ``every`` below 1 or ``window`` below 2.
    """

    def __init__(self, probe: StreamProbe, every: int, *, window: int = 10) -> None:
        """See the class."""
        super().__init__()
        self.probe = probe
        self.every = at_least_one("ContinualEvaluation(every=…)", every)
        self.window = at_least(2, "ContinualEvaluation(window=…)", window)
        self.trace = Trace()
        """All measurements so far."""
        self.seconds = 0.0
        """Time that measuring took."""
        self._begin: int | None = None  # iterations done when the experience began
        self._paused: int | None = None  # experience of which a part has ended

    def before_training_exp(self, strategy: Any) -> list[MetricValue]:
        """Measure the network with which an experience begins."""
        self.probe.check_trained(strategy)
        index = experience_index(strategy)
        if not begins(strategy) and self.trace.experiences[-1:] == [index]:
            return []  # a later part of an online experience
        self._begin = int(strategy.clock.train_iterations)
        left = [] if self._paused is None else self._sum_up(strategy, self._paused)
        return left + self._measure(strategy, self._begin, index)

    def after_training_iteration(self, strategy: Any) -> list[MetricValue]:
        """Measure every few iterations."""
        done = int(strategy.clock.train_iterations) + 1  # the clock counts after the metrics
        if self._begin is None or (done - self._begin) % self.every:
            return []
        return self._measure(strategy, done, experience_index(strategy))

    def after_training_exp(self, strategy: Any) -> list[MetricValue]:
        """Measure the network that an experience leaves, and sum up."""
        index = experience_index(strategy)
        if not ends(strategy):
            self._paused = index  # Avalanche may mark no part as the last
            return []
        return self._sum_up(strategy, index)

    def _sum_up(self, strategy: Any, index: int) -> list[MetricValue]:
        self._paused = None
        done = int(strategy.clock.train_iterations)
        values = self._measure(strategy, done, index)
        found, name = self.result(), self.probe.name
        assert found is not None
        summary = {
            f"{name}_MinAcc": found.min_acc,
            f"{name}_WCAcc": found.wc_acc,
            f"{name}_WF{self.window}": found.windowed_forgetting,
            f"{name}_WP{self.window}": found.windowed_plasticity,
            f"{name}_Continual_Seconds": self.seconds,
        }
        return values + [
            MetricValue(self, f"{key}/{WHERE}", value, done)
            for key, value in summary.items()
            if value is not None
        ]

    def result(self) -> StabilityGap | None:
        """Return the worst-case numbers so far, None before the first measurement."""
        return stability_gap(self.trace, window=self.window) if self.trace.iterations else None

    def reset(self) -> None:
        """Keep everything: a run is one series."""

    def record(self, run: Run) -> None:
        """Write the trace into the record of a run.

        :param run: the record.
        """
        if run.trace is not None and run.trace is not self.trace:
            raise ProbeError("a run records one ContinualEvaluation, there are two")
        self.trace.probe, self.trace.protocol = self.probe.name, self.probe.settings()
        run.trace = self.trace

    def _measure(self, strategy: Any, done: int, index: int) -> list[MetricValue]:
        """Measure now; a measurement of the same iteration and experience is replaced."""
        begin, trace = time.perf_counter(), self.trace
        trained = min(index + 1, len(self.probe.train))
        with random_state_kept():
            accuracies = self.probe.measure(strategy.model, trained).accuracies
        while trace.experiences[-1:] == [index] and trace.iterations[-1] >= done:
            del trace.iterations[-1], trace.accuracies[-1], trace.experiences[-1]
        trace.iterations.append(done)
        trace.accuracies.append([math.nan if a is None else a for a in accuracies])
        trace.experiences.append(index)
        self.seconds += time.perf_counter() - begin
        return [
            MetricValue(self, f"{self.probe.name}_Continual_Acc/{WHERE}/Exp{i:03d}", a, done)
            for i, a in enumerate(accuracies)
            if a is not None
        ]
