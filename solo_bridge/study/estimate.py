"""How long the runs of a study take on this machine: a few steps of each arm, measured."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from avalanche_branchtune.report.formats import Table, number
from solo_bridge.comparison.measured import metrics_of
from solo_bridge.comparison.settings import Comparison
from solo_bridge.references import Joint
from solo_bridge.strategy import SelfSupervised
from solo_bridge.study.plan import Job, Plan

WARM_UP = 5
"""Steps of each experience that are not counted."""
STEPS = 20
"""Steps of each experience that are."""


@dataclass(frozen=True)
class Estimate:
    """What one run takes.

    :param group: what its results are compared with.
    :param arm: what is trained.
    :param steps: of each experience.
    :param first: seconds of a step in the first experience, the median.
    :param later: the same in the second one, with what a strategy adds from there on; of joint
        training, which has one experience, the first's.
    :param evaluations: how often it is evaluated.
    """

    group: str
    arm: str
    steps: tuple[int, ...]
    first: float
    later: float
    evaluations: int

    @property
    def seconds(self) -> float:
        """Of training."""
        return self.first * self.steps[0] + self.later * sum(self.steps[1:])


class StepClock(SupervisedPlugin):
    """Ends an experience after some steps, and has the median of their seconds.

    A step is timed from the end of the one before: with its images, its views and what plugins do.

    :param steps: that are counted, after :data:`WARM_UP`.
    """

    def __init__(self, steps: int) -> None:
        """See the class."""
        super().__init__()
        self.steps = steps
        self.ends: list[float] = []

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note the time when the device has done all of the step."""
        if strategy.device.type == "cuda":
            torch.cuda.synchronize(strategy.device)
        self.ends.append(time.perf_counter())
        if len(self.ends) > WARM_UP + self.steps:
            strategy.stop_training()

    def taken(self) -> float:
        """Return the median, 0 if there were no steps; begins anew."""
        ends, self.ends = self.ends[WARM_UP:], []
        return median(b - a for a, b in itertools.pairwise(ends)) if len(ends) > 1 else 0.0


def steps_of(comparison: Comparison, data: list[Any]) -> tuple[int, ...]:
    """Return how many steps each experience has; an incomplete last minibatch is left out.

    :param comparison: whose batch and epochs.
    :param data: of each experience.
    """
    return tuple(comparison.epochs * max(1, len(d) // comparison.batch) for d in data)


def estimate(
    plan: Plan,
    stream_of: Callable[[Comparison], Any] = Comparison.stream,
    steps: int = STEPS,
    done: Callable[[Estimate], None] | None = None,
) -> tuple[list[Estimate], float]:
    """Measure each arm of each stream, method and schedule; nothing is kept of what it learns.

    :param plan: of which the runs of the first seed are measured.
    :param stream_of: its stream; one of random images takes as long.
    :param steps: how many of each experience are counted.
    :param done: called with each that is measured.
    :return: them, and the seconds of one evaluation, measured with the first: probes alone.
    """
    found, evaluation = list[Estimate](), None
    for job in replace(plan, seeds=plan.seeds[:1]).jobs():
        stream = stream_of(job.comparison)
        strategy, one = _measured(job, stream, steps)
        if evaluation is None:
            evaluation = _evaluated(strategy, job.comparison, stream)
        found.append(one)
        if done is not None:
            done(one)
        del strategy
        gc.collect()  # what it has on the device
    return found, evaluation or 0.0


def _measured(job: Job, stream: Any, steps: int) -> tuple[SelfSupervised, Estimate]:
    comparison, train = job.comparison, stream.train_stream
    clock = StepClock(steps)
    fewest = min(len(e.dataset) // comparison.batch for e in train)
    enough = replace(comparison, epochs=2 + (WARM_UP + steps) // max(1, fewest))
    evaluator = EvaluationPlugin(loggers=[])
    strategy = enough.strategy(job.strategy, stream, evaluator, clock)
    joint = isinstance(strategy, Joint)
    taken = []
    for part in [train] if joint else train[:2]:
        strategy.train(part, num_workers=comparison.workers)
        taken.append(clock.taken())
    sizes = [e.dataset for e in train]
    data = [range(sum(map(len, sizes)))] if joint else sizes
    number_of_steps = steps_of(comparison, data)
    one = Estimate(job.group, job.arm, number_of_steps, taken[0], taken[-1], len(data))
    return strategy, one


def _evaluated(strategy: SelfSupervised, comparison: Comparison, stream: Any) -> float:
    strategy.evaluator.metrics = metrics_of(comparison.probes, strategy, stream, None)
    begin = time.perf_counter()
    strategy.eval(stream.test_stream, loss=False)
    return time.perf_counter() - begin


def table(found: list[Estimate], evaluation: float, seeds: int) -> Table:
    """Return what is estimated, a row for each run and one for all.

    :param found: see :func:`estimate`.
    :param evaluation: seconds of one.
    :param seeds: how many there are of each.
    """
    rows = [
        [
            f"{one.group}/{one.arm}",
            str(sum(one.steps)),
            number(1000 * one.first),
            number(1000 * one.later),
            number(one.seconds / 3600, 2),
            number(one.evaluations * evaluation / 3600, 2),
        ]
        for one in found
    ]
    training = seeds * sum(one.seconds for one in found) / 3600
    evaluations = seeds * sum(one.evaluations for one in found) * evaluation / 3600
    runs = seeds * len(found)
    rows.append([f"all {runs} runs", "", "", "", number(training, 2), number(evaluations, 2)])
    head = ["run", "steps", "ms, first", "ms, later", "hours training", "hours evaluation"]
    return Table("estimate", f"Time of {runs} runs, {seeds} of each, one at a time", head, rows, [])
