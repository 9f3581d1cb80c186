"""Rates of an experience, step by step, against the closed form and solo-learn's own scheduler."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import nn

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge.compat import load
from solo_bridge.optim import OptimizerSettings
from tests.selfsupervised import method, strategy, stream, weights


def rates(settings: OptimizerSettings, steps_per_epoch: int, epochs: int) -> list[float]:
    optimizer = settings.optimizer([{"params": [nn.Parameter(torch.ones(1))]}])
    schedule = settings.schedule(optimizer, steps_per_epoch, epochs)
    return followed(optimizer, schedule, steps_per_epoch * epochs)


def followed(optimizer: Any, scheduler: Any, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def closed_form(steps: int, warmup: float, start: float, base: float) -> list[float]:
    falling = max(1.0, steps - warmup)
    return [
        start + min(1.0, t / max(1.0, warmup - 1)) * (base - start)
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
    assert max(found) <= 0.5


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
    assert found == followed(optimizer, oracle, steps * epochs)


def bolts(epochs: int, warmup: int, start: float, base: float, last: float) -> list[float]:
    """The rates of pl_bolts' class, which goes from one to the next, as its source says."""
    rates = [start]
    for t in range(1, epochs):
        before = rates[-1]
        if t < warmup:
            rates.append(before + (base - start) / (warmup - 1))
        elif t == warmup:
            rates.append(base)
        else:
            falling = epochs - warmup
            fall = [1 + math.cos(math.pi * (u - warmup) / falling) for u in (t - 1, t)]
            rates.append(fall[1] / fall[0] * (before - last) + last)
    return rates


def by_epoch(**settings: Any) -> OptimizerSettings:
    return OptimizerSettings(name="sgd", schedule_every="epoch", **settings)


@pytest.mark.parametrize(("epochs", "warmup"), [(500, 10), (400, 10), (30, 2), (12, 12)])
@pytest.mark.parametrize("steps", [1, 3])
def test_by_the_epoch_the_rates_are_pl_bolts(epochs: int, warmup: int, steps: int) -> None:
    """SwAV's: from 0.003 to 0.6, and down to 6e-4."""
    settings = by_epoch(lr=0.6, warmup_start_lr=0.003, warmup_epochs=warmup, min_lr=6e-4)
    found = rates(settings, steps, epochs)
    for s in range(steps):
        assert found[s::steps] == found[::steps], "the rate stays within an epoch"
    expected = bolts(epochs, warmup, 0.003, 0.6, 6e-4)
    assert found[::steps] == pytest.approx(expected, rel=1e-9)
    falling = max(1, epochs - warmup)
    in_one = [
        0.003 + t * (0.6 - 0.003) / (warmup - 1)
        if t < warmup
        else 6e-4 + (0.6 - 6e-4) * (1 + math.cos(math.pi * (t - warmup) / falling)) / 2
        for t in range(epochs)
    ]
    assert found[::steps] == pytest.approx(in_one, rel=1e-12)


