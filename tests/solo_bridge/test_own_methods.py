"""Losses from elsewhere fit the same strategy."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin
from solo_bridge import SelfSupervisedMethod, solo_views
from tests.selfsupervised import VIEW, backbone, strategy, stream, weights


def test_example_of_ones_own_method(capsys: pytest.CaptureFixture[str]) -> None:
    script = Path(__file__).parents[2] / "examples" / "own_method.py"
    runpy.run_path(str(script))["main"](epochs=1, samples=500)
    printed = capsys.readouterr().out
    assert printed.count("weighted kNN") == 3
    assert printed.count("Branch-tuning, experience") == 2


@pytest.mark.parametrize("name", ["NTXentLoss", "VICRegLoss", "BarlowTwinsLoss"])
def test_losses_of_lightly(name: str) -> None:
    losses = pytest.importorskip("lightly.loss", reason="lightly is not installed (optional)")

    class Method(SelfSupervisedMethod):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone()
            self.projector = nn.Linear(8, 16)
            self.criterion = getattr(losses, name)()

        def forward(self, x: Tensor) -> Tensor:
            return self.backbone(x)

        def loss(self, views: Any, **needed: Tensor) -> Tensor:
            a, b = (self.projector(self(v)) for v in views)
            return self.criterion(a, b)

    torch.manual_seed(0)
    model = Method()
    run = strategy(
        model,
        [BranchTuningPlugin(verbose=False)],
        views=solo_views([VIEW]),
        lr=0.1,
        optimizer="sgd",
    )
    for experience in stream().train_stream:
        before = weights(model.backbone)
        run.train(experience)
        assert not torch.equal(weights(model.backbone), before)
        assert torch.isfinite(weights(model)).all()
