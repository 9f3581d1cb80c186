"""The moments of writing a file at which a process can die, each of them reached for certain."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKPOINT, INDEX = "state/.pt", "state/.json"
RECORD, JOURNAL, VALUES = "record/.json", "record/.jsonl", "record/.csv"
"""Files by folder and suffix: a file that is being written has no name of its own yet."""

OFTEN = (
    *(f"{moment} {CHECKPOINT}" for moment in ("before", "half", "whole", "in place", "removed")),
    *(f"{moment} {INDEX}" for moment in ("before", "half", "whole", "in place")),
    f"half {JOURNAL}",
    f"half {VALUES}",
)
ONCE = (
    *(f"{moment} {RECORD}" for moment in ("before", "half", "whole", "in place")),
    *(f"{moment} {JOURNAL}" for moment in ("before", "whole", "in place")),
)
"""Once in a process, when the record is begun or goes on."""

MOMENTS = (*OFTEN, *ONCE)
"""Before a file is begun, half of it written, all of it, in its place, and one that was removed."""


def die_at(moment: str, armed: Callable[[], bool]) -> None:
    """Let this process kill itself at one of :data:`MOMENTS`; nothing of it runs after that.

    :param moment: see there.
    :param armed: whether the next such moment is meant.
    """
    opened: dict[int, Any] = {}
    os_open, os_write, os_replace, os_unlink = os.open, os.write, os.replace, os.unlink
    io_open = io.open

    def reached(what: str, path: Any) -> bool:
        path = Path(os.fsdecode(path))
        return armed() and moment == f"{what} {path.parent.name}/{path.suffix}"

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def begin(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT and reached("before", path):
            die()
        handle = os_open(path, flags, *args, **kwargs)
        opened[handle] = path
        return handle

    def write(handle: int, content: Any) -> int:
        if handle in opened and reached("half", opened[handle]):
            os_write(handle, content[: len(content) // 2])
            die()
        return os_write(handle, content)

    def replace(source: Any, target: Any, **kwargs: Any) -> None:
        if reached("whole", target):
            die()
        os_replace(source, target, **kwargs)
        if reached("in place", target):
            die()

    def unlink(path: Any, **kwargs: Any) -> None:
        os_unlink(path, **kwargs)
        if reached("removed", path):
            die()

    class Cut(io.FileIO):
        def write(self, content: Any) -> int:
            if reached("half", self.name):
                super().write(bytes(content)[: len(content) // 2])
                die()
            return super().write(content)

    def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "wb" and not isinstance(file, int):
            return io.BufferedWriter(Cut(os.fspath(file), "wb"))
        return io_open(file, mode, *args, **kwargs)

    os.open, os.write, os.replace, os.unlink = begin, write, replace, unlink  # type: ignore[assignment]
    io.open = open_  # type: ignore[assignment]
