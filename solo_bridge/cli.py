"""The command ``branchtune``."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from avalanche_branchtune.errors import BranchTuneError
from solo_bridge import job
from solo_bridge.apart import stoppable
from solo_bridge.commands import command, parsed

TRAIN = ("compare", "demo", "resume", "run")
"""Commands that a job of several processes does together."""

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
"""What a disk or a quota without room is called; what was written before it is whole."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param arguments: command line without the program's name.
    :return: exit status: 0 if all went well, 1 if the bridge does not work
        (``doctor``) or images cannot be used (``check``), 2 for wrong arguments or
        input; if it was asked to end 130 (SIGINT), 143 (SIGTERM) or 75 (SIGUSR1, SIGUSR2).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    # Of a package that Avalanche imports for plugins of its own: nothing here needs what it lacks.
    warnings.filterwarnings("ignore", "no QP solver found")
    if job.follows():
        return _follow(arguments)
    options = parsed(arguments)
    try:
        with stoppable(), said_once():
            return command(options.command).run(options)
    except KeyboardInterrupt as error:
        print(f"branchtune {options.command}: {str(error) or 'interrupted'}", file=sys.stderr)
        return getattr(error, "status", 130)
    except (BranchTuneError, OSError) as error:
        said = " ".join(str(error).split())
        if getattr(error, "errno", None) in FULL:
            said += ": make room, and give the same command again"
        print(f"branchtune {options.command}: {said}", file=sys.stderr)
        return 2


@contextmanager
def said_once() -> Iterator[None]:
    """Let equal warnings be shown once: one file may be read for each of many runs."""
    shown: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        before = len(shown)
        shown.add(record.getMessage())
        return len(shown) > before

    handler = logging.lastResort
    if handler is not None:
        handler.addFilter(is_new)
    try:
        yield
    finally:
        if handler is not None:
            handler.removeFilter(is_new)


def _follow(arguments: Sequence[str]) -> int:
    """Take part in what the first process of a job does; it alone prints, and trains nothing."""
    try:
        with job.unheard():
            options = parsed(arguments)
    except SystemExit:
        return 0
    if options.command not in TRAIN:
        return 0
    with stoppable():
        return job.follow(options.command, lambda: command(options.command).run(options))
