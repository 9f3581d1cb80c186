"""Avalanche's TensorBoard logger for runs that go on, and for jobs of several processes."""

from __future__ import annotations

from typing import Any

from avalanche.logging import TensorboardLogger
from torch.utils.tensorboard import SummaryWriter

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import CheckpointError
from avalanche_branchtune.metrics.recorder import RunRecorder

FOLDER = "tensorboard"


class TensorBoardLogger(TensorboardLogger):
    """Writes what a run's :class:`RunRecorder` writes for TensorBoard, too, in ``tensorboard/``.

    Numbers, tensors (as histograms), images and figures, as Avalanche's own logger, which it is.
    Under :class:`~avalanche_branchtune.checkpoints.Checkpoints` TensorBoard leaves out what was
    written after the checkpoint that the run goes on from: it is written again.  Of a job's
    processes the first one alone writes.

    :param recorder: of the run.
    """

    writer: Any
    """torch's writer of such files; None in the processes that do not write."""

    def __init__(self, recorder: RunRecorder) -> None:
        """See the class."""
        self._last = 0
        with ranks.unseen():  # Avalanche has loggers in the first process only
            super().__init__(recorder.folder / FOLDER)

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Write a value."""
        self._last = max(self._last, x_plot)
        if self.writer is not None:
            super().log_single_metric(name, value, x_plot)

    def state_dict(self) -> dict[str, Any]:
        """Return the last iteration of which something was written."""
        return {"last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        :param state: see :meth:`state_dict`.
        :raises CheckpointError: for what is no such state.
        """
        if not isinstance(state.get("last"), int):
            raise CheckpointError(f"TensorBoardLogger: {state!r} is no state of it")
        self._last = state["last"]

    def restored(self, *, more: bool, away: float) -> None:
        """Let TensorBoard leave out what follows.

        :param more: whether a later state will follow.
        :param away: seconds by which clocks are to be put on; there are none here.
        """
        if not more and self.writer is not None:
            folder = self.writer.log_dir
            self.writer.close()
            self.writer = SummaryWriter(folder, purge_step=self._last + 1)

    def __enter__(self) -> TensorBoardLogger:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()

    def __getstate__(self) -> Any:
        """Return what it is made anew of."""
        return self._last, None if self.writer is None else super().__getstate__()

    def __setstate__(self, state: Any) -> None:
        """Open the files."""
        self._last, of_writer = state
        self.writer = None if of_writer is None else self._make_writer(*of_writer)

    def _make_writer(self, folder: Any, suffix: str) -> SummaryWriter | None:
        return super()._make_writer(folder, suffix) if ranks.leads() else None
