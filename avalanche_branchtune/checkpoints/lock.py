"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from avalanche_branchtune.checkpoints.sidecar import last_sign
from avalanche_branchtune.errors import FolderInUseError, RecordError

LOCK = ".running"
"""Name of the file; it says process, begin (seconds since 1970), host, and a mark of its own."""
WORDS = re.compile(r"process (\d+) of (\d+\.\d\d) on (\S+)")
SHOWN = 40.0
"""Seconds until a folder that machines share shows to one what another one wrote: NFS may take 30
to see that a directory has changed."""
NEAR = 2.0
"""Seconds by which a system that corrects its clock may move the begin of a process."""


@dataclass(frozen=True)
class Holder:
    """Whom a folder is locked by.

    :param text: what the file says.
    :param process: its number; None for a file that does not say.
    :param host: where it runs; None likewise.
    :param alive: whether it does; None for another host, where it cannot be looked at.
    """

    text: str
    process: int | None = None
    host: str | None = None
    alive: bool | None = None


class Lock:
    """Keeps other processes out of a folder until it is released.

    It is a file that no two processes can make.  One that was left behind by a process of this
    host that is no more is taken over: by whoever first makes a second file, named after what the
    first one says, and so by one alone.  One of another host stays, whatever its age.

    :param folder: made if it does not exist, and removed again if nothing was written to it.
    :param again: whether a lock of this very process is taken over too: a notebook makes its
        strategy anew.
    :raises FolderInUseError: if another process works there.
    :raises RecordError: if nothing can be written there.
    """

    def __init__(self, folder: Path, *, again: bool = False) -> None:
        """See the class."""
        self._process = number = os.getpid()
        self._path, self._made = folder / LOCK, not folder.exists()
        begin = psutil.Process().create_time()
        mark = f"process {number} of {begin:.2f} on {socket.gethostname()}"
        self.text = f"{mark}\n{secrets.token_hex(4)}\n"
        """What its file says, like no other one."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = holder(folder)
            mine = again and found is not None and found.alive and found.process == number
            if found is not None and (found.alive is False or mine):
                self._clear(found.text)
            with self._path.open("x", encoding="utf-8") as file:
                file.write(self.text)
        except FileExistsError as error:
            if not folder.is_dir():
                raise RecordError(f"{folder} is a file: choose a folder for the results") from error
            raise _in_use(folder) from None
        except OSError as error:
            message = f"{folder}: nothing can be written there: {error.strerror}"
            raise RecordError(message) from error

    def _clear(self, text: str) -> None:
        """Remove a lock that says this, unless another process does."""
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        claim = self._path.with_name(f"{LOCK}.{name}")
        claim.touch(exist_ok=False)
        try:
            if _text(self._path) == text:  # whoever had the claim before may have replaced it
                self._path.unlink()
        finally:
            claim.unlink()

    @property
    def lost(self) -> bool:
        """Whether another one was taken in its place."""
        return _text(self._path) not in ("", self.text)

    def release(self) -> None:
        """Let others in; in a process that was forked from the one that took it, do nothing."""
        if os.getpid() != self._process:
            return
        if not self.lost:
            self._path.unlink(missing_ok=True)
        if self._made:
            with contextlib.suppress(OSError):  # it holds results
                self._path.parent.rmdir()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others out of a folder, see :class:`Lock`; also another call of this process.

    :param folder: of results.
    """
    lock = Lock(folder)
    try:
        yield
    finally:
        lock.release()


def holder(folder: Path) -> Holder | None:
    """Return whom a folder is locked by, None if it is not.

    :param folder: of results.
    """
    path = folder / LOCK
    if not path.exists():
        return None
    text = _text(path)
    words = WORDS.match(text)
    if words is None:
        return Holder(text)
    number, begin, host = int(words[1]), float(words[2]), words[3]
    if host != socket.gethostname():
        return Holder(text, number, host)
    try:
        alive = abs(psutil.Process(number).create_time() - begin) <= NEAR  # else it is another's
    except psutil.Error:
        alive = False
    return Holder(text, number, host, alive)


def seen(folder: Path, text: str) -> bool:
    """Wait until a lock is seen in a folder, by another process than its own, for :data:`SHOWN`.

    :param folder: of the lock.
    :param text: that it says.
    :return: whether it is.
    """
    end = time.monotonic() + SHOWN
    while _text(folder / LOCK) != text:
        if time.monotonic() >= end:
            return False
        time.sleep(0.2)
    return True


def _in_use(folder: Path) -> FolderInUseError:
    found = holder(folder) or Holder("")
    who = ", ".join(filter(None, [_who(found.text), last_sign(folder)]))
    left = "" if found.alive else f" (if it is no more, remove {folder / LOCK})"
    return FolderInUseError(
        f"another process ({who}) writes to {folder}: choose another folder, or wait for its end"
        f"{left}"
    )


def _who(text: str) -> str:
    words = WORDS.match(text)
    if words is None:
        return text.partition("\n")[0] or "unknown"
    begun = datetime.fromtimestamp(float(words[2]))
    return f"process {words[1]} on {words[3]}, begun {begun:%Y-%m-%d %H:%M}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
