"""Probes as metrics: the rows of their matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from avalanche.logging import TextLogger
from avalanche.training import JointTraining
from avalanche.training.plugins import EvaluationPlugin
from torch import nn

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation import KNNProbe, StreamProbe
from avalanche_branchtune.evaluation.probe import FEATURES, OUTPUTS
from avalanche_branchtune.metrics import ProbeMetric, RunRecorder, run_metrics
from avalanche_branchtune.records import load_run
from tests import supervised
from tests.avalanche_branchtune.metrics.measured import probes, train


def test_evaluation_during_an_experience_is_no_row_of_the_matrix(tmp_path: Path) -> None:
    runs = []
    for every in (-1, 1):
        recorder = RunRecorder(tmp_path / str(every), "a")
        train(run_metrics(probes()), [recorder], eval_every=every)
        runs.append(load_run(tmp_path / str(every)))
    for name, found in runs[0].probes.items():
        assert runs[1].probes[name].accuracies == found.accuracies


def test_two_probes_of_one_name_are_refused(tmp_path: Path) -> None:
    stream = supervised.benchmark()
    same = [
        StreamProbe(KNNProbe(k), stream.train_stream, stream.test_stream, backbone="features")
        for k in (3, 5)
    ]
    with pytest.raises(ProbeError, match=r"two probes have one name \(kNN, kNN\)"):
        run_metrics(same)
    with pytest.raises(ProbeError, match="two probes are called 'kNN'"):
        train([ProbeMetric(p) for p in same], [RunRecorder(tmp_path, "a")])


def test_joint_training_is_one_experience(tmp_path: Path) -> None:
    stream = supervised.benchmark()
    metric = ProbeMetric(
        StreamProbe(
            KNNProbe(5),
            stream.train_stream,
            stream.test_stream,
            scope="seen",
            backbone="features",
        )
    )
    evaluator = EvaluationPlugin(metric, loggers=[RunRecorder(tmp_path, "joint")])
    strategy = supervised.strategy([], evaluator=evaluator)
    strategy.train(supervised.benchmark(1).train_stream)
    strategy.eval(stream.test_stream)
    run = load_run(tmp_path)
    assert run.n_experiences == 1 and run.complete
    found = run.probes["kNN_seen"]
    assert None not in found.accuracies[0], "joint training has seen all experiences"
    assert found.summary(1) == {"final_accuracy": pytest.approx(np.mean(found.accuracies[0]))}


def test_avalanches_joint_training_is_one_experience(tmp_path: Path) -> None:
    stream = supervised.benchmark()
    metrics = run_metrics(probes())
    evaluator = EvaluationPlugin(*metrics, loggers=[RunRecorder(tmp_path, "joint")])
    model = supervised.Net()
    strategy = JointTraining(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=8,
        evaluator=evaluator,
    )
    strategy.train(stream.train_stream)
    strategy.eval(stream.test_stream)
    run = load_run(tmp_path)
    assert run.n_experiences == 1 and run.complete
    assert None not in run.probes["linear_seen"].accuracies[0]
    assert set(run.probes["kNN"].summary(1)) == {"final_accuracy"}


@pytest.mark.parametrize("which", ["stream", "alone"])
def test_a_probe_is_no_metric(which: str) -> None:
    """Avalanche's evaluator takes any object, and asks it only for what it has."""
    benchmark = supervised.benchmark(2)
    alone = KNNProbe(3)
    probe = StreamProbe(alone, benchmark.train_stream, benchmark.test_stream)
    evaluator = EvaluationPlugin(probe if which == "stream" else alone, loggers=[TextLogger()])
    strategy = supervised.strategy([], evaluator=evaluator)
    for call, stream in (("train", benchmark.train_stream), ("eval", benchmark.test_stream)):
        with pytest.raises(ProbeError, match=r"a probe is no metric: pass .*run_metrics"):
            getattr(strategy, call)(stream[0])


def test_what_is_judged_is_said_of_a_network_with_a_classifier() -> None:
    benchmark, model = supervised.benchmark(2), supervised.Net()
    streams = benchmark.train_stream, benchmark.test_stream
    said = {
        part: StreamProbe(KNNProbe(3), *streams, backbone=part).measure(model, 1).settings
        for part in (None, "features")
    }
    assert said[None]["features"] == OUTPUTS
    assert said["features"]["features"] == FEATURES
    model.fc = nn.Identity()  # type: ignore[assignment]
    assert StreamProbe(KNNProbe(3), *streams).measure(model, 1).settings["features"] == FEATURES
