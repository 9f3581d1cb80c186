"""PFR: its loss in training, and its predictor."""

from __future__ import annotations

import pytest

from solo_bridge.plugins.distillation.pfr import PFRPlugin
from tests.oracles.distilled_training import pfr
from tests.selfsupervised import backbone, method
from tests.solo_bridge.plugins.distillation.distilling import (
    check_loss_and_gradients,
    check_without_a_projector,
    few,
    run_of,
)


@pytest.mark.parametrize(("name", "branches"), [("simclr", False), ("byol", True)])
def test_loss_and_gradients_against_copies(name: str, branches: bool) -> None:
    check_loss_and_gradients(PFRPlugin(hidden=16), pfr, name, branches)


def test_widths_of_the_predictor() -> None:
    plugin = PFRPlugin(hidden=5)
    run = run_of([plugin], method("simclr", backbone=backbone(6)))
    for experience in few(2):
        run.train(experience)
    assert plugin.predictor is not None
    shapes = [tuple(p.shape) for p in plugin.predictor.parameters()]
    assert shapes == [(5, 6), (5,), (5,), (5,), (6, 5), (6,)]
    assert PFRPlugin().weight == 1.0


def test_without_a_projector_features_are_distilled() -> None:
    check_without_a_projector(PFRPlugin(hidden=16), pfr)
