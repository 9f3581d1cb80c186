"""Momentum networks against solo-learn's own update."""

from __future__ import annotations

import copy

import torch
from torch import nn

from avalanche_branchtune import expand
from avalanche_branchtune.parts import backbone_scope
from tests.readings import Readings
from tests.selfsupervised import method


def moved(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator))


def test_it_is_solo_learns_bit_by_bit_and_in_place() -> None:
    model = method("byol")
    expand(model, scope=backbone_scope(model))
    solo, twin = model.solo, copy.deepcopy(model.solo)
    theirs = type(twin.momentum_updater).update
    places = [p.data_ptr() for p in solo.parameters()]
    for step, tau in enumerate((0.9, 0.99, 0.996001, 1.0, 0.0)):
        for m in (solo, twin):
            moved(m, step)
            m.momentum_updater.cur_tau = tau
        before = copy.deepcopy(twin.state_dict())
        with Readings() as readings:
            for online, momentum in solo.momentum_pairs:
                solo.momentum_updater.update(online, momentum)
        assert readings.count == 0
        for online, momentum in twin.momentum_pairs:
            theirs(twin.momentum_updater, online, momentum)
        found, expected = solo.state_dict(), twin.state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        changed = {name for name, value in expected.items() if not torch.equal(value, before[name])}
        assert (len(changed) > 8) == (tau != 1.0) and all("momentum" in name for name in changed)
    assert [p.data_ptr() for p in solo.parameters()] == places


def test_a_copy_follows_by_its_own_decay() -> None:
    solo = method("byol").solo
    twin = copy.deepcopy(solo)
    twin.momentum_updater.cur_tau, solo.momentum_updater.cur_tau = 0.0, 1.0
    for online, momentum in twin.momentum_pairs:
        moved(online, 1)
        twin.momentum_updater.update(online, momentum)
        pairs = zip(online.parameters(), momentum.parameters(), strict=True)
        assert all(torch.equal(o, m) for o, m in pairs)
