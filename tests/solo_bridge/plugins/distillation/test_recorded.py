"""CaSSLe, PFR and Kaizen against numbers recorded from their authors' code, over three experiences.

``tests/recorded/distillation.json`` says which classes gave them, and how.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.utils.data import Dataset

from solo_bridge import SelfSupervised, SelfSupervisedMethod
from solo_bridge.plugins import CaSSLePlugin, KaizenPlugin, PFRPlugin
from solo_bridge.plugins.distillation import cassle, predictor
from solo_bridge.plugins.distillation.predictor import mlp
from solo_bridge.plugins.distillation.prototypes import NormedPrototypes

RECORDED = json.loads((Path(__file__).parents[3] / "recorded" / "distillation.json").read_text())
RUNS: dict[str, Any] = RECORDED["runs"]
LABELS = [[0, 1, 0, -1, 1, 0], [2, 2, -1, 3, 3, 2], [4, -1, 4, 5, 5, 4]]


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pattern(shape: Any, k: int) -> Tensor:
    numbers = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(numbers * (0.7 + 0.1 * k)).reshape(tuple(shape)) / math.sqrt(shape[-1])


@torch.no_grad()
def filled(module: Any, k: int, norm_bias: float | None = None) -> Any:
    """Give the i-th parameter the pattern k + i; scales of a norm are 1."""
    for i, p in enumerate(module.parameters()):
        p.copy_(pattern(p.shape, k + i))
    if norm_bias is not None:
        module[1].weight.fill_(1.0)
        module[1].bias.fill_(norm_bias)
    return module


@torch.no_grad()
def prototypes(width: int, count: int, k: int = 31) -> NormedPrototypes:
    layer = NormedPrototypes(width, count)
    layer.directions.copy_(pattern((count, width), k))
    layer.lengths.fill_(1.0)
    return layer


class Small(SelfSupervisedMethod):
    """What the authors' classes were wrapped around when the numbers were recorded."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.num_classes = 6
        encoder = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.backbone = filled(encoder, 1, 0.1)
        self.projector = filled(nn.Linear(8, 6), 5)
        self.heads = nn.ModuleList([prototypes(6, 4, 9)] if name == "swav" else [])

    @property
    def prototype_heads(self) -> list[nn.Module]:
        return list(self.heads)

    def loss(self, views: Any) -> Tensor:
        z = [self.projector(self.backbone(v)) for v in views]
        loss = (z[0] - z[1]).square().mean()
        for a in z:
            loss = loss + (a.std(0) - 1).square().mean()
        for head in self.heads:
            scores = [head(F.normalize(a)) for a in z]
            loss = loss + (scores[0] - scores[1]).square().mean()
        return loss


class Images(Dataset[Any]):
    """Six vectors of an experience, each as two views."""

    def __init__(self, experience: int) -> None:
        i = torch.arange(72, dtype=torch.float64).reshape(6, 12)
        self.views = [
            torch.sin(i * (0.31 + 0.05 * experience) + v) + 0.3 * torch.cos(i * 0.17 * (v + 1))
            for v in (0.0, 1.0)
        ]
        self.targets = LABELS[experience]

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Any:
        return [v[i] for v in self.views], self.targets[i]


def plugin_of(name: str) -> Any:
    if name == "pfr":
        return PFRPlugin()
    if name == "kaizen byol":
        return KaizenPlugin(hidden=7, classifier_hidden=5, classifier_lr=0.05)
    return CaSSLePlugin(hidden=7)


@pytest.mark.parametrize("name", RUNS)
def test_three_experiences(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RUNS[name]
    monkeypatch.setattr(predictor, "mlp", lambda *a: filled(mlp(*a), 21, 0.0))
    monkeypatch.setattr(cassle, "NormedPrototypes", prototypes)
    new = KaizenPlugin._new_classifier
    monkeypatch.setattr(KaizenPlugin, "_new_classifier", lambda *a: filled(new(*a), 11))
    plugin, losses = plugin_of(name), []

    class Losses(SupervisedPlugin):
        def after_backward(self, strategy: Any, **kwargs: Any) -> None:
            losses.append(strategy.loss.item())

    rate = 0.01 if name == "vicreg" else 0.1
    model = Small(name.split()[-1])
    run = SelfSupervised(
        model,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=0.01),
        optimizer_settings={"scheduler": "none"},
        train_mb_size=6,
        train_epochs=3,
        plugins=[plugin, Losses()],
        evaluator=None,
    )
    data = [as_classification_dataset(Images(i)) for i in range(3)]
    for experience in benchmark_from_datasets(train=data).train_stream:
        run.train(experience)
    expected = [x for experience in recorded["losses"] for x in experience]
    if name == "pfr":
        expected = [x + (i > 2) for i, x in enumerate(expected)]
    assert losses == pytest.approx(expected, rel=1e-8)
    for part in ("backbone", "projector", "predictor", "prototypes", "classifier"):
        module = getattr(model, part, None) or getattr(plugin, part, None)
        if part in recorded:
            total = sum(float(p.detach().abs().sum()) for p in module.parameters())
            assert total == pytest.approx(recorded[part], rel=1e-8), part
