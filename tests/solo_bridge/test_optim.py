"""Rates of an experience, step by step, against the closed form and solo-learn's own scheduler."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import nn

from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge.compat import load
from solo_bridge.optim import OptimizerSettings
from tests.selfsupervised import method, strategy, stream, weights


def rates(settings: OptimizerSettings, steps_per_epoch: int, epochs: int) -> list[float]:
    optimizer = settings.optimizer([{"params": [nn.Parameter(torch.ones(1))]}])
    return followed(optimizer, settings.schedule(optimizer, steps_per_epoch, epochs), epochs)


def followed(optimizer: Any, scheduler: Any, epochs: int) -> list[float]:
    found = []
    for _ in range(round(scheduler.max_epochs)):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def closed_form(steps: int, warmup: float, start: float, base: float) -> list[float]:
    falling = max(1.0, steps - warmup)
    return [
        start + t / max(1.0, warmup - 1) * (base - start)
        if t < warmup
        else base * (1 + math.cos(math.pi * (t - warmup) / falling)) / 2
        for t in range(steps)
    ]


WARMUPS = {1: 0, 2: 0, 5: 0, 19: 0, 20: 2, 25: 2.5, 31: 3.1, 40: 4}
"""Steps of the warm-up by those of the experience."""


@pytest.mark.parametrize(
    ("steps", "epochs"), [(s, e) for s in WARMUPS for e in (1, 2, 4, 5, 10, 20) if s % e == 0]
)
def test_rates_of_short_experiences(steps: int, epochs: int) -> None:
    warmup = WARMUPS[steps]
    settings = OptimizerSettings(name="sgd", lr=0.5)
    found = rates(settings, steps // epochs, epochs)
    assert found == pytest.approx(closed_form(steps, warmup, 3e-5, 0.5), rel=1e-6)


@pytest.mark.parametrize(("epochs", "warmup"), [(500, 10), (100, 10), (20, 2), (23, 2.3)])
def test_the_default_is_solo_learns_schedule_bit_for_bit(epochs: int, warmup: float) -> None:
    """Also where 2.3 times 100 is 229.99999999999997."""
    steps = 100 if epochs == 23 else 3
    found = rates(OptimizerSettings(name="sgd", lr=0.5), steps, epochs)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5)
    oracle = load().warmup_cosine(
        optimizer,
        warmup_epochs=warmup * steps,
        max_epochs=steps * epochs,
        warmup_start_lr=3e-5,
        eta_min=0.0,
    )
    assert found == followed(optimizer, oracle, epochs)


def test_a_warmup_that_is_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        rates(OptimizerSettings(name="sgd"), 5, 1)
    assert "no warm-up: a tenth of 5 steps is less than two steps" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        rates(OptimizerSettings(name="sgd"), 20, 1)
    assert caplog.text == ""


def test_a_warmup_that_is_all_there_is_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    settings: dict[str, Any] = {"name": "sgd", "lr": 0.5, "warmup_epochs": 10}
    with pytest.raises(UnknownOptionError, match=r"warmup_epochs=10.*has 2 epochs"):
        rates(OptimizerSettings(**settings), 3, 2)
    found = rates(OptimizerSettings(unfinished_warmup=True, **settings), 3, 2)
    assert found == pytest.approx(closed_form(30, 30, 3e-5, 0.5)[:6])
    assert "warm-up of 10 epochs takes all of the experience's 2" in caplog.text


def test_trials_of_one_step_learn() -> None:
    """With a rate of next to nothing all strategies ended alike."""
    moved = []

    class First(SupervisedPlugin):  # type: ignore[misc]
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            moved.append(strategy.optimizer.param_groups[0]["lr"])

    model = method()
    before = weights(model)
    run = strategy(model, [First()], train_mb_size=50, train_epochs=1, lr=0.1, scale_lr=False)
    run.train(stream().train_stream[0])
    assert moved == [0.1] and not torch.allclose(weights(model), before, atol=1e-3)
