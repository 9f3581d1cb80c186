"""A run in a tracker of experiments, W&B or Trackio: its values, its settings and its record."""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, ClassVar

from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import BaseLogger
from torch import Tensor

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import CheckpointError, UnknownOptionError
from avalanche_branchtune.experiences import experience_index
from avalanche_branchtune.keeping import random_state_kept
from avalanche_branchtune.metrics.recorder import RunRecorder
from avalanche_branchtune.metrics.values import as_picture, unwrapped
from avalanche_branchtune.records.run import RECORD


class Tracker(BaseLogger, ABC):
    """Sends what a run's :class:`RunRecorder` writes to a tracker, too, while the run goes on.

    Every value goes there beside the ``experience`` (its index) and the ``iteration`` that it
    belongs to: numbers and texts as they are, tensors as histograms, images and figures as
    pictures.  The recorder's name, seed, settings and environment are the run's configuration, and
    ``run.json`` is an artifact of it when the run is complete::

        recorder = RunRecorder("runs/a", "Branch-tuning", seed=0)
        evaluator = EvaluationPlugin(*metrics, loggers=[recorder, WandBLogger(recorder)])

    Under :class:`~avalanche_branchtune.checkpoints.Checkpoints` a run that goes on is the same run
    there; values are sent in numbered rows, and a row that is there already is not sent again.  Of
    a job's processes the first one alone sends.  It ends with the process, or earlier by
    :meth:`finish` or ``with``, which also tells W&B how it ended.

    :param recorder: of the run; it stands before this one among the loggers.
    :param project: where the run is listed; by default what ``WANDB_PROJECT`` or
        ``TRACKIO_PROJECT`` says, else ``"avalanche-branchtune"``.
    :param init: further arguments of the package's ``init``, such as ``group=`` or W&B's
        ``mode="offline"``.
    :raises UnknownOptionError: without the package.
    """

    PACKAGE: ClassVar[str]
    """Name of the package, and of the extra that brings it."""

    def __init__(self, recorder: RunRecorder, project: str | None = None, **init: Any) -> None:
        """See the class."""
        with ranks.unseen():  # Avalanche has loggers in the first process only
            super().__init__()
        self.recorder = recorder
        named = os.environ.get(f"{self.PACKAGE.upper()}_PROJECT")
        self.project = project or named or "avalanche-branchtune"
        self.init = init
        self.id = secrets.token_hex(4)
        """Of the run, in the tracker."""
        self._package()
        self._run: Any = None
        self._there = 0  # rows that the tracker had when the run went on
        self._rows = 0
        self._waits = False
        self._experience: int | None = None
        self._values: dict[int, dict[str, Any]] = {}

    @abstractmethod
    def _begun(self, package: Any, settings: dict[str, Any]) -> tuple[Any, int]:
        """Begin the run or go on with it, and return it with the number of rows it has."""

    @abstractmethod
    def _send(self, row: dict[str, Any], number: int) -> None:
        """Send a row of values."""

    def log_metrics(self, metric_values: list[MetricValue]) -> None:
        """Send values: a row for each iteration that they belong to.

        :param metric_values: what the metrics gave at this event.
        """
        super().log_metrics(metric_values)
        found, self._values = self._values, {}
        for iteration, values in found.items() if ranks.leads() else ():
            if not self._waits:
                self._go_on()
            if not self._waits and self._rows >= self._there:
                known = {} if self._experience is None else {"experience": self._experience}
                row = {name: self._shown(value) for name, value in values.items()}
                self._send({**row, **known, "iteration": iteration}, self._rows)
            self._rows += 1

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Take a value, to be sent with those of its iteration."""
        self._values.setdefault(x_plot, {})[name] = value

    def before_training_exp(self, strategy: Any, metric_values: Any, **kwargs: Any) -> None:
        """Learn what is trained, and send the settings that are known by now."""
        self._experience = experience_index(strategy)
        if ranks.leads() and not self._waits:
            self._go_on()
            self._tell()

    def after_training(self, strategy: Any, metric_values: Any, **kwargs: Any) -> None:
        """Send the record of a run that is complete."""
        self._keep_record()

    def after_eval(self, strategy: Any, metric_values: Any, **kwargs: Any) -> None:
        """Send the record of a run that is complete."""
        self._keep_record()

    def finish(self, status: int = 0) -> None:
        """End the run in the tracker; another value goes on with it.

        :param status: 0 if all went well, else the process's exit status.
        """
        run, self._run = self._run, None
        if run is not None:
            self._end(run, status)

    def __enter__(self) -> Tracker:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        """End the run in the tracker, see :meth:`finish`."""
        code = getattr(error, "code", 1)
        self.finish(0 if kind is None else code if isinstance(code, int) else 1)

    def state_dict(self) -> dict[str, Any]:
        """Return by what a run that goes on is known again."""
        return {"id": self.id, "rows": self._rows, "experience": self._experience}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a run.

        :param state: see :meth:`state_dict`.
        :raises CheckpointError: for what is no such state.
        """
        if not (isinstance(state.get("id"), str) and isinstance(state.get("rows"), int)):
            raise CheckpointError(f"{type(self).__name__}: {state!r} is no state of it")
        if state["id"] != self.id:
            self.finish()
        self.id, self._rows, self._experience = state["id"], state["rows"], state["experience"]

    def restored(self, *, more: bool, away: float) -> None:
        """Send nothing until the last state has followed: what comes before it was sent already.

        :param more: whether a later state will follow.
        :param away: seconds by which clocks are to be put on; there are none here.
        """
        self._waits = more

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes but for the connection, which is made anew."""
        return {**vars(self), "_run": None}

    # ---- parts

    def _package(self) -> Any:
        try:
            return import_module(self.PACKAGE)
        except ImportError as error:
            raise UnknownOptionError(
                f"{type(self).__name__} needs the package {self.PACKAGE}, which is not there "
                f"({error}): pip install 'avalanche-branchtune[{self.PACKAGE}]'"
            ) from error

    def _go_on(self) -> None:
        if self._run is None:
            with random_state_kept():
                self._run, self._there = self._begun(self._package(), self._settings())

    def _settings(self) -> dict[str, Any]:
        run = self.recorder.run
        return {"name": run.name, "seed": run.seed, **run.settings, "environment": run.environment}

    def _tell(self) -> None:
        """Send settings that were not known when the run began, where that can be."""

    def _shown(self, value: Any) -> Any:
        package, value = self._package(), unwrapped(value)
        if isinstance(value, Tensor):
            if value.numel() == 1:
                return value.item()
            numbers = value.detach().cpu().double().flatten()
            return package.Histogram(numbers[numbers.isfinite()].tolist())
        picture = as_picture(value)
        return value if picture is None else package.Image(picture)

    def _keep_record(self) -> None:
        if ranks.leads() and self.recorder.run.complete:
            self._go_on()
            path = str(self.recorder.folder / RECORD)
            self._run.log_artifact(path, name=f"record-{self.id}", type="record")

    def _end(self, run: Any, status: int) -> None:
        run.finish()


class WandBLogger(Tracker):
    """A run in Weights & Biases, see :class:`Tracker`.

    Its files lie in the recorder's folder, in ``wandb/``.  ``WANDB_MODE=offline`` needs neither an
    account nor a network; what is there is sent later by ``wandb sync``.  Each part of a run that
    goes on has a folder of its own then, all of one run; what was sent after the checkpoint is in
    two of them, under the same numbers.

    Avalanche 0.6's own ``WandBLogger`` fails with wandb 0.31: it calls ``wandb.util.generate_id``
    and, for every value, ``wandb.viz.CustomChart``, neither of which is there any more; and it
    gives W&B the iteration as its step, which drops values of an earlier iteration.
    """

    PACKAGE = "wandb"

    def _begun(self, package: Any, settings: dict[str, Any]) -> tuple[Any, int]:
        folder = self.recorder.folder
        known = {"name": folder.name, "dir": str(folder), "reinit": "create_new"}
        run = package.init(
            **{"project": self.project, "id": self.id, "resume": "allow", **known, **self.init},
            config=settings,
        )
        run.define_metric("*", step_metric="iteration")
        return run, run.step

    def _send(self, row: dict[str, Any], number: int) -> None:
        self._run.log(row, step=number, commit=True)

    def _tell(self) -> None:
        self._run.config.update(self._settings(), allow_val_change=True)

    def _end(self, run: Any, status: int) -> None:
        run.finish(exit_code=status)


class TrackioLogger(Tracker):
    """A run in Trackio, see :class:`Tracker`, which keeps it on this machine unless told otherwise.

    Trackio is made to stand in for wandb; what it lacks of what is used here: a run is known by its
    name alone, so the name ends with :attr:`id`; its configuration is what was known when it began;
    and it does not tell a run that failed from one that ended.
    """

    PACKAGE = "trackio"

    def _begun(self, package: Any, settings: dict[str, Any]) -> tuple[Any, int]:
        name = f"{self.recorder.folder.name}-{self.id}"
        run = package.init(
            **{"project": self.project, "name": name, "resume": "allow", **self.init},
            config=settings,
        )
        return run, run._next_step

    def _send(self, row: dict[str, Any], number: int) -> None:
        self._run.log(row, step=number)
