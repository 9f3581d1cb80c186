"""Estimates: steps are counted as a run makes them, and timed after a warm-up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from solo_bridge.comparison import Comparison
from solo_bridge.study import estimate
from solo_bridge.study.plan import plan_of

SMALL = {"samples": 70, "experiences": 2, "width": 4, "batch": 8}


class Counter(SupervisedPlugin):
    """Counts the steps of each experience."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def before_training_exp(self, *args: Any, **kwargs: Any) -> None:
        self.steps.append(0)

    def after_training_iteration(self, *args: Any, **kwargs: Any) -> None:
        self.steps[-1] += 1


def test_steps_are_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "WARM_UP", 1)
    arms = {"fine_tuning": None, "joint": None}
    plan = plan_of({"streams": {"few": SMALL}, "epochs": 3, "arms": arms, "probes": "knn"})
    found, seconds = estimate.estimate(plan, steps=1)
    assert seconds > 0
    for one in found:
        comparison = Comparison(**SMALL, epochs=3)
        stream, counter = comparison.stream(), Counter()
        run = comparison.strategy(one.arm, stream, EvaluationPlugin(loggers=[]), counter)
        for part in [stream.train_stream] if one.arm == "joint" else stream.train_stream:
            run.train(part)
        assert list(one.steps) == counter.steps, one.arm
        assert one.evaluations == len(counter.steps)
        assert one.first > 0 and one.later > 0


def test_the_clock_leaves_out_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [90.0] * 5 + [1.0, 3.0, 2.0]  # the first five are compiled, allocated …
    ends = iter([sum(steps[: i + 1]) for i in range(len(steps))] + [1e6])
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(ends))
    stopped = []
    strategy = SimpleNamespace(
        device=torch.device("cpu"), stop_training=lambda: stopped.append(True)
    )
    clock = estimate.StepClock(2)
    for _ in range(8):
        assert not stopped
        clock.after_training_iteration(strategy)
    assert stopped and clock.taken() == 2.5
    assert clock.taken() == 0.0, "begun anew"


def test_hours_of_all_runs() -> None:
    one = estimate.Estimate("s-simclr-9", "cassle", (100, 200, 300), 0.5, 2.0, 3)
    assert one.seconds == 100 * 0.5 + 500 * 2.0
    table = estimate.table([one], 1200.0, seeds=4)
    assert table.rows[0] == ["s-simclr-9/cassle", "600", "500.0", "2000.0", "0.29", "1.00"]
    assert table.rows[1] == ["all 4 runs", "", "", "", "1.17", "4.00"]
