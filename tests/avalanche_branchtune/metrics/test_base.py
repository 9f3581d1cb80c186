"""When a metric measures: once after each experience, and leaving training alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.logging import InteractiveLogger
from avalanche.training.plugins import EvaluationPlugin

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation import KNNProbe, StreamProbe
from avalanche_branchtune.metrics import (
    ContinualEvaluation,
    ProbeMetric,
    RunRecorder,
    run_metrics,
)
from avalanche_branchtune.records import load_run
from avalanche_branchtune.streams import class_incremental
from tests import supervised
from tests.avalanche_branchtune.metrics.measured import analysis, probes, train


def test_an_experience_that_was_not_evaluated_is_measured_before_the_next(tmp_path: Path) -> None:
    runs = []
    for name, evaluate in {"always": lambda t: True, "at the end": lambda t: t == 2}.items():
        recorder = RunRecorder(tmp_path / name, name)
        train(run_metrics(probes(), analysis()), [recorder], evaluate)
        runs.append(load_run(tmp_path / name))
    first, second = runs
    for name, found in first.probes.items():
        assert second.probes[name] == found
    assert first.stability == second.stability and first.plasticity == second.plasticity


def test_the_last_experience_is_measured_without_eval(tmp_path: Path) -> None:
    train(run_metrics(probes(), analysis()), [RunRecorder(tmp_path, "a")], lambda t: False)
    run = load_run(tmp_path)
    assert run.complete and len(run.stability) == 3 and run.probes["kNN"].summary(3)["forgetting"]
    assert len(run.evaluation_seconds) == 3 and min(run.evaluation_seconds) > 0


@pytest.mark.parametrize(("every", "epochs"), [(1, 1), (1, 3), (2, 3), (0, 2)])
def test_periodic_evaluation_leaves_no_experience_out(
    tmp_path: Path, every: int, epochs: int
) -> None:
    recorder = RunRecorder(tmp_path, "a")
    never = lambda t: False  # noqa: E731
    train(run_metrics(probes()[:1]), [recorder], never, eval_every=every, train_epochs=epochs)
    assert load_run(tmp_path).complete


def test_measuring_leaves_training_alone(tmp_path: Path) -> None:
    plain = train([], [InteractiveLogger()], lambda t: False).model.state_dict()
    recorder = RunRecorder(tmp_path, "a")
    measured = train(run_metrics(probes(), analysis()), [recorder]).model.state_dict()
    for name, value in plain.items():
        assert torch.equal(value, measured[name]), name


@pytest.mark.parametrize("order", [[1, 0], [0, 2], [0, 1, 0]])
def test_another_order_than_the_streams_is_refused(order: list[int]) -> None:
    stream = supervised.benchmark()
    evaluator = EvaluationPlugin(*run_metrics(probes()), loggers=[InteractiveLogger()])
    strategy = supervised.strategy([], evaluator=evaluator)
    with pytest.raises(ProbeError, match=r"experience \d is to be trained"):
        for i in order:
            strategy.train(stream.train_stream[i])


def test_metrics_belong_to_one_run() -> None:
    metrics = run_metrics(probes())
    train(metrics, [InteractiveLogger()])
    with pytest.raises(ProbeError, match="make new metrics for a new run"):
        train(metrics, [InteractiveLogger()])


def test_online_streams_are_counted_by_their_experiences(tmp_path: Path) -> None:
    stream = supervised.benchmark(2)
    streams = stream.train_stream, stream.test_stream
    metrics = run_metrics([StreamProbe(KNNProbe(5), *streams, backbone="features")])
    evaluator = EvaluationPlugin(*metrics, loggers=[RunRecorder(tmp_path, "online")])
    strategy = supervised.strategy([], evaluator=evaluator, train_epochs=1)
    parts = split_online_stream(stream.train_stream, 10, access_task_boundaries=True)
    strategy.train(parts)
    strategy.eval(stream.test_stream)
    run = load_run(tmp_path)
    assert (run.n_experiences, run.finished) == (2, 2) and len(run.seconds) == 2


def test_what_is_known_of_an_end_only_when_the_next_begins(tmp_path: Path) -> None:
    """Parts that divide an experience exactly: Avalanche marks none of them as the last."""
    stream = supervised.benchmark(3)
    size = len(stream.train_stream[0].dataset) // 2
    assert all(len(e.dataset) == 2 * size for e in stream.train_stream)
    recorder = RunRecorder(tmp_path, "online")
    evaluator = EvaluationPlugin(*run_metrics([]), loggers=[recorder])
    strategy = supervised.strategy([BranchTuningPlugin(verbose=False)], evaluator=evaluator)
    parts = split_online_stream(stream.train_stream, size, access_task_boundaries=True)
    strategy.train(parts)
    run = recorder.run
    assert len(run.seconds) == 2 and all(seconds > 0 for seconds in run.seconds)
    assert len(run.branch_norms) == 2 and run.branch_norms[1], "the last has not ended"


def test_a_probe_of_another_stream_is_refused() -> None:
    def with_order(order: list[int]) -> Any:
        train, test = supervised.dataset(), supervised.dataset(seed=1)
        return class_incremental(train, test, 3, class_order=order)

    ours, theirs = with_order([0, 1, 2, 3, 4, 5]), with_order([4, 5, 2, 3, 0, 1])
    for made in (
        lambda s: ProbeMetric(StreamProbe(KNNProbe(2), s.train_stream, s.test_stream)),
        lambda s: ContinualEvaluation(StreamProbe(KNNProbe(2), s.train_stream, s.test_stream), 9),
    ):
        for stream in (ours, theirs):
            run = supervised.strategy([], evaluator=EvaluationPlugin(made(stream)), train_epochs=1)
            if stream is ours:
                run.train(ours.train_stream)
            else:
                with pytest.raises(ProbeError, match=r"with the classes \[0, 1\] …, .* \[4, 5\]"):
                    run.train(ours.train_stream)
