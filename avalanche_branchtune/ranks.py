"""Which of a job's processes this is, and what they tell one another.

A job of several processes is started by ``torchrun``, or its process group made before; alone a
process is rank 0 of 1, and all that is here does nothing.  Every function that says "all ranks"
must be called by all of them, in the same order.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from avalanche_branchtune.errors import OtherProcessError, UnknownOptionError

T = TypeVar("T")

REST = 0.01
"""Seconds in which the process group's threads give back what a collective operation had."""

BUCKET = 25 * 2**20
"""Bytes of gradients that are sent at a time, as in torch's DistributedDataParallel."""

WAIT = 60.0
"""Minutes that a rank waits for another one, unless told otherwise."""


@dataclass
class Traffic:
    """What this rank has sent and waited for since it joined, of one kind.

    :param calls: collective operations.
    :param payload: bytes that were given to them; on the wire a ring sends ``2 (W − 1) / W`` times
        as many to reduce them, and ``(W − 1)`` times as many to gather them, of each rank.
    :param seconds: from their begin until their result was there.
    """

    calls: int = 0
    payload: int = 0
    seconds: float = 0.0


traffic: defaultdict[str, Traffic] = defaultdict(Traffic)
"""By kind: gradients, embeddings and what flows back into them, norms, control …"""

_joined = False
_alone = False


def launched() -> bool:
    """Tell whether this process is one of several of a job, and is not to be alone in it."""
    if _alone or not dist.is_available():
        return False
    if dist.distributed_c10d.is_initialized():
        return dist.get_world_size() > 1
    return dist.is_torchelastic_launched() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: torch.device, minutes: float = WAIT) -> None:
    """Become one of the job's ranks, if there is a job; all ranks.

    :param device: that trains; with a GPU, NCCL carries what is on it, and gloo the rest.
    :param minutes: how long a rank waits for another one; of a process group that is there already
        it is left as it was made.
    """
    global _joined
    if _joined or not launched():
        return
    if dist.distributed_c10d.is_initialized():
        try:
            dist.all_reduce(torch.zeros(1))
        except RuntimeError as error:
            raise UnknownOptionError(
                "the process group cannot carry what is on the CPU: make it by "
                "torch.distributed.init_process_group('cpu:gloo,cuda:nccl'), or leave it to "
                f"SelfSupervised ({_first(error)})"
            ) from error
    else:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with _talking("control", 0):
            dist.init_process_group(backend, timeout=timedelta(minutes=minutes))
    _joined = True


def stay_alone(asked: str) -> None:
    """Work alone from now on, though there is a job.

    :param asked: by what, for the message.
    :raises UnknownOptionError: if this process works together with others already.
    """
    global _alone
    if _joined:
        raise UnknownOptionError(
            f"{asked}: another strategy of this process works together with other processes "
            "already: use a process of its own"
        )
    _alone = True


def joined() -> bool:
    """Tell whether this process is one of several that work on the same model."""
    return _joined


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if _joined else 0


def size() -> int:
    """Return how many there are, W; 1 alone."""
    return dist.get_world_size() if _joined else 1


def leads() -> bool:
    """Tell whether this is rank 0, which alone evaluates, writes and prints."""
    return rank() == 0


def on_this_machine() -> int:
    """Return how many of the job's processes share this machine's memory; 1 alone."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _joined else 1


def local_device(device: torch.device) -> torch.device:
    """Return this rank's own of several GPUs, where none was chosen.

    :param device: as it was asked for.
    :raises UnknownOptionError: if this machine has more of the job's processes than GPUs.
    """
    if device.type == "cuda" and device.index is None and launched():
        there, asked = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if asked > there:
            raise UnknownOptionError(
                f"device {str(device)!r}: {asked} processes on this machine, each of which wants a "
                f"GPU of its own, and {there} GPUs: torchrun --nproc-per-node={there or '…'}"
                f"{'' if there else ' on a machine that has some, or another device'}"
            )
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Let libraries that look for a process group find none: what they would do is done here.

    Avalanche would give each rank other minibatches, and solo-learn gather embeddings that are
    gathered already.
    """
    if not _joined:
        yield
        return
    with mock.patch.object(dist, "is_initialized", lambda: False):
        yield


# ---- shares of a minibatch: rank r has the samples r, r + W, r + 2W …


def own(items: Sequence[T]) -> Sequence[T]:
    """Return this rank's share of the whole minibatch's items, all if they cannot be shared.

    :param items: one for each sample of the whole minibatch.
    """
    return items[rank() :: size()] if len(items) % size() == 0 else items


def whole(rows: Tensor, kind: str = "rows") -> Tensor:
    """Return the whole minibatch's rows, in its order; without a graph; all ranks.

    :param rows: of this rank's share, ``(N / W, …)``.
    :param kind: of :data:`traffic`.
    :return: ``(N, …)``.
    """
    if not _joined:
        return rows
    rows = rows.detach().contiguous()
    found = [torch.empty_like(rows) for _ in range(size())]
    with _talking(kind, rows.nbytes):
        dist.all_gather(found, rows)
    return torch.stack(found, dim=1).flatten(0, 1)


