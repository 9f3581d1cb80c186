"""Strategies one after the other, each in a process of its own if asked."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from avalanche_branchtune.checkpoints.lock import locked
from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.options import positive
from avalanche_branchtune.records import Run, load_run
from solo_bridge.apart import run_apart, stopped_by
from solo_bridge.comparison.asked import ASKED, Asked, asked
from solo_bridge.comparison.settings import MINUTES, Comparison
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
    comparison: Comparison,
    out: str | Path,
    *,
    separate: bool = False,
    done: Callable[[Run], None] | None = None,
    imports: Sequence[str] = (),
    checkpoint_minutes: float | None = MINUTES,
    keep_checkpoints: bool = False,
) -> list[Run]:
    """Train and measure strategies one after the other, joint training first.

    Called again with the same folder, it keeps what is finished, goes on with the run that was
    interrupted, and trains the rest.

    :param specs: see :func:`solo_bridge.specification.build`.
    :param comparison: what they are compared on.
    :param out: folder of the records, for this comparison alone while it lasts.
    :param separate: run each in a process of its own, so that its peak memory
        is its own; they end with this one.
    :param done: called with each record.
    :param imports: files that register names of one's own, for those processes as well.
    :param checkpoint_minutes: see :meth:`Comparison.run`.
    :param keep_checkpoints: see :meth:`Comparison.run`.
    :return: the records, in the order of ``specs``.
    :raises BranchTuneError: before training for what is not there, for a
        record that is not of this comparison and for a folder that another
        process uses; and for a strategy that fails.
    """
    for file in imports:
        import_file(file)
    for spec in specs:
        title(spec)  # unknown names fail before anything is trained
        if specs.count(spec) > 1:
            raise UnknownOptionError(f"strategy {spec!r} is given twice")
    comparison.check()
    if checkpoint_minutes is not None:
        positive("checkpoint_minutes", checkpoint_minutes)
    runs: dict[str, Run] = {}
    with locked(Path(out)):
        order = sorted(specs, key=lambda s: s != "joint")
        _ask(order, comparison, Path(out), imports, separate)
        how: dict[str, Any]
        how = {"checkpoint_minutes": checkpoint_minutes, "keep_checkpoints": keep_checkpoints}
        for spec in order:
            if comparison.finished(spec, out):
                print(f"{title(spec)}: finished before, its record is kept", file=sys.stderr)
                runs[spec] = load_run(comparison.folder(spec, out))
            elif separate:
                threads = torch.get_num_threads()
                run_apart(spec, _alone, comparison, spec, str(out), threads, tuple(imports), how)
                runs[spec] = load_run(comparison.folder(spec, out))
            else:
                runs[spec] = _here(comparison, spec, out, how)
            if done is not None:
                done(runs[spec])
    return [runs[spec] for spec in specs]


def _ask(
    specs: Sequence[str], comparison: Comparison, out: Path, imports: Sequence[str], separate: bool
) -> None:
    """Write what is asked for to the folder of each run, before any is trained."""
    threads, settings = torch.get_num_threads(), vars(comparison)
    new = [Asked.of(settings, s, i, imports, separate, threads) for i, s in enumerate(specs)]
    for path in sorted(out.glob(f"*/{ASKED}")):
        known = asked(path.parent)
        if known is not None and new:
            known.check_same(new[0], path.parent)
    for one in [one for one in new if comparison.known(one.specification, out) is None]:
        one.save(comparison.folder(one.specification, out))


def everything(of: str | None = None) -> list[str]:
    """Return every name there is, but for published schedules of days, and combinations.

    :param of: name of a preset, of which only what its paper compares.
    """
    if of is not None:
        return list(preset(of).strategies)
    return [*(n for n in names() if not n.endswith("_paper")), *COMBINATIONS]


def _here(comparison: Comparison, spec: str, out: str | Path, how: dict[str, Any]) -> Run:
    try:
        return comparison.run(spec, out, **how)
    except SystemExit as error:  # it was asked to end, and has saved
        raise stopped_by(error.code) or error from None


def _alone(
    comparison: Comparison,
    spec: str,
    out: str,
    threads: int,
    imports: tuple[str, ...],
    how: dict[str, Any],
) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    for file in imports:
        import_file(file)
    comparison.run(spec, out, **how)
