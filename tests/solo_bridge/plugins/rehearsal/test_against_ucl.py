"""LUMP and DER give the numbers that their authors' own code gave, see ``tests/recorded``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from solo_bridge.plugins import DERPlugin, LUMPPlugin
from solo_bridge.plugins.rehearsal import mixing, reservoir
from tests.solo_bridge.plugins.rehearsal.patterns import (
    MEMORY,
    Draws,
    Look,
    another_view,
    benchmark,
    figures,
    run_of,
)

RECORDED = Path(__file__).parents[3] / "recorded"


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Draws:
    """What both draw, in place of chance."""
    draws = Draws()

    def candidates(seen: int, count: int, size: int) -> list[int]:
        return [n if n < size else draws.place(n) for n in range(seen, seen + count)]

    monkeypatch.setattr(reservoir, "some_of", draws.choice)
    monkeypatch.setattr(reservoir, "candidates", candidates)
    monkeypatch.setattr(mixing, "share", lambda alpha: draws.share())
    return draws


def trained(plugin: Any) -> tuple[Any, Look, list[float]]:
    look, terms = Look(), []

    class Terms(Look):
        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            terms.append(sum(getattr(plugin, "terms", {}).values()))

    run = run_of([plugin, look, Terms()])
    for experience in benchmark().train_stream:
        run.train(experience, shuffle=False)
    return run.model, look, terms


def compared(name: str, plugin: Any, weight: float = 1.0) -> None:
    theirs = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    model, look, terms = trained(plugin)
    assert len(theirs["losses"]) == 18 and look.losses == pytest.approx(theirs["losses"], rel=1e-9)
    assert [weight * t for t in terms] == pytest.approx(theirs["penalties"], rel=1e-9)
    found = figures(model)
    assert found.keys() == theirs["final"].keys()
    for key, values in theirs["final"].items():
        assert found[key] == pytest.approx(values, rel=1e-9), key
    held = plugin.procedure.memory.held if name == "ucl_mixup" else plugin.memory.held
    assert held.seen == theirs["seen"] == 72
    assert [float(i.image.sum()) for i in held.items] == pytest.approx(theirs["images"])
    stored = [float(i.kept[0].sum()) for i in held.items]
    assert stored == pytest.approx(theirs["stored"], rel=1e-9)


def test_lump_is_mixup_observe(draws: Draws) -> None:
    compared("ucl_mixup", LUMPPlugin(MEMORY, replay_view=another_view))
    assert draws.choices == draws.shares == 17, "in every minibatch but the first"


def test_der_is_der_observe(draws: Draws) -> None:
    compared("ucl_der", DERPlugin(memory=MEMORY, replay_view=another_view), weight=0.4)
    assert draws.choices == 17


def test_the_numbers_are_not_those_of_training_without_them(draws: Draws) -> None:
    theirs = json.loads((RECORDED / "ucl_mixup.json").read_text(encoding="utf-8"))
    run = run_of([])
    torch.manual_seed(0)
    for experience in benchmark().train_stream:
        run.train(experience, shuffle=False)
    apart = [
        abs(a[0] - b[0]) > 1e-3
        for (key, a), b in zip(figures(run.model).items(), theirs["final"].values(), strict=True)
        if "bias" in key
    ]
    assert any(apart)
