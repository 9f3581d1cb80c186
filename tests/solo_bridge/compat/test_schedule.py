"""Warm-up and cosine against their closed form and the main branch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from solo_bridge.compat import load
from solo_bridge.compat.schedule import WarmupCosine


@pytest.mark.parametrize("steps", [(10, 100), (0, 50), (1, 7), (5.0, 40.0)])
def test_warmup_cosine_closed_form(steps: tuple[float, float]) -> None:
    warmup, total = steps
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = WarmupCosine(optimizer, warmup, total, warmup_start_lr=0.5, eta_min=0.1)
    rates = []
    for _ in range(int(total) + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = [
        0.5 + 1.5 * t / max(1, warmup - 1)
        if t < warmup
        else 0.1 + 1.9 * (1 + math.cos(math.pi * (t - warmup) / (total - warmup))) / 2
        for t in range(int(total) + 1)
    ]
    assert rates == pytest.approx(expected)


def test_warmup_cosine_against_the_main_branchs_own() -> None:
    if load().name != "main branch":
        pytest.skip("needs solo-learn's main branch, which has this scheduler")
    rates: list[list[float]] = []
    for make in (WarmupCosine, load().warmup_cosine):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        settings = {"warmup_epochs": 5, "max_epochs": 30, "warmup_start_lr": 0.5, "eta_min": 0.1}
        scheduler: Any = make(optimizer, **settings)
        rates.append([])
        for _ in range(30):
            rates[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    assert rates[0] == pytest.approx(rates[1])
