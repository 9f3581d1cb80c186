"""Work in processes of their own, which never outlive the one that began them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from types import FrameType, MappingProxyType
from typing import Any

from avalanche_branchtune.checkpoints.signals import AT_ONCE, STATUSES
from avalanche_branchtune.errors import BranchTuneError, RecordError

PRELOADED = "solo_bridge.preloaded"
"""Module that imports what training needs."""

START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
"""How processes begin: forked from one that has imported everything, where a system can."""


class Stopped(KeyboardInterrupt):
    """The user or the system asked this process to end.

    :param number: of the signal.
    :param called: what is said of it, if it may be another one of the same exit status.
    """

    def __init__(self, number: int, called: str | None = None) -> None:
        """See the class."""
        super().__init__(f"interrupted by {called or signal.Signals(number).name}")
        self.number = number
        self.status = STATUSES[signal.Signals(number)]
        """Exit status by which it is told."""


def stopped_by(status: object) -> Stopped | None:
    """Return what a process was asked to end by, None if it ended otherwise.

    :param status: its exit status; negative for a signal that it did not listen to.
    """
    for number, known in STATUSES.items():
        if status == -number:
            return Stopped(number)
        if status == known:
            alike = [one.name for one, other in STATUSES.items() if other == known]
            return Stopped(number, " or ".join(alike))
    return None


class Apart:
    """A function at work in a process of its own.

    If this process ends, in whatever way, that one and its loaders' workers end.  It is forked from
    one that does nothing else, see :func:`prepare`.

    :param name: of the work, for messages.
    :param work: of a module, so that the process can import it.
    :param arguments: its arguments, which can be pickled.
    :param environment: variables that the process has set.
    """

    def __init__(
        self,
        name: str,
        work: Callable[..., None],
        *arguments: Any,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """See the class."""
        prepare()
        context: Any = multiprocessing.get_context(START)
        task = pickle.dumps((work, arguments))
        heard = [number for number in STATUSES if signal.getsignal(number) is not signal.SIG_IGN]
        start = multiprocessing.get_start_method()
        self.name, self.environment = name, environment
        self._pipe, there = context.Pipe()
        numbers = (1, 2) if START == "forkserver" else ()
        said = [_Stream(number) for number in numbers if _is_open(number)]
        arguments = (there, said, task, start, heard, dict(environment))
        self._process = context.Process(target=_enter, args=arguments, name=name)
        try:
            self._process.start()
        except BaseException:
            self._pipe.close()  # the process sees it, if there is one
            raise
        finally:
            there.close()

    def ask(self, number: int) -> None:
        """Ask it to end: it can finish its step and save, unless it is asked again.

        See :class:`~avalanche_branchtune.checkpoints.Checkpoints`.

        :param number: of the signal.
        """
        with contextlib.suppress(OSError):  # it has just ended
            self._pipe.send(number)

    def outcome(self) -> Exception | Stopped | None:
        """Wait for its end, and return what the work raised, None if all went well.

        :return: a ``BranchTuneError`` or ``OSError`` of the work; :class:`Stopped` if the process
            was asked to end; ``RecordError`` if it ended in another way.
        """
        error = _said(self._pipe)
        self._process.join()
        code = self._process.exitcode
        if error is not None or not code:
            return error
        how = f"ended with status {code}" if code > 0 else f"was killed by signal {-code}"
        return stopped_by(code) or RecordError(
            f"its process {how}, for the reason above if there is one; what it finished is recorded"
        )

    def abandon(self) -> None:
        """End it now, if it has not ended."""
        self._pipe.close()  # the process sees it
        self._process.join()

    @staticmethod
    def next_to_end(some: Sequence[Apart]) -> Apart:
        """Wait until one of several has ended, or tells why it is about to.

        :param some: of which one is returned.
        """
        handles: dict[Any, Apart] = {}
        for one in some:
            handles.update({one._pipe: one, one._process.sentinel: one})
        return handles[wait(list(handles))[0]]


def prepare(*modules: str) -> None:
    """Begin the process that all others are forked from, if it has not begun.

    :param modules: which it imports, once for all; whoever begins it early need not wait for that.
    """
    if START != "forkserver":
        return
    from multiprocessing import forkserver

    with _handled(signal.SIG_IGN, *STATUSES):  # a whole group is asked to end: not that process
        multiprocessing.set_forkserver_preload(list(modules))
        forkserver.ensure_running()


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
            if signal.getsignal(number) is handler:  # else it is ignored from now on
                signal.signal(number, old)


class _Stream:
    """What this process writes to, for a new one: whom that is forked from may have another.

    :param number: of the stream, 1 for the output and 2 for errors.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        from multiprocessing.reduction import DupFd  # not of every system

        return _taken_over, (self.number, DupFd(self.number))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _taken_over(number: int, stream: Any) -> None:
    opened = stream.detach()
    os.dup2(opened, number)
    os.close(opened)


def _enter(
    parent: Connection,
    said: Any,
    task: bytes,
    start: str,
    heard: list[signal.Signals],
    environment: dict[str, str],
) -> None:
    """Do the work, in the new process."""
    os.environ.update(environment)
    for number in heard:
        signal.signal(number, _end)
    if hasattr(os, "register_at_fork") and signal.SIGTERM in heard:
        _let_workers_end()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    multiprocessing.set_start_method(start, force=True)  # else loaders start as slowly as this did
    try:
        work, arguments = pickle.loads(task)
        work(*arguments)
    except (BranchTuneError, OSError) as error:
        parent.send(error)
        raise SystemExit(1) from None


def _let_workers_end() -> None:
    """Let what this process forks end by SIGTERM at once, as when it terminates its workers.

    They would have :func:`_end` for it, which raises; and what is raised while Python makes a
    forked process ready is ignored, so that it would live on, and whoever waits for it wait.
    """

    def made_ready() -> None:
        if signal.getsignal(signal.SIGTERM) is _end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM}),
        after_in_child=made_ready,
    )


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
