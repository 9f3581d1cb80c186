"""Queues that go round."""

from __future__ import annotations

import copy
import json
import pickle
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from solo_bridge.compat.queues import NOTES
from solo_bridge.plugins import KaizenPlugin
from solo_bridge.plugins.rehearsal.replay import replay
from tests.selfsupervised import ALL_METHODS, data, method, strategy, stream, weights

RECORDED = Path(__file__).parents[2] / "recorded"
QUEUES = [
    n for n in ("mocov2plus", "nnclr", "nnbyol", "nnsiam", "ressl", "all4one") if n in ALL_METHODS
]
SIZES = (20, 7, 33, 40, 1, 20)


def store(solo: Any, new: Tensor, labels: Tensor, index: Tensor) -> None:
    """Hand embeddings ``(N, D)`` to a method's own function, as its loss does."""
    if hasattr(solo, "_dequeue_and_enqueue"):
        solo._dequeue_and_enqueue(torch.stack((new, -new)))
    else:
        notes = [x for name, x in zip(NOTES, (labels, index), strict=True) if hasattr(solo, name)]
        solo.dequeue_and_enqueue(new, *notes)


def samples(n: int, of: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(of)
    return (
        torch.randn(n, 8, generator=generator),
        torch.randint(10, (n,), generator=generator),
        torch.randint(999, (n,), generator=generator),
    )


@pytest.mark.parametrize("name", QUEUES)
def test_the_oldest_leave_first_whatever_the_minibatches(name: str) -> None:
    """A queue of 40 is a deque of 40 that begins where the pointer stands."""
    solo = method(name).solo
    rows = solo.queue.permute(2, 0, 1) if name == "mocov2plus" else solo.queue
    kept = deque((row.clone() for row in rows), maxlen=40)
    labels, numbers = deque([-1] * 40, maxlen=40), deque([-1] * 40, maxlen=40)
    stored = 0
    for i, n in enumerate(SIZES):
        x, y, index = samples(n, i)
        store(solo, x, y, index)
        kept.extend(torch.stack((r, -r)) if name == "mocov2plus" else r for r in x)
        labels.extend(y.tolist())
        numbers.extend(index.tolist())
        stored += n
        rows = solo.queue.permute(2, 0, 1) if name == "mocov2plus" else solo.queue
        pointer = int(solo.queue_ptr)
        assert pointer == stored % 40
        assert torch.equal(rows.roll(-pointer, 0), torch.stack(list(kept)))
        for notes, expected in zip(NOTES, (labels, numbers), strict=True):
            if hasattr(solo, notes):
                assert getattr(solo, notes).roll(-pointer).tolist() == list(expected)


@pytest.mark.parametrize("name", QUEUES)
def test_where_solo_learn_s_own_function_works_ours_gives_its_bits(name: str) -> None:
    solo = method(name).solo
    own = copy.deepcopy(solo)
    function = "_dequeue_and_enqueue" if name == "mocov2plus" else "dequeue_and_enqueue"
    del vars(own)[function]
    for i in range(5):
        x, y, index = samples(20, i)
        store(solo, x, y, index)
        store(own, x, y, index)
        for (n, mine), theirs in zip(
            solo.state_dict().items(), own.state_dict().values(), strict=True
        ):
            assert torch.equal(mine, theirs), n
    with pytest.raises(AssertionError):
        store(own, *samples(16, 0))


def test_recorded_numbers_of_kaizen_s_queue() -> None:
    recorded = json.loads((RECORDED / "kaizen_moco_queue.json").read_text())
    solo = method("mocov2plus", queue_size=7).solo
    solo.queue = torch.sin(torch.arange(28, dtype=torch.float64)).reshape(2, 2, 7)
    for i, (n, after) in enumerate(zip(recorded["sizes"], recorded["after"], strict=True)):
        keys = torch.cos(torch.arange(4.0 * n, dtype=torch.float64) + 100 * i)
        solo._dequeue_and_enqueue(keys.reshape(2, n, 2))
        expected = torch.tensor(after["queue"], dtype=torch.float64)
        torch.testing.assert_close(solo.queue, expected, rtol=0, atol=1e-15)
        assert int(solo.queue_ptr) == after["pointer"] % 7, "theirs may stand at 7"
        solo.queue_ptr[0] = after["pointer"]  # and is gone on from


@pytest.mark.parametrize("name", QUEUES)
def test_copies_and_pickles_store_in_their_own_queue(name: str) -> None:
    model = method(name)
    store(model.solo, *samples(30, 0))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = model.solo.queue.clone()
        store(other.solo, *samples(25, 1))
        assert torch.equal(model.solo.queue, before) and int(model.solo.queue_ptr) == 30
        assert int(other.solo.queue_ptr) == 15 and not torch.equal(other.solo.queue, before)


@pytest.mark.parametrize("name", QUEUES)
def test_minibatches_of_other_sizes_train(name: str) -> None:
    """20 and later 16 of a queue of 40, which solo-learn's own code can take in neither order."""
    model = method(name)
    for size in (20, 16):
        before = weights(model)
        run = strategy(model, train_mb_size=size, train_epochs=1, lr=0.1)
        run.train(stream().train_stream[0])
        assert torch.isfinite(weights(model)).all() and not torch.equal(weights(model), before)
    assert int(model.solo.queue_ptr) == (2 * 20 + 3 * 16) % 40


def test_kaizen_on_moco_with_replay_as_in_its_scripts() -> None:
    """256 new and 32 replayed images and a queue of 65536, all of them a tenth: 288 divides no
    power of two."""
    model = method("mocov2plus", queue_size=64)
    plugins = [replay("reservoir", 20, 4), KaizenPlugin(classifier_hidden=8, hidden=8)]
    run = strategy(model, plugins, train_mb_size=32, train_epochs=2, lr=0.1)
    joined = []
    stored = 0
    for experience in stream(2, data(140)).train_stream:
        before = int(model.solo.queue_ptr)
        begin = run.clock.train_iterations
        run.train(experience)
        steps = run.clock.train_iterations - begin
        size = 36 if joined else 32
        stored += steps * size
        joined.append((int(model.solo.queue_ptr) - before) % 64 == steps * size % 64)
        assert torch.isfinite(weights(model)).all()
    assert joined == [True, True] and stored % 36 and int(model.solo.queue_ptr) == stored % 64
