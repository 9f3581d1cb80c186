"""Strategies one after the other, each in a process of its own if asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from avalanche_branchtune.checkpoints.lock import locked
from avalanche_branchtune.errors import RecordError, UnknownOptionError
from avalanche_branchtune.records import Run, load_run
from avalanche_branchtune.records.run import RECORD
from solo_bridge.apart import run_apart
from solo_bridge.comparison.settings import Comparison
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
) -> list[Run]:
    """Train and measure strategies one after the other, joint training first.

    :param specs: see :func:`solo_bridge.specification.build`.
    :param comparison: what they are compared on.
    :param out: folder of the records, for this comparison alone while it lasts.
    :param separate: run each in a process of its own, so that its peak memory
        is its own; they end with this one.
    :param done: called with each record.
    :param imports: files that register names of one's own, for those processes as well.
    :return: the records, in the order of ``specs``.
    :raises BranchTuneError: before training for what is not there, for a
        record that is there already and for a folder that another process
        uses; and for a strategy that fails.
    """
    for file in imports:
        import_file(file)
    for spec in specs:
        title(spec)  # unknown names fail before anything is trained
        if specs.count(spec) > 1:
            raise UnknownOptionError(f"strategy {spec!r} is given twice")
    comparison.check()
    runs: dict[str, Run] = {}
    with locked(Path(out)):
        for spec in specs:
            if (comparison.folder(spec, out) / RECORD).exists():
                raise RecordError(
                    f"{comparison.folder(spec, out)} holds the record of a run already: choose "
                    "another folder (--out) or another seed (--seed), or remove it"
                )
        for spec in sorted(specs, key=lambda s: s != "joint"):
            if separate:
                threads = torch.get_num_threads()
                run_apart(spec, _alone, comparison, spec, str(out), threads, tuple(imports))
                runs[spec] = load_run(comparison.folder(spec, out))
            else:
                runs[spec] = comparison.run(spec, out)
            if done is not None:
                done(runs[spec])
    return [runs[spec] for spec in specs]


def everything(of: str | None = None) -> list[str]:
    """Return every name there is, but for published schedules of days, and combinations.

    :param of: name of a preset, of which only what its paper compares.
    """
    if of is not None:
        return list(preset(of).strategies)
    return [*(n for n in names() if not n.endswith("_paper")), *COMBINATIONS]


def _alone(
    comparison: Comparison, spec: str, out: str, threads: int, imports: tuple[str, ...]
) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    for file in imports:
        import_file(file)
    comparison.run(spec, out)
