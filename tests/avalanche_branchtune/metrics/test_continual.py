"""Continual evaluation during training."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torch.utils.data import Dataset

from avalanche_branchtune import BranchTuningPlugin, compress, is_expanded
from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.evaluation import (
    ClassifierProbe,
    KNNProbe,
    StreamProbe,
    stability_gap,
)
from avalanche_branchtune.evaluation.features import fingerprint
from avalanche_branchtune.evaluation.traces import check_trace
from avalanche_branchtune.metrics import ContinualEvaluation
from avalanche_branchtune.records import Run
from solo_bridge import SelfSupervised
from tests import selfsupervised, supervised
from tests.oracles.same_training import Diary


class Dice(Dataset):
    """A data set that draws from every random state there is."""

    def __init__(self, dataset: Any) -> None:
        self.images = dataset

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x, y = self.images[index][:2]
        noise = torch.rand(()) + random.random() + np.random.rand()
        return x + 1e-3 * float(noise), y


def with_views(metric: ContinualEvaluation | None, plugins: list[Any]) -> SelfSupervised:
    evaluator = EvaluationPlugin(*([metric] if metric else []))
    return selfsupervised.strategy(
        selfsupervised.method("byol"), plugins, evaluator=evaluator, train_epochs=1
    )


def with_labels(metric: ContinualEvaluation | None, plugins: list[Any]) -> Any:
    evaluator = EvaluationPlugin(*([metric] if metric else []))
    return supervised.strategy(plugins, evaluator=evaluator, train_epochs=1)


def streams(kind: str) -> tuple[list[Any], list[Any]]:
    """Three experiences for training, and their test experiences."""
    benchmark = supervised.benchmark() if kind == "labels" else selfsupervised.stream(5)
    return list(benchmark.train_stream)[:3], list(benchmark.test_stream)[:3]


MAKE = {"labels": with_labels, "views": with_views}
BACKBONE = {"labels": "features", "views": None}


class Watch(StreamProbe):
    """Compares what an expanded network gives with what the merged one does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expanded: list[bool] = []
        self.trained: list[int] = []
        self.states: list[str] = []

    def measure(self, model: nn.Module, trained: int) -> Any:
        result = super().measure(model, trained)
        self.expanded.append(is_expanded(model))
        self.trained.append(trained)
        self.states.append(fingerprint(model))
        if self.expanded[-1]:
            merged = copy.deepcopy(model)
            compress(merged)
            again = super().measure(merged, trained)
            for x, y in zip(result.features, again.features, strict=True):
                torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
        return result


def probe(kind: str, cls: type[StreamProbe] = StreamProbe, **options: Any) -> Any:
    return cls(KNNProbe(3), *streams(kind), backbone=BACKBONE[kind], **options)


@pytest.mark.parametrize("norm_mode", ["affine", "eval"])
@pytest.mark.parametrize("kind", ["labels", "views"])
def test_training_is_the_same_with_and_without(kind: str, norm_mode: str) -> None:
    train_stream, test_stream = streams(kind)

    def train(measured: bool) -> list[Any]:
        data = [Dice(e.dataset.eval()) for e in test_stream]
        metric = None
        if measured:
            judge = StreamProbe(KNNProbe(3), data, data, backbone=BACKBONE[kind])
            metric = ContinualEvaluation(judge, every=1)
        diary = Diary()
        branches = BranchTuningPlugin(verbose=False, norm_mode=norm_mode)
        run = MAKE[kind](metric, [diary, branches])
        run.train_epochs = 2
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        for experience in train_stream:
            run.train(experience)
        assert not measured or len(metric.trace.iterations) >= 9
        return diary.entries

    without, measured = train(False), train(True)
    assert len(without) == len(measured) > 12
    for a, b in zip(without, measured, strict=True):
        assert a == b


@pytest.mark.parametrize("kind", ["labels", "views"])
@pytest.mark.parametrize("scope", ["all", "seen"])
def test_what_is_measured_and_emitted(kind: str, scope: str) -> None:
    judge = probe(kind, Watch, scope=scope)
    metric = ContinualEvaluation(judge, every=2, window=3)
    run = MAKE[kind](metric, [BranchTuningPlugin(verbose=False)])
    run.train_epochs = 3
    ends = [0]
    for experience in streams(kind)[0]:
        run.train(experience)
        ends.append(run.clock.train_iterations)
    expected = []
    for k in range(3):
        times = {*range(ends[k], ends[k + 1] + 1, 2), ends[k + 1]}
        expected += [(t, k) for t in sorted(times)]
    trace = metric.trace
    assert list(zip(trace.iterations, trace.experiences, strict=True)) == expected
    assert min(b - a for a, b in itertools.pairwise(ends)) >= 3
    if scope == "all":
        assert not np.isnan(trace.accuracies).any()
    else:
        seen = [[i <= k for i in range(3)] for k in trace.experiences]
        assert (~np.isnan(trace.accuracies)).tolist() == seen
    assert set(judge.trained) == {1, 2, 3}
    # Branches are there while an experience is trained, and gone when it has been.
    assert True in judge.expanded and judge.expanded[-1] is False

    values = run.evaluator.get_all_metrics()
    name = judge.name
    x, a = values[f"{name}_Continual_Acc/train_phase/test_stream/Exp001"]
    emitted = dict(zip(x, a, strict=True))
    kept = {
        t: row[1]
        for t, row in zip(trace.iterations, trace.accuracies, strict=True)
        if not math.isnan(row[1])
    }
    assert emitted == kept
    found = stability_gap(trace, window=3)
    assert found == metric.result()
    scalars = {
        "MinAcc": found.min_acc,
        "WCAcc": found.wc_acc,
        "WF3": found.windowed_forgetting,
        "WP3": found.windowed_plasticity,
        "Continual_Seconds": metric.seconds,
    }
    for key, value in scalars.items():
        x, a = values[f"{name}_{key}/train_phase/test_stream"]
        assert (x[-1], a[-1]) == (ends[-1], value)
        assert x == (ends[2:] if key == "MinAcc" else ends[1:]), key
    assert metric.seconds > 0

    record = Run("x", 3)
    metric.record(record)
    assert record.trace is trace


