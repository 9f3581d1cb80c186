"""What counts as held beside a network."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from torch import nn
from torch.utils.data import TensorDataset

from avalanche_branchtune.metrics import ParameterMetric
from tests.supervised import benchmark, strategy


class Helper:
    """A user's own object, from the plugin's package."""

    def __init__(self) -> None:
        self.anchor = {"a": torch.zeros(7)}


class Own(SupervisedPlugin):
    """A user's plugin, that keeps this and that."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Linear(10, 3)  # 33
        self.importances = [torch.zeros(2, 5), torch.zeros(4)]  # 14
        self.helper = Helper()  # 7
        self.samples = TensorDataset(torch.zeros(1000, 3))
        self.buffer = ReservoirSamplingBuffer(10)
        self.strategy: Any = None

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.strategy = strategy
        self.network = strategy.model  # which is counted already

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.buffer.post_adapt(strategy, strategy.experience)


def test_what_a_users_plugin_holds_is_counted_without_its_samples() -> None:
    metric = ParameterMetric()
    run = strategy([Own()])
    for experience in benchmark(2).train_stream:
        metric.before_training(run)
        run.train(experience)
        metric.before_training_epoch(run)
    assert metric.during == 33 + 14 + 7
