"""A supervised run that is measured: its probes, its analysis, and training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.evaluation import (
    ClassifierProbe,
    FeatureCache,
    KNNProbe,
    LinearProbe,
    StreamProbe,
)
from avalanche_branchtune.metrics import AnalysisMetric
from tests import supervised


class Seeded(SupervisedPlugin):
    """Avalanche's own evaluation draws from the random state; epochs begin from a known one."""

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        torch.manual_seed(strategy.clock.train_iterations)


def train(
    metrics: list[Any],
    loggers: list[Any],
    evaluate: Callable[[int], bool] = lambda t: True,
    plugins: tuple[Any, ...] = (),
    **settings: Any,
) -> Any:
    stream = supervised.benchmark()
    evaluator = EvaluationPlugin(*metrics, loggers=loggers)
    strategy = supervised.strategy(
        [BranchTuningPlugin(verbose=False), Seeded(), *plugins], evaluator=evaluator, **settings
    )
    for t, experience in enumerate(stream.train_stream):
        strategy.train(experience, eval_streams=[stream.test_stream])
        if evaluate(t):
            strategy.eval(stream.test_stream)
    return strategy


def probes(scope: str = "all") -> list[StreamProbe]:
    stream = supervised.benchmark()
    cache = FeatureCache()
    shared: dict[str, Any] = {"cache": cache}
    return [
        StreamProbe(ClassifierProbe(), stream.train_stream, stream.test_stream, **shared),
        StreamProbe(
            KNNProbe(5), stream.train_stream, stream.test_stream, backbone="features", **shared
        ),
        StreamProbe(
            LinearProbe("sgd", lr=0.3, epochs=5),
            stream.train_stream,
            stream.test_stream,
            scope="seen",
            backbone="features",
            **shared,
        ),
    ]


def analysis() -> AnalysisMetric:
    torch.manual_seed(5)
    joint = supervised.Net().features
    return AnalysisMetric(
        supervised.benchmark().test_stream, joint=joint, samples=32, backbone="features"
    )
