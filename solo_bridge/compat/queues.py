"""Queues of embeddings that go round, so that they take minibatches of any size."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

NOTES = ("queue_y", "queue_index")
"""What is kept beside the embeddings of a queue ``(Q, D)``, in the order of the arguments."""


def let_wrap_around(solo: Any) -> None:
    """Let a method store N ≤ Q embeddings at the positions p, p + 1 … p + N − 1 modulo Q.

    For MoCo v2+, whose queue is ``(2, D, Q)``, and for NNCLR, NNBYOL, NNSiam, ReSSL and All4One,
    ``(Q, D)``: all of them look at the whole queue, whatever its order.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/methods/mocov2plus.py,
    _dequeue_and_enqueue; nnclr.py and others, dequeue_and_enqueue.
    Differs: solo-learn's refuses an N that does not divide Q, and cannot go on where minibatches
    of another size have left p; where it can, the queues are the same bit by bit.
    Authors' code: dr-bell/kaizen e36ee54, kaizen/methods/mocov2plus.py, _dequeue_and_enqueue: the
    same.

    :param solo: solo-learn's module; left alone if it has no such queue.
    """
    if hasattr(solo, "queue_ptr"):
        keys = hasattr(solo, "_dequeue_and_enqueue")
        name = "_dequeue_and_enqueue" if keys else "dequeue_and_enqueue"
        setattr(solo, name, partial(_store_keys if keys else _store, solo))


@torch.no_grad()
def _store_keys(solo: Any, keys: Tensor) -> None:
    """Store MoCo v2+'s ``(2, N, D)``, which its loss has gathered from all processes."""
    _go_on(solo, [(solo.queue.permute(2, 0, 1), keys.permute(1, 0, 2))])


@torch.no_grad()
def _store(solo: Any, embeddings: Tensor, *notes: Tensor) -> None:
    """Store the others' ``(N, D)``, with notes ``(N,)``."""
    from solo.utils.misc import gather

    names = ("queue", *NOTES[: len(notes)])
    new = [gather(x) for x in (embeddings, *notes)]
    _go_on(solo, [(getattr(solo, n), x) for n, x in zip(names, new, strict=True)])


def _go_on(solo: Any, pairs: list[tuple[Tensor, Tensor]]) -> None:
    size, samples = int(solo.queue_size), len(pairs[0][1])
    # On the pointer's device, where it is not waited for.  Kaizen's code leaves Q where 0 ought
    # to be.
    places = (solo.queue_ptr + torch.arange(samples, device=solo.queue_ptr.device)) % size
    for queue, new in pairs:
        queue.index_copy_(0, places, new.to(queue.dtype))
    solo.queue_ptr.add_(samples).remainder_(size)
