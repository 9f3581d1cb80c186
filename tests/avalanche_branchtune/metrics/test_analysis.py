"""Stability and plasticity as a metric."""

from __future__ import annotations

import copy

import pytest
import torch
from avalanche.logging import InteractiveLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import nn

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.analysis import layerwise_cka
from tests import supervised
from tests.avalanche_branchtune.metrics.measured import analysis


def test_stability_compares_with_the_network_before_the_experience() -> None:
    metric = analysis()
    snapshots: list[nn.Module] = []
    stream = supervised.benchmark()
    strategy = supervised.strategy(
        [BranchTuningPlugin(verbose=False)],
        evaluator=EvaluationPlugin(metric, loggers=[InteractiveLogger()]),
    )
    for experience in stream.train_stream:
        strategy.train(experience)
        snapshots.append(copy.deepcopy(strategy.model.features))
        strategy.eval(stream.test_stream)
    old = torch.utils.data.ConcatDataset(
        [torch.utils.data.Subset(stream.test_stream[i].dataset.eval(), range(16)) for i in (0, 1)]
    )
    expected = layerwise_cka(snapshots[2], snapshots[1], old, batch_size=32)
    assert metric.stability[2] == pytest.approx(expected, rel=1e-9)
    new = torch.utils.data.Subset(stream.test_stream[1].dataset.eval(), range(16))
    assert metric.plasticity[1] == pytest.approx(layerwise_cka(snapshots[1], metric.joint, new))
