"""Stopping an operation at every line of ours, by a signal as Ctrl-C would, or by a full disk."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import avalanche_branchtune
import solo_bridge

OURS = tuple(str(Path(p.__file__ or "").parent) for p in (avalanche_branchtune, solo_bridge))


class Stop:
    """Raises KeyboardInterrupt at the k-th line of ours; without k it only counts them."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.lines = 0
        self.where = ""

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise KeyboardInterrupt(self.where)
        return self._trace

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count, and raise, inside this block only."""
        outer = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(outer)

    def during(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        """Return the operation, counted."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.watching():
                return operation(*args, **kwargs)

        return watched


def every_line(check: Callable[[Stop], None], step: int = 1) -> tuple[int, list[str]]:
    """Run a check for each line of ours that it passes; return their number and what failed.

    :param check: makes its objects anew, does the operation under ``stop.watching()``,
        whose KeyboardInterrupt it catches, and asserts what must hold then.
    :param step: 1 for every line.
    """
    check(Stop())  # modules are imported at their first use
    whole = Stop()
    check(whole)
    failed = []
    for at in range(1, whole.lines + 1, step):
        stop = Stop(at)
        try:
            check(stop)
            assert torch.is_grad_enabled(), "gradients were left off"
        except Exception as error:
            failed.append(f"{at}: {stop.where}: {type(error).__name__}: {str(error)[:200]}")
        torch.set_grad_enabled(True)
        assert stop.where, f"line {at} of {whole.lines} was not reached"
    return whole.lines, failed


@contextmanager
def signalled(after: float) -> Iterator[None]:
    """Let a real signal raise KeyboardInterrupt after some seconds, wherever that is."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
