"""Writing a run's checkpoints, and going on training where that fails."""

from __future__ import annotations

import logging
import time
from typing import Any

from avalanche_branchtune.checkpoints.files import CheckpointFolder
from avalanche_branchtune.checkpoints.sidecar import Sidecar, now
from avalanche_branchtune.errors import CheckpointError

logger = logging.getLogger(__name__)


class Saving:
    """Writes checkpoints; where one cannot be saved the run goes on, and it is said once.

    Of a job's processes, whose states are the same, the first one writes.

    :param folder: of the checkpoints.
    :param sidecar: of the run, which says what was saved last.
    """

    def __init__(self, folder: CheckpointFolder, sidecar: Sidecar) -> None:
        """See the class."""
        self.folder = folder
        self.sidecar = sidecar
        self.took = 0.0
        """Seconds that the last one took."""
        self._warned = False

    def write(self, number: int, state: Any, kind: str = "state") -> bool:
        """Write a checkpoint.

        :param number: see :meth:`.files.CheckpointFolder.save`.
        :param state: the same.
        :param kind: the same.
        :return: whether it is there.
        :raises CheckpointError: if the first one, before training begins, cannot be written.
        """
        begin = time.monotonic()
        try:
            self.folder.save(number, state, kind)
        except OSError as error:
            if number == 0 and kind == "state":
                raise CheckpointError(
                    f"{self.folder.path}: no checkpoint can be written there: {error}"
                ) from error
            if not self._warned:
                logger.warning(
                    "%s: no checkpoint could be saved (%s), %s; training goes on, and the last "
                    "one that was saved stays good",
                    self.folder.path,
                    error,
                    self.folder.lacking(state),
                )
            self._warned = True
            return False
        self._warned, self.took = False, time.monotonic() - begin
        self.sidecar.note(checkpoint={"saved": now(), "bytes": self.folder.size()})
        return True

    def refused(self, error: CheckpointError) -> None:
        """Say that nothing can be saved within calls.

        :param error: names what can only be written between them.
        """
        if not self._warned:
            logger.warning(
                "%s: nothing can be saved within calls of train, only after them: %s",
                self.folder.path,
                error,
            )
        self._warned = True
