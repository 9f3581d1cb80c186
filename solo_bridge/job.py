"""The command in a job that ``torchrun`` started: the first process speaks, the others follow it.

Nothing here imports torch: a command that trains nothing starts without it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator

from avalanche_branchtune.errors import BranchTuneError, OtherProcessError

GRACE = 30.0
"""Seconds in which the first process says what is wrong in all of them, and the job ends."""


def size() -> int:
    """Return how many processes the job has, 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def follows() -> bool:
    """Tell whether another process of the job is the first one."""
    return size() > 1 and os.environ.get("RANK", "0") != "0"


def follow(name: str, work: Callable[[], object]) -> int:
    """Do a part of what the job does, and leave it to the first process to speak of it.

    :param name: of the command, for an error that this process alone has.
    :param work: the part.
    :return: exit status: 2 for such an error; else 0, so that the job has the first one's.
    """
    try:
        with unheard(errors=True):
            work()
    except (KeyboardInterrupt, OtherProcessError):
        return 0
    except (BranchTuneError, OSError) as error:
        try:
            time.sleep(GRACE)
        except KeyboardInterrupt:  # the first process had it, too, and the job is over
            return 0
        said = " ".join(str(error).split())
        print(f"branchtune {name}: process {os.environ['RANK']}: {said}", file=sys.stderr)
        return 2
    return 0


@contextlib.contextmanager
def unheard(errors: bool = False) -> Iterator[None]:
    """Print, warn and log nothing.

    :param errors: but errors.
    """
    nowhere = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        if not errors:
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        stack.callback(logging.disable, logging.NOTSET)
        yield
