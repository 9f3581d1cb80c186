"""Several works at a time, each in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from avalanche_branchtune.errors import BranchTuneError
from solo_bridge.apart import Apart, Stopped

Task = tuple[str, Callable[..., None], tuple[Any, ...]]
"""Name, function and arguments, see :class:`~solo_bridge.apart.Apart`."""
GPUS = "CUDA_VISIBLE_DEVICES"
"""Which of them a process may use, by number or name, with commas between."""


def run_side_by_side(
    tasks: Iterable[Task],
    jobs: int = 1,
    ended: Callable[[str], Iterable[Task]] = lambda name: (),
    failed: Callable[[str, BaseException], bool] = lambda name, error: False,
    places: Sequence[Mapping[str, str]] = ({},),
) -> None:
    """Run functions, each in a process of its own, and wait for their end.

    If one fails, those that run are finished, and no other is begun.  If this process is asked to
    end, so are they, and it waits until they have saved, unless it is asked again.

    :param tasks: in the order in which they are begun.
    :param jobs: how many run at a time, at most.
    :param ended: called with the name of each that ended well; what it returns is begun next.
    :param failed: called with the name of each that ended otherwise, and the error; if it returns
        True, the others go on, as if that one had ended well.
    :param places: environments, see :func:`places_of`: each process has that which the fewest have.
    :raises BranchTuneError: which one of them raised, the first, with its name; likewise
        ``OSError``, as it is.
    :raises Stopped: if this process or one of them was asked to end.
    :raises RecordError: if a process ended in another way.
    """
    waiting, running = list(tasks), list[Apart]()
    failure: BaseException | None = None
    asked = False
    try:
        while running or (waiting and failure is None):
            try:
                while waiting and failure is None and len(running) < jobs:
                    name, work, arguments = waiting.pop(0)
                    place = min(places, key=lambda p: sum(o.environment is p for o in running))
                    running.append(Apart(name, work, *arguments, environment=place))
                one = Apart.next_to_end(running)
                error = one.outcome()
                running.remove(one)
                if error is None or (not isinstance(error, Stopped) and failed(one.name, error)):
                    waiting[:0] = ended(one.name)
                    continue
            except KeyboardInterrupt as stop:
                if asked:
                    raise
                failure, asked = stop, True
                for other in running:
                    other.ask(getattr(stop, "number", signal.SIGINT))
                continue
            if isinstance(error, BranchTuneError):
                error.args = (f"{one.name}: {error}",)
            if (running or failure) and not isinstance(error, Stopped):
                beside = "; what runs beside it is finished first" if running else ""
                print(f"{error}{beside}", file=sys.stderr)
            failure = failure or error
    finally:
        for one in running:
            one.abandon()
    if failure is not None:
        raise failure


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def places_of(device: str) -> list[dict[str, str]]:
    """Return the environments by which processes share out a machine: for ``"cuda"`` one a GPU.

    :param device: where they train; one that says which GPU is as it says.
    """
    import torch

    count = torch.cuda.device_count() if device == "cuda" else 0
    if count < 2:
        return [{}]
    said = os.environ.get(GPUS)
    names = said.split(",") if said else [str(number) for number in range(count)]
    return [{GPUS: name.strip()} for name in names[:count]]