def test_by_the_epoch_the_rates_are_torchs_cosine() -> None:
    """CaSSLe's MoCo v2+ on ImageNet-100."""
    found = rates(by_epoch(lr=0.4, scheduler="cosine", min_lr=0.01), 2, 40)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.4)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40, eta_min=0.01)
    expected = followed(optimizer, oracle, 40)
    assert found[::2] == found[1::2] == pytest.approx(expected, rel=1e-9)
    each = rates(OptimizerSettings(name="sgd", lr=0.4, scheduler="cosine"), 2, 20)
    assert each == pytest.approx(closed_form(40, 0, 0.0, 0.4)), "also with each step"


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (19, 0), (20, 2), (29, 2), (250, 10)])
def test_a_tenth_of_the_epochs_is_whole_ones(
    epochs: int, warmup: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        found = rates(by_epoch(lr=0.5), 3, epochs)[::3]
    assert found == pytest.approx(closed_form(epochs, warmup, 3e-5, 0.5), rel=1e-9)
    left_out = f"no warm-up: a tenth of {epochs} epochs is less than two epochs"
    assert (left_out in caplog.text) == (warmup == 0)


def test_groups_of_their_own_rate_keep_it_without_a_warmup() -> None:
    settings = by_epoch(lr=0.4, scheduler="cosine")
    groups = [{"params": [nn.Parameter(torch.ones(1))]} for _ in range(3)]
    optimizer = settings.optimizer([groups[0], {**groups[1], "lr": 0.05}, groups[2]])
    optimizer.param_groups[2]["static_lr"] = True
    scheduler = settings.schedule(optimizer, 2, 4)
    assert scheduler is not None
    found = []
    for _ in range(8):
        found.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    half = [(1 + math.cos(math.pi * (t // 2) / 4)) / 2 for t in range(8)]
    assert [f[0] for f in found] == pytest.approx([0.4 * h for h in half])
    assert [f[1] for f in found] == pytest.approx([0.05 * h for h in half])
    assert [f[2] for f in found] == [0.4] * 8


def test_the_rate_of_a_strategy_changes_with_its_epochs() -> None:
    seen: list[list[float]] = []

    class Watch(SupervisedPlugin):  # type: ignore[misc]
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            seen.append([])

        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            seen[-1].append(strategy.optimizer.param_groups[0]["lr"])

    settings = {"schedule_every": "epoch", "warmup_epochs": 2, "warmup_start_lr": 0.1}
    run = strategy(
        plugins=[Watch()],
        train_epochs=4,
        lr=0.5,
        scale_lr=False,
        optimizer_settings=settings,
    )
    for experience in stream(2).train_stream:
        run.train(experience)
    assert len(seen) == 8 and {len(epoch) for epoch in seen} == {2}
    assert all(min(epoch) == max(epoch) for epoch in seen)
    once = [0.1, 0.5, 0.5, 0.25]
    assert [epoch[0] for epoch in seen] == pytest.approx(once * 2), "anew in each experience"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule_every": "day"}, r"schedule_every=…\): expected one of step, epoch; got 'day'"),
        ({"scheduler": "cosine", "warmup_epochs": 3}, r"warmup_epochs=3\): .* has no warm-up"),
    ],
)
def test_schedules_that_there_are_not(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        OptimizerSettings(**settings)


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


@pytest.mark.parametrize(
    "settings",
    [
        {"warmup_epochs": 2, "warmup_start_lr": 0.1, "min_lr": 0.01},
        pytest.param({"scheduler": "cosine"}, marks=pytest.mark.slow),
        pytest.param({"warmup_epochs": 2, "schedule_every": "epoch"}, marks=pytest.mark.slow),
    ],
    ids=["warm-up", "cosine", "by epochs"],
)
def test_branches_have_a_multiple_of_their_kernels_rate(settings: dict[str, Any]) -> None:
    def trained(factor: float) -> tuple[list[Any], list[Any]]:
        class Rates(SupervisedPlugin):  # type: ignore[misc]
            def before_update(self, strategy: Any, **kwargs: Any) -> None:
                layer = strategy.model.backbone[0]
                groups = {id(p): g for g in strategy.optimizer.param_groups for p in g["params"]}
                kernels.append(groups[id(layer.weight)]["lr"])
                branches.append(groups[id(next(iter(layer.branches.values())))]["lr"])

        kernels: list[Any] = []
        branches: list[Any] = []
        plugin = BranchTuningPlugin(pretrained=True, verbose=False, lr_factor=factor)
        options = {"train_epochs": 4, "lr": 0.5, "scale_lr": False, "optimizer_settings": settings}
        run = strategy(plugins=[Rates(), plugin], **options)
        run.train(stream(2).train_stream[0])
        assert len(run.optimizer.param_groups) == len(run.model.parameter_groups())
        return kernels, branches

    expected, _ = trained(1.0)
    kernels, branches = trained(4.0)
    assert kernels == expected and len(kernels) == 8 and len(set(kernels)) >= 3
    assert branches == [4 * rate for rate in kernels]
