"""PFR, LwF and feature distillation: their loss in training, and that they hold what they name."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from avalanche_branchtune import BranchTuningPlugin
from solo_bridge import SelfSupervisedMethod, solo_views
from solo_bridge.plugins import FeatureDistillationPlugin
from solo_bridge.plugins.distillation.lwf import LwFPlugin
from solo_bridge.plugins.distillation.pfr import PFRPlugin
from tests.oracles.distilled_training import Recomputed, Term, features, lwf, pfr
from tests.selfsupervised import VIEW, backbone, method, strategy, stream

warnings.filterwarnings("ignore", module="avalanche")

PLUGINS: dict[str, tuple[Callable[[], Any], Term]] = {
    "pfr": (lambda: PFRPlugin(hidden=16), pfr),
    "lwf": (lambda: LwFPlugin(3.0), lwf),
    "features": (lambda: FeatureDistillationPlugin(4.0), features),
}


def run_of(plugins: list[Any], model: Any, **settings: Any) -> Any:
    options: dict[str, Any] = {"train_mb_size": 10, "train_epochs": 1, "lr": 2.0}
    options["optimizer_settings"] = {"scheduler": "none"}  # the first steps count as much
    return strategy(model, plugins, **{**options, **settings})


def few(experiences: int) -> list[Any]:
    return list(stream(5).train_stream)[:experiences]


@pytest.mark.parametrize(("name", "branches"), [("simclr", False), ("byol", True)])
@pytest.mark.parametrize("which", PLUGINS)
def test_loss_and_gradients_against_copies(which: str, name: str, branches: bool) -> None:
    make, term = PLUGINS[which]
    plugin = make()
    check = Recomputed(plugin, term)
    extra = [BranchTuningPlugin(verbose=False)] if branches else []
    run = run_of([plugin, *extra, check], method(name))
    for experience in few(3):
        run.train(experience)
    assert all(total == own for total, own in check.totals[0])
    assert all(totals[1][0] - totals[1][1] > 1e-6 for totals in check.totals[1:])
    assert check.gradients_compared == 2


def test_widths_of_the_predictor() -> None:
    plugin = PFRPlugin(hidden=5)
    run = run_of([plugin], method("simclr", backbone=backbone(6)))
    for experience in few(2):
        run.train(experience)
    assert plugin.predictor is not None
    shapes = [tuple(p.shape) for p in plugin.predictor.parameters()]
    assert shapes == [(5, 6), (5,), (5,), (5,), (6, 5), (6,)]
    assert PFRPlugin().weight == 25.0


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


@pytest.mark.parametrize("which", PLUGINS)
def test_without_a_projector_features_are_distilled(which: str) -> None:
    torch.manual_seed(0)
    make, term = PLUGINS[which]
    plugin = make()
    check = Recomputed(plugin, term)
    run = run_of([plugin, check], NoProjector(), views=solo_views([VIEW]), lr=0.5)
    for experience in few(2):
        run.train(experience)
    assert check.gradients_compared == 1
    assert check.totals[1][1][0] != check.totals[1][1][1]


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("which", ["lwf", "features"])
def test_what_is_distilled_moves_less(which: str, branches: bool) -> None:
    views = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def output(model: Any) -> Tensor:
        net = copy.deepcopy(model).train()  # statistics of these images, as in training
        with torch.no_grad():
            found = net.backbone(views)
            return (net.projector(found) / 2).softmax(1) if which == "lwf" else found

    def moved(weight: float) -> float:
        plugin = LwFPlugin(weight) if which == "lwf" else FeatureDistillationPlugin(weight)
        model = method("simclr")
        extra = [BranchTuningPlugin(verbose=False)] if branches else []
        run = run_of([plugin, *extra], model, train_epochs=6, lr=0.5)
        first, second = few(2)
        torch.manual_seed(1)
        run.train(first)
        before = output(model)
        run.train(second)
        return (output(model) - before).abs().mean().item()

    assert moved(20.0) < 0.7 * moved(0.0)
