"""Files that are written whole or not at all, and never through a link that lies in their place."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from avalanche_branchtune.errors import RecordError

_UNFINISHED = re.compile(r"\.[0-9a-f]{16}(\.\w+)?")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new file beside a path, which takes its place if all goes well.

    A link that is there is replaced, not followed; if anything fails, what was
    there stays and the new file goes.

    :param path: the file; its folder exists.
    :return: an empty file with the same suffix, to be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # of a write: say of what
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what :func:`replacing` left when its process was killed.

    :param folder: to which no other process writes.
    """
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, see :func:`replacing`.

    :param path: the file.
    :param text: all of it; its line ends stay as they are.
    """
    content = text.encode()
    with replacing(path) as temporary:
        temporary.write_bytes(content)


class Summed:
    """A file to write to, with the sum of what was written.

    What keeps it from being written is raised by :func:`write_whole`, once all is given:
    ``torch.save`` would hide it behind an error of its own.

    :param file: opened in binary mode; None to count the bytes only.
    """

    def __init__(self, file: BinaryIO | None) -> None:
        """See the class."""
        self.file = file
        self.sum = hashlib.sha256()
        self.bytes = 0
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write bytes, or what has them."""
        self.bytes += len(content)
        if self.file is not None and self.error is None:
            self.sum.update(content)
            try:
                self.file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        """Do nothing: that is done once, at the end."""


def write_whole(path: Path, put: Callable[[Any], object]) -> str:
    """Write a file, see :func:`replacing`, down to the disk.

    :param path: the file.
    :param put: writes to the file it is called with, as ``partial(torch.save, state)`` does.
    :return: SHA-256 of the file.
    :raises OSError: if it cannot be written, as for a full disk.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        summed = Summed(file)
        put(summed)
        if summed.error is not None:
            raise summed.error
        file.flush()
        os.fsync(file.fileno())
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)  # the new name is on the disk too
    finally:
        os.close(handle)
    return summed.sum.hexdigest()


def append(path: Path, text: str) -> None:
    """Add a text to the end of a file: all of it, or nothing.

    :param path: the file; made if it does not exist.
    :param text: to be added, in UTF-8; its line ends stay as they are.
    :raises RecordError: for a link, or anything else that is no file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # some systems lack one
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _no_file(path) from error
        raise
    try:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise _no_file(path)
        rest = memoryview(text.encode())
        try:
            while rest:
                rest = rest[os.write(handle, rest) :]
        except BaseException:
            os.ftruncate(handle, before.st_size)
            raise
    finally:
        os.close(handle)


def _no_file(path: Path) -> RecordError:
    return RecordError(f"{path}: expected a file, found a link or a device: remove it")