def test_last_measurement_of_an_experience_is_of_the_merged_network() -> None:
    # With every=1 the last iteration is measured expanded first: that one is replaced.
    judge = probe("labels", Watch)
    metric = ContinualEvaluation(judge, every=1)
    run = with_labels(metric, [BranchTuningPlugin(verbose=False)])
    stream = streams("labels")[0]
    run.train([stream[0], stream[1]])
    trace = metric.trace
    check_trace(trace)
    assert trace.iterations == [0, 1, 2, 2, 3, 4]
    assert judge.expanded[-2:] == [True, False]
    assert trace.accuracies[-1] == judge.measure(run.model, 2).accuracies


def test_interrupted_training_goes_on_in_the_same_trace() -> None:
    class Interrupt(SupervisedPlugin):
        armed = True

        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            if self.armed and strategy.clock.train_iterations == 3:
                raise KeyboardInterrupt

    interrupt = Interrupt()
    metric = ContinualEvaluation(probe("labels"), every=1)
    run = with_labels(metric, [BranchTuningPlugin(verbose=False), interrupt])
    stream = streams("labels")[0]
    run.train(stream[0])
    with pytest.raises(KeyboardInterrupt):
        run.train(stream[1])
    interrupt.armed = False
    run.train(stream[1])
    check_trace(metric.trace)
    assert metric.trace.iterations == [0, 1, 2, 2, 3, 4, 5]
    assert metric.trace.experiences == [0, 0, 0, 1, 1, 1, 1]


def test_online_stream_is_measured_by_the_experiences_it_is_cut_from() -> None:
    judge = probe("labels", Watch, scope="seen")
    metric = ContinualEvaluation(judge, every=4)
    torch.manual_seed(0)
    model = supervised.Net()
    run = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=4,
        plugins=[BranchTuningPlugin(verbose=False)],
        evaluator=EvaluationPlugin(metric),
    )
    parts = split_online_stream(
        supervised.benchmark().train_stream, experience_size=5, access_task_boundaries=True
    )
    for part in parts:  # 16 images: three parts of 5, in 2 minibatches each, and one of 1
        run.train(part)
    assert metric.trace.iterations == [0, 4, 7, 7, 11, 14, 14, 18, 21]
    assert metric.trace.experiences == [0] * 3 + [1] * 3 + [2] * 3
    assert True in judge.expanded


def test_an_end_that_no_part_is_marked_as_is_measured_before_the_next() -> None:
    metric = ContinualEvaluation(probe("labels"), every=100)
    run = supervised.strategy([], evaluator=EvaluationPlugin(metric), train_epochs=1)
    train = supervised.benchmark().train_stream
    size = len(train[0].dataset) // 2
    assert all(len(e.dataset) == 2 * size for e in train)
    run.train(split_online_stream(train, size, access_task_boundaries=True))
    assert metric.trace.experiences == [0, 0, 1, 1, 2], "the last has not ended"
    assert metric.trace.iterations[1] == metric.trace.iterations[2] > 0


def test_forgetting_is_seen() -> None:
    train_stream, test_stream = streams("labels")
    judge = StreamProbe(ClassifierProbe(), train_stream, test_stream)
    metric = ContinualEvaluation(judge, every=1)
    run = with_labels(metric, [])
    run.train_epochs = 8
    run.train(train_stream)
    found = metric.result()
    assert found is not None
    assert found.min_acc == 0.0  # a classifier without memory forgets everything
    assert found.windowed_forgetting is not None and found.windowed_forgetting > 0.3
    assert [(g.experience, g.test) for g in found.gaps] == [(1, 0), (2, 0), (2, 1)]
    assert found.gaps[0].depth > 0.5 and found.gaps[0].recovery is None


def test_metric_can_be_pickled_between_experiences() -> None:
    metric = ContinualEvaluation(probe("labels"), every=4)
    run = with_labels(metric, [])
    run.train(streams("labels")[0][0])
    assert pickle.loads(pickle.dumps(metric.trace)) == metric.trace


def test_iterations_are_the_number_of_updates() -> None:
    states: list[str] = []

    class Updates(SupervisedPlugin):
        def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            states.append(fingerprint(strategy.model))

    judge = probe("labels", Watch)
    metric = ContinualEvaluation(judge, every=2)
    run = with_labels(metric, [Updates()])
    run.train_epochs = 3
    run.train(streams("labels")[0][:2])  # 6 iterations each
    assert metric.trace.iterations == [0, 2, 4, 6, 6, 8, 10, 12]
    measured = judge.states[:3] + judge.states[5:8]  # both ends of each are measured twice
    assert measured == [states[t] for t in (0, 2, 4, 6, 8, 10)]


@pytest.mark.parametrize("options", [{"every": 0}, {"every": 2.5}, {"every": 1, "window": 1}])
def test_what_cannot_be_measured(options: dict[str, Any]) -> None:
    with pytest.raises(UnknownOptionError, match=r"ContinualEvaluation\((every|window)=…\)"):
        ContinualEvaluation(probe("labels"), **options)
