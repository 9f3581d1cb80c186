"""Runs of one or several comparisons, each in a process of its own."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avalanche_branchtune.records import Run, load_run
from avalanche_branchtune.writing import write_text
from solo_bridge.apart import PRELOADED, prepare
from solo_bridge.comparison.asked import FAILED
from solo_bridge.comparison.experiment import REFERENCE, Experiment
from solo_bridge.registry import import_file
from solo_bridge.side_by_side import Task, places_of, run_side_by_side


@dataclass(frozen=True)
class Work:
    """One run.

    :param name: for messages; different for each.
    :param comparison: on what a strategy is trained.
    :param spec: of the strategy.
    :param out: folder of the comparison.
    """

    name: str
    comparison: Experiment
    spec: str
    out: Path

    @property
    def folder(self) -> Path:
        """Of its record."""
        return self.comparison.folder(self.spec, self.out)

    @property
    def failed(self) -> Path:
        """File that says why it failed, if it did."""
        return self.folder / FAILED

    def failure(self) -> str | None:
        """Return why it failed, None if it did not."""
        return self.failed.read_text(encoding="utf-8").strip() if self.failed.exists() else None

    def fail(self, error: BaseException) -> None:
        """Note why it failed.

        :param error: what it raised.
        """
        write_text(self.failed, f"{type(error).__name__}: {' '.join(str(error).split())}\n")

    def waits(self) -> bool:
        """Tell whether its plasticity can be measured only when joint training is finished."""
        return self.comparison.waits(self.spec, self.out)

    def has_reference(self) -> bool:
        """Tell whether joint training is finished."""
        return (self.comparison.reference(self.out) / REFERENCE).is_file()


def run_works(
    works: Sequence[Work],
    jobs: int = 1,
    imports: Sequence[str] = (),
    how: dict[str, Any] | None = None,
    done: Callable[[Run], None] | None = None,
    go_on: Callable[[], bool] = lambda: True,
    keep_failures: bool = False,
) -> dict[str, Run]:
    """Train strategies in processes; where plasticity waits for joint training, once more.

    On ``"cuda"`` they are shared out among the GPUs.

    :param works: in the order in which they are begun.
    :param jobs: how many run at a time, at most.
    :param imports: files that register names of one's own.
    :param how: of :meth:`Experiment.run`.
    :param done: called with each record that is finished.
    :param go_on: asked before another one is begun.
    :param keep_failures: whether a run that fails leaves :data:`FAILED` in its folder, and the
        others go on; else none is begun after it.
    :return: name → record, of those that were trained.
    :raises BranchTuneError: see :func:`~solo_bridge.side_by_side.run_side_by_side`.
    """
    how = {**(how or {}), "lines": min(jobs, len(works)) > 1}
    named = {work.name: work for work in works}
    left, runs = list(works), dict[str, Run]()
    waiting: list[Work] = []

    def task(work: Work) -> Task:
        arguments = (work, torch.get_num_threads(), tuple(imports), how, keep_failures)
        return work.name, _alone, arguments

    def begin(several: int) -> list[Task]:
        begun = list[Task]()
        while left and len(begun) < several and go_on():
            begun.append(task(left.pop(0)))
        return begun

    def ended(name: str) -> list[Task]:
        work = named[name]
        if work.failure() is not None:
            return begin(1)
        runs[name] = load_run(work.comparison.folder(work.spec, work.out))
        if work.waits():
            waiting.append(work)
        elif done is not None:
            done(runs[name])
        ready = [one for one in waiting if one.has_reference()]
        waiting[:] = [one for one in waiting if one not in ready]
        return [task(one) for one in ready] or begin(1)

    def failed(name: str, error: BaseException) -> bool:
        if keep_failures:
            work = named[name]
            if work.failure() is None:  # it was killed, and could not say so
                work.fail(error)
            print(f"{name} failed: {work.failure()}", file=sys.stderr)
        return keep_failures

    prepare(PRELOADED)
    devices = {work.comparison.device for work in works}
    places = places_of(devices.pop()) if len(devices) == 1 else [{}]
    run_side_by_side(begin(jobs), jobs, ended, failed, places)
    return runs


def _alone(
    work: Work, threads: int, imports: tuple[str, ...], how: dict[str, Any], keep_failure: bool
) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    for file in imports:
        import_file(file)
    work.failed.unlink(missing_ok=True)
    try:
        work.comparison.run(work.spec, work.out, **how)
    except Exception as error:
        if keep_failure:
            work.fail(error)
        raise
