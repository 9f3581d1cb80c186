"""Strategies one after the other, or several at a time, each in a process of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints.lock import locked
from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.options import at_least, positive
from avalanche_branchtune.records import Run, load_run
from solo_bridge.apart import stopped_by
from solo_bridge.comparison.asked import ASKED, Asked, asked
from solo_bridge.comparison.configured import Configured
from solo_bridge.comparison.experiment import MINUTES, PIXELS, Experiment
from solo_bridge.comparison.works import Work, run_works
from solo_bridge.presets import preset
from solo_bridge.registry import import_file
from solo_bridge.specification import names, title

COMBINATIONS = (
    "branch_tuning+cassle",
    "branch_tuning+kaizen",
    "branch_tuning+replay",
    "branch_tuning+pfr",
    "branch_tuning+lump",
    "branch_tuning+der",
    "branch_tuning+ewc",
    "cassle+replay_min_redundancy",
)
"""Strategies of several parts that are compared unless told otherwise."""


def compare(
    specs: Sequence[str],
    comparison: Experiment,
    out: str | Path,
    *,
    jobs: int = 1,
    separate: bool = False,
    done: Callable[[Run], None] | None = None,
    imports: Sequence[str] = (),
    checkpoint_minutes: float | None = MINUTES,
    keep_checkpoints: bool = False,
) -> list[Run]:
    """Train and measure strategies, joint training first.

    Called again with the same folder, it keeps what is finished, goes on with the runs that were
    interrupted, and trains the rest.  If one fails, those beside it are finished, and no other is
    begun.  No number depends on ``jobs``.  The processes of a job that ``torchrun`` started train
    one strategy after the other, each of them together.

    :param specs: see :func:`solo_bridge.specification.build`.
    :param comparison: what they are compared on.
    :param out: folder of the records, for this comparison alone while it lasts.
    :param jobs: how many are trained at a time, at most; several have processes of their own.
    :param separate: run each in a process of its own in any case, so that its peak memory
        is its own; they end with this one.  Not in a job of several processes.
    :param done: called with each record that is finished.
    :param imports: files that register names of one's own, for those processes as well.
    :param checkpoint_minutes: see :meth:`Experiment.run`.
    :param keep_checkpoints: see :meth:`Experiment.run`.
    :return: the records, in the order of ``specs``.
    :raises BranchTuneError: before training for what is not there, for a
        record that is not of this comparison and for a folder that another
        process uses; and for a strategy that fails.
    """
    for file in imports:
        import_file(file)
    how: dict[str, Any]
    how = {"checkpoint_minutes": checkpoint_minutes, "keep_checkpoints": keep_checkpoints}
    comparison.join()
    ranks.of_first(lambda: _check(specs, comparison, jobs, checkpoint_minutes))
    with ExitStack() as stack:
        ranks.of_first(lambda: stack.enter_context(locked(Path(out))))
        order = sorted(specs, key=lambda s: s != "joint")
        ranks.of_first(lambda: _ask(order, comparison, Path(out), imports, separate or jobs > 1))
        runs = ranks.of_first(lambda: _finished(order, comparison, out))
        left = [spec for spec in order if spec not in runs]
        if done is not None:
            for run in runs.values():
                done(run)
        if comparison.decodes and left:
            comparison.stream(Path(out) / PIXELS)  # decoded once, for all of them
        if (separate or jobs > 1) and not ranks.joined():
            works = [Work(spec, comparison, spec, Path(out)) for spec in left]
            runs |= run_works(works, jobs, imports, how, done)
        else:
            for spec in left:
                runs[spec] = _here(comparison, spec, out, how)
                if done is not None:
                    done(runs[spec])
        if ranks.leads():
            shutil.rmtree(Path(out) / PIXELS, ignore_errors=True)
    return [runs[spec] for spec in specs]


def _check(
    specs: Sequence[str], comparison: Experiment, jobs: int, checkpoint_minutes: float | None
) -> None:
    """Refuse what cannot work, before anything is trained."""
    for spec in specs:
        title(spec)
        if specs.count(spec) > 1:
            raise UnknownOptionError(f"strategy {spec!r} is given twice")
    comparison.check(specs)
    if checkpoint_minutes is not None:
        positive("checkpoint_minutes", checkpoint_minutes)
    if at_least(1, "jobs", jobs) > 1 and ranks.joined():
        raise UnknownOptionError(
            f"jobs {jobs}: the {ranks.size()} processes of a job train one strategy at a time, all "
            "together: leave it out"
        )


def _finished(specs: Sequence[str], comparison: Experiment, out: str | Path) -> dict[str, Run]:
    """Return the records that are there already."""
    runs = {}
    for spec in specs:
        if comparison.finished(spec, out):
            print(f"{title(spec)}: finished before, its record is kept", file=sys.stderr)
            runs[spec] = load_run(comparison.folder(spec, out))
    return runs


def _ask(
    specs: Sequence[str], comparison: Experiment, out: Path, imports: Sequence[str], separate: bool
) -> None:
    """Write what is asked for to the folder of each run, before any is trained."""
    threads, settings = torch.get_num_threads(), vars(comparison)
    new = [Asked.of(settings, s, i, imports, separate, threads) for i, s in enumerate(specs)]
    beside = () if isinstance(comparison, Configured) else sorted(out.glob(f"*/{ASKED}"))
    for path in beside:  # those of a configuration are in another folder if they differ
        known = asked(path.parent)
        if known is not None and new:
            known = known.filled(vars(type(comparison)()))
            if known.settings["variant"] == comparison.variant:  # a study's others differ
                known.check_same(new[0], path.parent)
    begun = [comparison.known(one.specification, out) for one in new]
    folders = [comparison.folder(one.specification, out) for one in new]
    for one, before, folder in zip(new, begun, folders, strict=True):
        if before is not None:
            before.check_code(one, folder)
    for one, before, folder in zip(new, begun, folders, strict=True):
        if before is None:
            one.save(folder)


def everything(of: str | None = None) -> list[str]:
    """Return every name there is, but for published schedules of days, and combinations.

    :param of: name of a preset, of which only what its paper compares.
    """
    if of is not None:
        return list(preset(of).strategies)
    return [*(n for n in names() if not n.endswith("_paper")), *COMBINATIONS]


def _here(comparison: Experiment, spec: str, out: str | Path, how: dict[str, Any]) -> Run:
    try:
        return comparison.run(spec, out, **how)
    except SystemExit as error:  # it was asked to end, and has saved
        raise stopped_by(error.code) or error from None
