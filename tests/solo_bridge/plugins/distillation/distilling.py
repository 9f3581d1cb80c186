"""Runs with a distilling plugin, and what every distillation of outputs must stand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.streams import data_incremental
from solo_bridge import SelfSupervisedMethod, solo_views
from tests.oracles.distilled_training import Recomputed, Term
from tests.selfsupervised import VIEW, backbone, data, method, strategy, stream


def run_of(plugins: list[Any], model: Any = None, **settings: Any) -> Any:
    options: dict[str, Any] = {"train_mb_size": 10, "train_epochs": 1, "lr": 2.0}
    options["optimizer_settings"] = {"scheduler": "none"}  # the first steps count as much
    return strategy(model, plugins, **{**options, **settings})


def few(experiences: int, train: Any = None) -> list[Any]:
    """Return the first experiences of five, each of 20 images (of 2 classes by default)."""
    if train is not None:
        return list(data_incremental(train, data(), 5).train_stream)[:experiences]
    return list(stream(5).train_stream)[:experiences]


def check_loss_and_gradients(plugin: Any, term: Term, name: str, branches: bool) -> None:
    """Nothing is added in the first experience, the term and its gradients later."""
    check = Recomputed(plugin, term)
    extra = [BranchTuningPlugin(verbose=False)] if branches else []
    run = run_of([plugin, *extra, check], method(name))
    for experience in few(3):
        run.train(experience)
    assert all(total == own for total, own in check.totals[0])
    assert all(totals[1][0] - totals[1][1] > 1e-6 for totals in check.totals[1:])
    assert check.gradients_compared == 2


class NoProjector(SelfSupervisedMethod):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone()
        self.projector = None

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def loss(self, views: Any) -> Tensor:
        a, b = (self.backbone(v) for v in views)
        return (a - b).square().mean() + (a.std(0) - 1).square().mean()


def check_without_a_projector(plugin: Any, term: Term) -> None:
    """Features are distilled."""
    torch.manual_seed(0)
    check = Recomputed(plugin, term)
    run = run_of([plugin, check], NoProjector(), views=solo_views([VIEW]), lr=0.5)
    for experience in few(2):
        run.train(experience)
    assert check.gradients_compared == 1
    assert check.totals[1][1][0] != check.totals[1][1][1]


def check_moves_less(
    plugin: Callable[[float], Any], output: Callable[[Any, Tensor], Tensor], branches: bool
) -> None:
    """What is distilled moves less with a weight than without."""
    views = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def found(model: Any) -> Tensor:
        net = copy.deepcopy(model).train()  # statistics of these images, as in training
        with torch.no_grad():
            return output(net, views)

    def moved(weight: float) -> float:
        model = method("simclr")
        extra = [BranchTuningPlugin(verbose=False)] if branches else []
        run = run_of([plugin(weight), *extra], model, train_epochs=6, lr=0.5)
        first, second = few(2)
        torch.manual_seed(1)
        run.train(first)
        before = found(model)
        run.train(second)
        return (found(model) - before).abs().mean().item()

    assert moved(20.0) < 0.7 * moved(0.0)
