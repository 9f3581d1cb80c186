"""Signals that ask a run to end: it finishes its step first."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

REQUEUE = 75
"""Exit status after SIGUSR1 and SIGUSR2, by which a batch script can tell that the run is to be
queued again: EX_TEMPFAIL of sysexits.h."""

STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGUSR1"):
    STATUSES |= {signal.SIGUSR1: REQUEUE, signal.SIGUSR2: REQUEUE}

AT_ONCE = 1.0
"""Seconds in which signals are one: a terminal or SLURM sends it to a whole group, of which one
process may send it on to another."""


class Requests:
    """Listens to the signals that ask to end; a second one ends at once.

    Not one of several processes, which would leave the others behind: ``torchrun`` passes a signal
    on that they may have got already, and kills after half a minute what has not ended.

    :param requeue: exit status for SIGUSR1 and SIGUSR2, by which batch scripts and submitit say
        that the time is nearly over.
    """

    def __init__(self, requeue: int) -> None:
        """See the class."""
        self.together = False
        """Whether this process is one of several that end together."""
        self._status: int | None = None  # asked of this process
        self._agreed: int | None = None  # on which all of a job's processes end
        self.signal: str | None = None
        """Name of the signal that asked for it."""
        self._statuses = {n: requeue if s == REQUEUE else s for n, s in STATUSES.items()}
        self._asked_at = 0.0

    @property
    def status(self) -> int | None:
        """Exit status that was asked for, None until a signal came; of several processes, until all
        of them know of it."""
        return self._agreed if self.together else self._status

    def votes(self) -> list[float]:
        """Return for each signal whether it has come, to be added up over a job's processes."""
        return [float(self._status == self._statuses[number]) for number in STATUSES]

    def take(self, votes: Sequence[float]) -> None:
        """End, if any process was asked to.

        :param votes: their sum, or mean.
        """
        for vote, number in zip(votes, STATUSES, strict=True):
            if vote and self._agreed is None:
                self._agreed = self._statuses[number]
                self.signal = self.signal or signal.Signals(number).name

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
                if signal.getsignal(number) == self._note:  # else it is ignored from now on
                    signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        status = self._statuses[signal.Signals(number)]
        if self._status is None:
            self._status, self.signal = status, signal.Signals(number).name
            self._asked_at = time.monotonic()
        elif not self.together and time.monotonic() - self._asked_at > AT_ONCE:
            raise SystemExit(status)
