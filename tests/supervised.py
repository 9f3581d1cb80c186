"""A small supervised continual run, shared by the plugin's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks import class_incremental_benchmark
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.fc = nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


def dataset(samples: int = 48, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(samples) % 6
    x = torch.randn(samples, 3, 8, 8, generator=generator)
    x[:, 0] += y.view(-1, 1, 1) - 2.5
    x[range(samples), :, y, :] += 2
    data = TensorDataset(x, y)
    data.targets = y.tolist()
    return data


def benchmark(n_experiences: int = 3, samples: int = 48) -> Any:
    return class_incremental_benchmark(
        {"train": dataset(samples), "test": dataset(samples, seed=1)},
        num_experiences=n_experiences,
        seed=0,
    )


def strategy(
    plugins: Sequence[Any],
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    **kwargs: Any,
) -> Any:
    torch.manual_seed(0)
    model = Net() if model is None else model
    if optimizer is None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    settings = {"train_mb_size": 8, "train_epochs": 2, "eval_mb_size": 16, "evaluator": None}
    settings.update(kwargs)
    if settings["evaluator"] is None:
        settings["evaluator"] = EvaluationPlugin()
    return Naive(model=model, optimizer=optimizer, plugins=list(plugins), **settings)


def kernels(model: nn.Module) -> Tensor:
    return torch.cat(
        [m.weight.detach().flatten() for m in model.modules() if isinstance(m, nn.Conv2d)]
    )
