"""Running a study: what is not finished yet, several runs at a time, until the time is up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints.files import INDEX
from avalanche_branchtune.checkpoints.lock import locked
from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.options import at_least, positive
from avalanche_branchtune.records import Run
from avalanche_branchtune.records.run import RECORD
from solo_bridge.comparison.asked import Asked, asked
from solo_bridge.comparison.experiment import MINUTES, PIXELS
from solo_bridge.comparison.scenarios import StreamSettings
from solo_bridge.comparison.settings import Comparison
from solo_bridge.comparison.works import Work, run_works
from solo_bridge.registry import import_file
from solo_bridge.study.plan import Job, Plan


@dataclass(frozen=True)
class Progress:
    """How far a study is.

    :param finished: runs whose records are there, whole.
    :param trained: those and runs that only lack their plasticity, for which joint training waits.
    :param left: all but the finished ones.
    :param failed: name of a run → why it failed.
    """

    finished: tuple[Job, ...]
    trained: tuple[Job, ...]
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
    keep_checkpoints: bool = False,
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
    :param keep_checkpoints: likewise.
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
    with ExitStack() as stack:
        for folder in [out, *sorted({out / job.group for job in plan.jobs()})]:
            stack.enter_context(locked(folder))
        for job, asked_for in [(job, _asked_for(job, out, imports)) for job in plan.jobs()]:
            if asked_for is not None:  # all of them can be: nothing is written before
                asked_for.save(work_of(job, out).folder)
        left = progress(plan, out).left
        works = [work_of(job, out) for job in left]
        run_works(
            works,
            jobs,
            imports,
            {
                "checkpoint_minutes": checkpoint_minutes,
                "keep_checkpoints": keep_checkpoints,
                "bar": False,
            },
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
    :raises RecordError: for runs there that were asked for otherwise.
    """
    finished, trained, left, failed = list[Job](), list[Job](), list[Job](), dict[str, str]()
    for job in plan.jobs():
        work = work_of(job, Path(out))
        _asked_for(job, Path(out), ())
        if work.comparison.trained(work.spec, work.out):
            trained.append(job)
        if work.comparison.finished(work.spec, work.out):
            finished.append(job)
            continue
        left.append(job)
        failure = work.failure()
        if failure is not None:
            failed[job.name] = failure
    return Progress(tuple(finished), tuple(trained), tuple(left), failed)


def work_of(job: Job, out: Path) -> Work:
    """Return the run that a job asks for.

    :param job: of a plan.
    :param out: folder of the study.
    """
    return Work(job.name, job.comparison, job.strategy, out / job.group)


SHARED = (
    *(f.name for f in fields(StreamSettings)),
    *("method", "preset", "epochs", "width", "probes"),
)
"""Settings that have to be the same in all runs of a group, also of other plans."""


def _asked_for(job: Job, out: Path, imports: Sequence[str]) -> Asked | None:
    """Return what is to be written of a new run; refuse what was asked for otherwise."""
    work = work_of(job, out)
    new = Asked.of(
        vars(work.comparison),
        work.spec,
        imports=imports,
        separate=True,
        threads=torch.get_num_threads(),
    )
    known = work.comparison.known(work.spec, work.out)
    if known is not None and any((work.folder / name).exists() for name in (RECORD, INDEX)):
        known.check_same_run(new, work.folder)
        return None
    for path in work.out.glob(f"*-{work.comparison.seed}/{RECORD}"):
        other = asked(path.parent)
        if other is not None:
            other.filled(vars(Comparison())).check_same(new, path.parent, SHARED)
    return new
