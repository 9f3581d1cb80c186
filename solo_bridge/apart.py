"""Work in a process of its own, which never outlives the one that began it.

This file imports nothing large: the new process watches its parent before it loads anything.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from avalanche_branchtune.checkpoints.signals import AT_ONCE, STATUSES
from avalanche_branchtune.errors import BranchTuneError, RecordError


class Stopped(KeyboardInterrupt):
    """The user or the system asked this process to end.

    :param number: of the signal.
    """

    def __init__(self, number: int) -> None:
        """See the class."""
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number
        self.status = STATUSES[signal.Signals(number)]
        """Exit status by which it is told."""


def stopped_by(status: object) -> Stopped | None:
    """Return what a process was asked to end by, None if it ended otherwise.

    :param status: its exit status; negative for a signal that it did not listen to.
    """
    for number, known in STATUSES.items():
        if status in (known, -number):
            return Stopped(number)
    return None


def run_apart(name: str, work: Callable[..., None], *arguments: Any) -> None:
    """Run a function in a process of its own, and wait for its end.

    If this process ends, in whatever way, that one and its loaders' workers end.  If this process
    is asked to end, so is that one: it can finish its step and save, see
    :class:`~avalanche_branchtune.checkpoints.Checkpoints`, unless it is asked again.

    :param name: of the work, for messages.
    :param work: of a module, so that the process can import it.
    :param arguments: its arguments, which can be pickled.
    :raises BranchTuneError: which the work raised; likewise ``OSError``.
    :raises Stopped: if this process or that one was asked to end.
    :raises RecordError: if the process ended in another way.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    task = pickle.dumps((work, arguments))
    heard = [number for number in STATUSES if signal.getsignal(number) is not signal.SIG_IGN]
    start = multiprocessing.get_start_method()
    process = context.Process(target=_enter, args=(there, task, start, heard), name=name)
    with here:
        with _deaf():  # what is interrupted here is not for the new process to decide
            process.start()
        there.close()
        try:
            try:
                wait([here, process.sentinel])  # what it says may be longer than the pipe holds
            except KeyboardInterrupt as stop:
                with contextlib.suppress(OSError):  # it has just ended
                    here.send(getattr(stop, "number", signal.SIGINT))
                wait([here, process.sentinel])
                raise
            error = _said(here)
            process.join()
        except BaseException:
            here.close()  # the process sees it and ends
            process.join()
            raise
    if error is not None:
        raise error
    stopped = stopped_by(process.exitcode)
    if stopped is not None:
        raise stopped
    if process.exitcode:
        raise RecordError(
            f"{name}: its process ended with status {process.exitcode}, for the reason above; "
            "what it finished is recorded"
        )


def _said(process: Connection) -> Exception | None:
    """Return the error that a process sent, None if it sent nothing or not all of it."""
    try:
        error: Exception | None = process.recv() if process.poll() else None
        return error
    except (EOFError, OSError):
        return None


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let what asks a process to end raise :class:`Stopped`, in this process alone.

    A worker of a data loader that was forked from it leaves the decision to it; what this process
    was told to ignore (as a shell does to what runs in its background) it goes on ignoring.
    """
    owner, asked_at = os.getpid(), -AT_ONCE

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        again, asked_at = time.monotonic() - asked_at < AT_ONCE, time.monotonic()
        if os.getpid() == owner and not again:
            raise Stopped(number)

    with _handled(stop, *STATUSES):
        yield


@contextlib.contextmanager
def _handled(handler: Any, *numbers: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are for the main thread
        return
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, handler) for number in heard]
    try:
        yield
    finally:
        for number, old in zip(heard, before, strict=True):
            signal.signal(number, old)


def _deaf() -> contextlib.AbstractContextManager[None]:
    return _handled(signal.SIG_IGN, signal.SIGINT)


def _enter(parent: Connection, task: bytes, start: str, heard: list[signal.Signals]) -> None:
    """Do the work, in the new process."""
    for number in heard:
        signal.signal(number, _end)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    multiprocessing.set_start_method(start, force=True)  # else loaders start as slowly as this did
    try:
        work, arguments = pickle.loads(task)
        work(*arguments)
    except (BranchTuneError, OSError) as error:
        parent.send(error)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(STATUSES[signal.Signals(number)])


def _end_with(parent: Connection) -> None:
    """Pass on what the parent is asked; end everything when it closes its pipe or is no more."""
    main = threading.main_thread().ident or 0
    with contextlib.suppress(EOFError, OSError):
        while True:
            signal.pthread_kill(main, parent.recv())
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(1)