def rows_of(rows: Tensor, places: Sequence[int]) -> Tensor:
    """Return some rows of the whole minibatch; all ranks, of the same places.

    :param rows: of this rank's share, ``(N / W, …)``.
    :param places: in the whole minibatch, from 0.
    :return: ``(len(places), …)``, without a graph.
    """
    here = rows.detach()
    found = here.new_zeros(len(places), *here.shape[1:])
    for row, place in enumerate(places):
        if place % size() == rank():
            found[row] = here[place // size()]
    return summed(found) if len(places) else found


class Gathered(torch.autograd.Function):
    """:func:`whole` with a graph.

    What the ranks compute of the whole minibatch's rows counts as the mean over them; each rank's
    gradient is that of its own rows, summed over the ranks.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: D102
        return whole(rows, "embeddings")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: D102
        given = gradients[0]  # half precision is added up in single
        exact = given.to(torch.promote_types(given.dtype, torch.float32))
        total = summed(exact, "embeddings, back")
        return total[rank() :: size()].to(given.dtype)


def summed(part: Tensor, kind: str = "rows") -> Tensor:
    """Return the sum over the ranks, without a graph; all ranks.

    :param part: of the same shape on each.
    :param kind: of :data:`traffic`.
    """
    total = part.detach().clone(memory_format=torch.contiguous_format)
    if _joined:
        with _talking(kind, total.nbytes):
            dist.all_reduce(total)
    return total


def mean_count(count: Tensor) -> Tensor:
    """Return the mean of a count over the ranks, by which a sum over a share is to be divided.

    The mean over the ranks of such quotients is the sum over the whole minibatch, divided by its
    count; all ranks.

    :param count: of this rank's share, a scalar.
    """
    if not _joined:
        return count
    return summed(count.float()) / size()


# ---- what is the same on all ranks


def average(tensors: Sequence[Tensor]) -> None:
    """Put the mean over the ranks in the place of tensors; all ranks, the same shapes.

    They are sent in flat buckets, each while the next one is filled.

    :param tensors: floating-point.
    """
    if not _joined:
        return
    begin, under_way = time.perf_counter(), []
    with _talking("gradients", sum(t.nbytes for t in tensors), since=begin):
        for bucket in _buckets(tensors):
            flat = _flat(bucket) / size()
            under_way.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in under_way:
            if work is not None:
                work.wait()
            _fill(bucket, flat)


def as_first(tensors: Sequence[Tensor]) -> None:
    """Put rank 0's values in the place of tensors; all ranks, the same shapes.

    :param tensors: of any type.
    """
    if not _joined:
        return
    with _talking("from the first", sum(t.nbytes for t in tensors)):
        for bucket in _buckets(tensors):
            flat = _flat(bucket)
            dist.broadcast(flat, 0)
            _fill(bucket, flat)


def of_first(make: Callable[[], T]) -> T:
    """Return what rank 0 makes; the others wait for it; all ranks.

    :param make: called by rank 0 alone; what it returns is pickled.
    :raises OtherProcessError: on the others, if it raised on rank 0.
    """
    if not _joined:
        return make()
    if leads():
        try:
            found = [True, make()]
        except BaseException as error:
            with contextlib.suppress(OtherProcessError):
                _told([False, f"{type(error).__name__}: {error}"])
            raise
        _told(found)
        return found[1]  # type: ignore[return-value]
    good, value = _told([None, None])
    if not good:
        raise OtherProcessError(f"the first of the job's processes has failed: {value}")
    return value


def _told(found: list[Any]) -> list[Any]:
    with _talking("control", 0):
        dist.broadcast_object_list(found, 0)
    return found


def of_all(value: T) -> list[T]:
    """Return every rank's value, in their order; all ranks.

    :param value: pickled.
    """
    if not _joined:
        return [value]
    found: list[Any] = [None] * size()
    with _talking("control", 0):
        dist.all_gather_object(found, value)
    return found


def rest(workers: int) -> None:
    """Wait a moment before workers of a data loader are forked, in a job.

    A thread of gloo's that gives back a tensor enters Python for that, and a process that is forked
    at this moment waits for ever, and whoever waits for it (Python 3.11).

    :param workers: that are about to begin; nothing happens for none.
    """
    if _joined and workers:
        time.sleep(REST)


def end_in_peace() -> None:
    """Ignore SIGTERM from now on, in a process of a job that is about to end by itself.

    When one of the processes has ended, torchrun sends it to the others, and half a minute later
    SIGKILL.
    """
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


# ---- parts


def _flat(bucket: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in bucket])


def _fill(bucket: Sequence[Tensor], flat: Tensor) -> None:
    parts = torch.split(flat, [tensor.numel() for tensor in bucket])
    for tensor, part in zip(bucket, parts, strict=True):
        tensor.detach().copy_(part.view(tensor.shape))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        bucket: list[Tensor] = []
        held = 0
        for tensor in alike:
            bucket.append(tensor)
            held += tensor.nbytes
            if held >= BUCKET:
                yield bucket
                bucket, held = [], 0
        if bucket:
            yield bucket


@contextlib.contextmanager
def _talking(kind: str, payload: int, since: float | None = None) -> Iterator[None]:
    begin = time.perf_counter() if since is None else since
    try:
        yield
    except RuntimeError as error:  # gloo and NCCL, of a connection that was closed or timed out
        end_in_peace()  # not before it has said why
        raise OtherProcessError(
            f"process {os.environ.get('RANK', '?')} of {os.environ.get('WORLD_SIZE', '?')} cannot "
            "reach the others: one of them has ended, or did not answer in time; its own message "
            "says why, or, of one that was killed, torchrun's summary. Start the job again to go "
            f"on from its last checkpoint ({_first(error)})"
        ) from None
    finally:
        sent = traffic[kind]
        sent.calls += 1
        sent.payload += payload
        sent.seconds += time.perf_counter() - begin


def _first(error: Exception) -> str:
    """Return the first sentence of a message, without the place in the source."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[\S+\] ", "", line).split(". ")[0]
