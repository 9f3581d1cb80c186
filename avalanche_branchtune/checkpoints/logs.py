"""Text files that a run writes as it goes: their lines are part of its state."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any


def lines_of(value: Any) -> bytes | None:
    """Return what was written to a log so far, None for what is no log.

    A log is a file that is open for writing alone, as Avalanche's CSVLogger has two and its
    TextLogger can have one; a terminal or a pipe is none.

    :param value: any object.
    """
    if not isinstance(value, io.TextIOWrapper) or value.closed or value.readable():
        return None
    try:
        value.flush()
        here, named = os.fstat(value.fileno()), os.stat(value.name)
        if not (os.path.samestat(here, named) and stat.S_ISREG(here.st_mode)):
            return None
        return Path(value.name).read_bytes()
    except (OSError, ValueError, TypeError):
        return None


def put_back(log: io.TextIOWrapper, lines: bytes) -> None:
    """Let a log hold what it held.

    :param log: open for writing; a script that is begun again has emptied it.
    :param lines: see :func:`lines_of`.
    """
    log.seek(0)
    log.truncate()
    log.buffer.write(lines)
    log.flush()
