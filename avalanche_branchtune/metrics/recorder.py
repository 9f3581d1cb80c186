"""A logger that keeps a whole run in a folder, for reports of it and others."""

from __future__ import annotations

import csv
import io
import json
import math
import operator
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import BaseLogger
from torch import Tensor

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.experiences import (
    experience_index,
    finished_experiences,
    loader_workers,
    mark_finished,
    stream_length,
    stream_recipe,
)
from avalanche_branchtune.metrics.values import as_picture, unwrapped
from avalanche_branchtune.records.journal import JOURNAL, Journal
from avalanche_branchtune.records.run import RECORD, Run, check_limits
from avalanche_branchtune.records.sample import SAMPLE
from avalanche_branchtune.writing import append, remove_unfinished, replacing, write_text

VALUES = "metrics.csv"
COLUMNS = ("seconds", "experience", "iteration", "metric", "value")


class RunRecorder(BaseLogger):
    """Write every metric of a run, and the record that reports are made of.

    ``run.json`` is :class:`~avalanche_branchtune.records.Run`.  Until the run is
    complete, what changed after every experience and evaluation is added to
    ``run.changes.jsonl``, so that an interrupted run is there as a partial one.
    ``metrics.csv`` has a line for every value of every metric, also those
    that Avalanche's CSVLogger leaves out: numbers and texts as they are,
    tensors as JSON lists, pictures as the name of a PNG file beside it.
    Of a job's processes that train together the first one writes; ``run`` is the
    same in all of them after each ``train`` and ``eval`` of the strategy.

    :param folder: made if it does not exist.
    :param name: the strategy, as it is shown.
    :param seed: of everything random.
    :param settings: data, method, schedule; the strategy's class, epochs,
        minibatch, device and the workers of its data loader (each draws random
        numbers of its own, so the weights depend on them) are added, and what the strategy
        and plugins with a method ``record_settings`` give.  What JSON does not know (paths,
        devices) is kept as text.
    :param n_experiences: training experiences; by default those of the stream
        that is trained on.
    :param overwrite: whether the folder's run may be replaced.
    :param resume: whether the folder's run goes on, which
        :class:`~avalanche_branchtune.checkpoints.Checkpoints` sees to: what was written after
        the last checkpoint is taken back, and no line is there twice or missing.
    :raises RecordError: if the folder holds a run already.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        name: str,
        *,
        seed: int | None = None,
        settings: dict[str, Any] | None = None,
        n_experiences: int | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        """See the class."""
        with ranks.unseen():  # Avalanche has loggers in the first process only
            super().__init__()
        self.folder = Path(folder)
        goes_on = resume and (self.folder / RECORD).exists()
        if (self.folder / RECORD).exists() and not (overwrite or goes_on):
            raise RecordError(
                f"{self.folder} holds the record of a run already: choose another folder, or pass "
                "overwrite=True, or resume=True beside Checkpoints(resume=True)"
            )
        if not isinstance(name, str) or not name:
            raise RecordError(f"RunRecorder(name={name!r}): expected the strategy's name, a text")
        if n_experiences is not None and n_experiences < 1:
            raise RecordError(f"RunRecorder(n_experiences={n_experiences}): expected at least 1")
        try:
            seed = None if seed is None else operator.index(seed)
        except TypeError as error:
            raise RecordError(f"RunRecorder(seed={seed!r}): expected an integer") from error
        if seed is not None and abs(seed) >= 2**64:
            raise RecordError(f"RunRecorder(seed={seed}): expected an integer of 64 bits")
        plain = {str(k): _plain(v) for k, v in (settings or {}).items()}
        self.run = Run(name, n_experiences or 1, seed=seed, settings=plain)
        self._n_experiences = n_experiences
        self._workers: list[int | None] = []
        self._processes: list[int] = []
        self._begin = time.perf_counter()
        self._experience: int | str = ""
        check_limits(self.run)
        self._journal = Journal(self.folder)
        self._length = len(_lines([COLUMNS]).encode())
        self._waits = goes_on
        self._begun = goes_on
        if ranks.joined() or not ranks.launched():  # else the job's processes do not know yet
            self._begin_folder()

    def _begin_folder(self) -> None:
        if self._begun or not ranks.leads():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in (RECORD, JOURNAL, SAMPLE):
            (self.folder / old).unlink(missing_ok=True)
        remove_unfinished(self.folder)
        write_text(self.folder / VALUES, _lines([COLUMNS]))
        self._begun = True

    def log_metrics(self, metric_values: list[MetricValue]) -> None:
        """Append the values to ``metrics.csv``.

        :param metric_values: what the metrics gave at this event.
        """
        if not metric_values:
            return
        self._check_it_goes_on()
        self._begin_folder()
        seconds = f"{time.perf_counter() - self._begin:.3f}"
        rows = [[seconds, self._experience, m.x_plot, m.name, self._cell(m)] for m in metric_values]
        lines = _lines(rows)
        append(self.folder / VALUES, lines)
        self._length += len(lines.encode())

    def restored(self, *, more: bool, away: float) -> None:
        """Go on from a checkpoint: take back what was written after it.

        :param more: whether a later state will follow, whose lines are there already.
        :param away: seconds by which clocks are to be put on.
        """
        self._begin += away
        self._waits, self._begun = False, True
        if not hasattr(self, "_processes"):  # of a run that was begun before it was noted
            self._processes = [1]
        if not hasattr(self.run, "stream"):  # the same
            self.run.stream = {}
        self._journal = Journal(self.folder)
        if not more and ranks.leads():
            remove_unfinished(self.folder)
            with (self.folder / VALUES).open("r+b") as file:
                file.truncate(self._length)

    def before_training_exp(self, strategy: Any, metric_values: Any, **kwargs: Any) -> None:
        """Learn what is trained."""
        self._experience = experience_index(strategy)
        length = stream_length(strategy)
        if self._n_experiences is None and length is not None:
            self.run.n_experiences = length
        found = {
            "strategy": type(strategy).__name__,
            "epochs": strategy.train_epochs,
            "batch size": strategy.train_mb_size,
            "device": strategy.device.type,
        }
        for part in (strategy, *strategy.plugins):
            if hasattr(part, "record_settings"):
                found.update(_plain(part.record_settings()))
        workers = _all_so_far(self._workers, loader_workers(strategy))
        self.run.settings = {**found, **self.run.settings, "loader workers": workers}
        self.run.stream = _plain(stream_recipe(strategy)) or self.run.stream
        self._save(strategy)  # a run that does not get further is there as well

    def after_training_exp(self, strategy: Any, metric_values: Any, **kwargs: Any) -> None:
        """Count the experience, and save what there is."""
        mark_finished(strategy)
        self.run.trained = finished_experiences(strategy)
        self._save(strategy)

    def after_training(self, strategy: Any, metric_values: Any, **kwargs: Any) -> None:
        """Save what there is."""
        self._save(strategy)

    def after_eval(self, strategy: Any, metric_values: Any, **kwargs: Any) -> None:
        """Save what there is."""
        self._save(strategy)

    def _check_it_goes_on(self) -> None:
        if self._waits:
            raise RecordError(
                f"RunRecorder(resume=True): {self.folder} holds a run, and no checkpoint to go on "
                "from: pass Checkpoints(…, resume=True) to the strategy, or overwrite=True here"
            )

    def _save(self, strategy: Any) -> None:
        self._check_it_goes_on()
        self._begin_folder()
        for metric in strategy.evaluator.metrics:
            if hasattr(metric, "record"):
                metric.record(self.run)
        self.run.environment["processes"] = _all_so_far(self._processes, ranks.size())
        self.run.replaced_images = dict(getattr(strategy, "replaced_images", {}))
        self.run.skipped_steps = getattr(strategy, "skipped_steps", 0)
        self._journal.save(self.run)

    def _cell(self, metric: MetricValue) -> Any:
        value = unwrapped(metric.value)
        if isinstance(value, Tensor):
            return json.dumps(value.item() if value.numel() == 1 else value.tolist())
        picture = as_picture(value)
        if picture is None:
            return value
        file = re.sub(r"[^\w.-]+", "_", f"{metric.name}-{metric.x_plot}.png")
        with replacing(self.folder / file) as path:
            picture.save(path)
        return file


def _all_so_far(known: list[Any], now: Any) -> Any:
    """Return what is now, or all that there were if there were others."""
    if now not in known:
        known.append(now)
    return now if len(known) == 1 else list(known)


def _lines(rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(rows)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)
