"""Signals that ask a run to end: it finishes its step first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Requests:
    """Listens to the signals that ask to end; the second one ends at once.

    :param requeue: exit status for SIGUSR1, by which SLURM says that the time is nearly over.
    """

    def __init__(self, requeue: int) -> None:
        """See the class."""
        self.status: int | None = None
        """Exit status that was asked for, None until a signal came."""
        self._statuses = {signal.SIGTERM: 143, signal.SIGINT: 130}
        if hasattr(signal, "SIGUSR1"):
            self._statuses[signal.SIGUSR1] = requeue

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Listen; in the main thread alone, where signals arrive, and not to ignored ones."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._note)
            for number in self._statuses
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        status = self._statuses[signal.Signals(number)]
        if self.status is not None:
            raise SystemExit(status)
        self.status = status
