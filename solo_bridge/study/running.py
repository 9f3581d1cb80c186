"""Running a study: what is not finished yet, several runs at a time, until the time is up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints.lock import locked
from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.options import at_least, positive
from avalanche_branchtune.records import Run
from solo_bridge.comparison.asked import Asked
from solo_bridge.comparison.settings import MINUTES, PIXELS
from solo_bridge.comparison.works import Work, run_works
from solo_bridge.registry import import_file
from solo_bridge.study.plan import Job, Plan


@dataclass(frozen=True)
class Progress:
    """How far a study is.

    :param finished: runs whose records are there.
    :param left: runs that are not begun, or interrupted.
    :param failed: name of a run → why it failed.
    """

    finished: tuple[Job, ...]
    left: tuple[Job, ...]
    failed: dict[str, str]


def run_study(
    plan: Plan,
    out: str | Path,
    *,
    jobs: int = 1,
    hours: float | None = None,
    imports: Sequence[str] = (),
    done: Callable[[Run], None] | None = None,
    checkpoint_minutes: float | None = MINUTES,
) -> Progress:
    """Train and measure what is not finished; called again, it goes on.

    Each run is a folder of ``out/<stream>-<method>-<epochs>``.  One that fails leaves a note there
    and is tried again by the next call; the others go on.

    :param plan: what is run.
    :param out: folder of the study, for this alone while it lasts.
    :param jobs: how many runs are trained at a time, at most.
    :param hours: after which no run is begun; what runs is finished.
    :param imports: files that register names of one's own.
    :param done: called with each record that is finished.
    :param checkpoint_minutes: see :meth:`~solo_bridge.comparison.Comparison.run`.
    :raises BranchTuneError: before training for what is not there, and for runs there that were
        asked for otherwise.
    """
    for file in imports:
        import_file(file)
    if ranks.joined():
        raise UnknownOptionError(
            "a study trains each run in one process: start it without torchrun"
        )
    at_least(1, "jobs", jobs)
    begin = time.monotonic()
    limit = None if hours is None else 3600 * positive("hours", hours)
    plan.check()
    out = Path(out)
    with locked(out):
        for job in plan.jobs():
            _ask(job, out, imports)
        left = progress(plan, out).left
        works = [work_of(job, out) for job in left]
        run_works(
            works,
            jobs,
            imports,
            {"checkpoint_minutes": checkpoint_minutes, "bar": False},
            done,
            lambda: limit is None or time.monotonic() - begin < limit,
            keep_failures=True,
        )
        for group in {job.group for job in left}:
            shutil.rmtree(out / group / PIXELS, ignore_errors=True)
    return progress(plan, out)


def progress(plan: Plan, out: str | Path) -> Progress:
    """Tell how far a study is.

    :param plan: what is run.
    :param out: folder of the study.
    """
    finished, left, failed = list[Job](), list[Job](), dict[str, str]()
    for job in plan.jobs():
        if job.comparison.finished(job.strategy, Path(out) / job.group):
            finished.append(job)
            continue
        left.append(job)
        failure = work_of(job, Path(out)).failure()
        if failure is not None:
            failed[job.name] = failure
    return Progress(tuple(finished), tuple(left), failed)


def work_of(job: Job, out: Path) -> Work:
    """Return the run that a job asks for.

    :param job: of a plan.
    :param out: folder of the study.
    """
    return Work(job.name, job.comparison, job.strategy, out / job.group)


def _ask(job: Job, out: Path, imports: Sequence[str]) -> None:
    """Write what is asked for, or refuse to go on with what was asked for otherwise."""
    work = work_of(job, out)
    folder = work.comparison.folder(work.spec, work.out)
    new = Asked.of(
        vars(work.comparison),
        work.spec,
        imports=imports,
        separate=True,
        threads=torch.get_num_threads(),
    )
    known = work.comparison.known(work.spec, work.out)
    if known is None:
        new.save(folder)
    else:
        known.check_same(new, folder)
