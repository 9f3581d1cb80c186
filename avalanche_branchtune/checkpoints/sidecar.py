"""``sidecar.json``: what a run does and when it last said so, for whoever looks from outside."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from avalanche_branchtune.checkpoints.signals import Requests
from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.writing import write_text

SIDECAR = "sidecar.json"
EVERY = 10.0
"""Seconds between two signs of life, at least."""
STATES = ("training", "evaluating", "waiting", "done", "interrupted", "failed")
"""``waiting``: between two calls of a strategy that has not trained all experiences."""

logger = logging.getLogger(__name__)


class Sidecar:
    """Writes what a run does, in a folder; where that fails the run goes on.

    Its fields: ``state``, ``experience`` of ``experiences``, ``epoch`` of ``epochs`` (from 1),
    ``steps`` in all, ``checkpoint`` (when it was ``saved``, ``bytes`` of all that are kept),
    ``signal`` or ``error`` that ended it, ``started`` (this process) and ``heartbeat`` in UTC,
    ``process`` and ``host``, and the ``job`` of SLURM's that it is.

    :param folder: of the run; its progress so far is taken over.
    :param writes: False for those of a job's processes that leave it to the first one.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        """See the class."""
        self.writes = writes
        self.path = folder / SIDECAR
        self._content: dict[str, Any] = {}
        with contextlib.suppress(RecordError):
            self._content = read_sidecar(folder)
        self._content.update(
            state="waiting",
            signal=None,
            error=None,
            started=now(),
            heartbeat=None,
            process=os.getpid(),
            host=socket.gethostname(),
            job=slurm_job(),
        )
        self._written = 0.0
        self._warned = False

    def note(self, **fields: Any) -> None:
        """Keep fields for the next sign of life.

        :param fields: see the class; they stay until they are given anew.
        """
        self._content.update(fields)

    def say(self, state: str | None = None, **fields: Any) -> None:
        """Write what the run does now.

        :param state: one of :data:`STATES`; None for the one before.
        :param fields: see :meth:`note`.
        """
        self._content.update(fields, state=state or self._content["state"], heartbeat=now())
        self._written = time.monotonic()
        if not self.writes:
            return
        try:
            write_text(self.path, json.dumps(self._content, indent=1) + "\n")
        except OSError as error:
            if not self._warned:
                logger.warning("%s cannot be written (%s); the run goes on", self.path, error)
            self._warned = True

    @property
    def experiences(self) -> int | None:
        """How many there are in the stream, None if it is not known."""
        found: int | None = self._content.get("experiences")
        return found

    @contextlib.contextmanager
    def watching(self, requests: Requests) -> Iterator[None]:
        """Say how it ended, if something ends before it is over.

        :param requests: that it listens to.
        """
        try:
            yield
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            self.say("failed", error=f"{type(error).__name__}: {first}")
            raise
        except BaseException:
            self.say("interrupted", signal=requests.signal)
            raise

    @property
    def due(self) -> bool:
        """Whether the last sign of life is so old that another one is due."""
        return time.monotonic() - self._written >= EVERY


def slurm_job() -> str | None:
    """Return the number of SLURM's job that this process belongs to, as squeue shows it."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def read_sidecar(folder: Path) -> dict[str, Any]:
    """Return what a run last said.

    :param folder: of the run.
    :raises RecordError: for a file that is missing or damaged.
    """
    path = folder / SIDECAR
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["state"] not in STATES:
            raise ValueError(f"unknown state {content['state']!r}")
        if content["heartbeat"] is not None:
            age(content["heartbeat"])
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RecordError(f"{path} is damaged: {error!r}") from error
    found: dict[str, Any] = content
    return found


def age(moment: str) -> float:
    """Return how many seconds ago a moment was.

    :param moment: as a sidecar has it.
    """
    return (datetime.now(timezone.utc) - datetime.fromisoformat(moment)).total_seconds()


def ago(seconds: float) -> str:
    """Return a time that has passed, in words.

    :param seconds: of it.
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def last_sign(folder: Path) -> str:
    """Return when the run of a folder last said something, "" if it is not known.

    :param folder: of the run.
    """
    try:
        moment = read_sidecar(folder)["heartbeat"]
    except RecordError:
        return ""
    return "" if moment is None else f"last heartbeat {ago(age(moment))}"


def now() -> str:
    """Return this moment in UTC, as a sidecar has it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
