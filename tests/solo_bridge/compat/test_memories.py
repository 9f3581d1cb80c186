"""Queues, prototypes and schedules that start anew, in one module."""

from __future__ import annotations

import pytest
import torch

from solo_bridge.compat import memories, parts
from tests.selfsupervised import ALL_METHODS, method
from tests.solo_bridge.states import same, values

QUEUES = ["mocov2plus", "nnclr", "nnbyol", "nnsiam", "ressl", "all4one"]
PROTOTYPES = ["deepclusterv2", "dino", "swav"]


@pytest.mark.parametrize("name", [n for n in QUEUES if n in ALL_METHODS])
def test_a_cleared_queue_holds_random_unit_vectors_and_no_labels(name: str) -> None:
    solo = method(name).solo
    before, others = values(solo)["queue"], values(solo)
    solo.queue_ptr.fill_(20)
    for notes in ("queue_y", "queue_index"):
        if hasattr(solo, notes):
            getattr(solo, notes).fill_(3)
    memories.clear_queues(solo)
    assert not (solo.queue == before).any()
    assert torch.allclose(solo.queue.norm(dim=1), torch.ones(()), atol=1e-5)
    after = values(solo)
    assert same({**after, "queue": before}, others), "pointer and notes as the constructor had them"


@pytest.mark.parametrize("name", PROTOTYPES)
def test_cleared_prototypes_are_drawn_anew_and_nothing_else_is(name: str) -> None:
    solo = method(name).solo
    before = values(solo)
    memories.clear_prototypes(solo)
    changed = {n for n, t in values(solo).items() if not torch.equal(t, before[n])}
    assert changed and all("prototypes" in n or "last_layer" in n for n in changed)
    if name == "dino":
        online, momentum = (h.last_layer for h in (solo.head, solo.momentum_head))
        assert same(values(online), values(momentum))


@pytest.mark.parametrize("name", sorted(set(ALL_METHODS) - {*QUEUES, *PROTOTYPES}))
def test_methods_without_such_memories_are_left_alone(name: str) -> None:
    solo = method(name).solo
    before = values(solo)
    memories.clear_queues(solo)
    memories.clear_prototypes(solo)
    memories.rewind_queue(solo)
    assert same(values(solo), before)


def test_restart_knows_the_lengths_and_the_first_decay() -> None:
    solo = method("byol", tau=(0.9, 1.0)).solo
    solo.momentum_updater.cur_tau = 1.0
    memories.restart(solo, epochs=7, batch_size=3)
    assert (solo.max_epochs, solo.batch_size, solo.momentum_updater.cur_tau) == (7, 3, 0.9)
    simclr = method("simclr").solo
    assert parts.momentum_pairs(simclr) == []
    memories.restart(simclr, epochs=7, batch_size=3)
    assert (simclr.max_epochs, simclr.batch_size) == (7, 3)
