"""One comparison at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil

from avalanche_branchtune.errors import RecordError

LOCK = ".running"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder.

    It holds a file with this process's number, start and host, removed at the end.  One that was
    left behind by a process of this host that is no more does not count.

    :param folder: made if it does not exist, and removed again if nothing was written to it.
    :raises RecordError: if another process works there, or nothing can be written there.
    """
    mine, path, made = _mark(os.getpid()), folder / LOCK, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and _left_behind(path):
            path.unlink()
        with path.open("x", encoding="utf-8") as file:
            file.write(mine)
    except FileExistsError as error:
        if not folder.is_dir():
            raise RecordError(f"{folder} is a file: choose a folder for the results") from error
        raise RecordError(
            f"another process ({_text(path) or 'unknown'}) writes to {folder}: choose another "
            f"folder, or wait for its end (if it is no more, remove {path})"
        ) from error
    except OSError as error:
        raise RecordError(f"{folder}: nothing can be written there: {error.strerror}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):  # it holds results
                folder.rmdir()


def _mark(number: int) -> str:
    begin = psutil.Process(number).create_time()
    return f"process {number} of {begin:.2f} on {socket.gethostname()}"


def _left_behind(path: Path) -> bool:
    """Tell whether the process that a file names has ended: its number may be another's by now."""
    text = _text(path)
    words = text.split()
    if len(words) != 6 or words[-1] != socket.gethostname():
        return False
    try:
        return text != _mark(int(words[1]))
    except (psutil.Error, ValueError):
        return True


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
