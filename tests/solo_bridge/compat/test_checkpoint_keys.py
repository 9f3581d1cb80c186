"""Names in checkpoints, in the words of either generation."""

from __future__ import annotations

import pytest

from solo_bridge.compat import load
from solo_bridge.compat.checkpoint_keys import (
    BACKBONE_KEYS,
    GENERATIONS,
    is_left_alone,
    renamed,
)
from tests.selfsupervised import method


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("encoder.0.weight", "trunk.0.weight"),
        ("backbone.0.weight", "trunk.0.weight"),
        ("momentum_encoder.0.weight", "momentum_trunk.0.weight"),
        ("momentum_backbone.0.weight", "momentum_trunk.0.weight"),
        ("projector.encoder.weight", "projector.encoder.weight"),
        ("frozen_encoder.0.weight", "frozen_encoder.0.weight"),
        ("queue", "queue"),
    ],
)
def test_backbones_are_renamed_and_nothing_else(name: str, expected: str) -> None:
    assert renamed(name, "trunk") == expected


def test_the_generation_that_is_installed_is_described_by_its_own_names() -> None:
    generation = load()
    assert GENERATIONS[generation.short] is type(generation)
    model = method("byol")
    state = model.solo.state_dict()
    there = {n.partition(".")[0] for n in state}
    assert {generation.backbone_key, f"momentum_{generation.backbone_key}"} <= there
    assert there & set(BACKBONE_KEYS) == {generation.backbone_key}
    assert getattr(model.solo, generation.backbone_key) is model.backbone
    classifier = {n for n in state if is_left_alone(n, "byol")}
    assert classifier and classifier == {n for n in state if "classifier" in n}
