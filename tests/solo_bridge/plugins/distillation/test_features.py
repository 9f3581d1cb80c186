"""Feature distillation: its loss in training, and that it holds the features."""

from __future__ import annotations

import pytest

from solo_bridge.plugins import FeatureDistillationPlugin
from tests.oracles.distilled_training import features
from tests.solo_bridge.plugins.distillation.distilling import (
    check_loss_and_gradients,
    check_moves_less,
    check_without_a_projector,
)


@pytest.mark.parametrize(("name", "branches"), [("simclr", False), ("byol", True)])
def test_loss_and_gradients_against_copies(name: str, branches: bool) -> None:
    check_loss_and_gradients(FeatureDistillationPlugin(4.0), features, name, branches)


def test_without_a_projector_features_are_distilled() -> None:
    check_without_a_projector(FeatureDistillationPlugin(4.0), features)


@pytest.mark.parametrize("branches", [False, True])
def test_what_is_distilled_moves_less(branches: bool) -> None:
    check_moves_less(FeatureDistillationPlugin, lambda net, x: net.backbone(x), branches)
