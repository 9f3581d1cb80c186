"""Runs of one name together: mean and deviation over their seeds."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.evaluation.traces import Trace
from avalanche_branchtune.records.comparable import check_comparable, check_run, check_same
from avalanche_branchtune.records.probe import ProbeRecord
from avalanche_branchtune.records.reading import load_run, read_json
from avalanche_branchtune.records.run import RECORD, Run
from avalanche_branchtune.report.formats import one_line

REFERENCES = ("fine-tuning", "frozen", "joint", "random")
"""What other strategies are compared with: shown last, in shades of grey."""

Layers = Literal["stability", "plasticity", "branch_norms"]


@dataclass(frozen=True)
class Statistic:
    """A number over some runs.

    :param mean: over the runs.
    :param deviation: sample standard deviation (n − 1); None for a single run.
    :param n: number of runs.
    """

    mean: float
    deviation: float | None
    n: int


def statistic(values: Iterable[float | None]) -> Statistic | None:
    """Return mean and deviation, or None if there is no value.

    :param values: one per run; None where a run has none.
    """
    known = [float(v) for v in values if v is not None and not math.isnan(v)]
    if not known:
        return None
    return Statistic(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Numbers of the whole run (accuracies, times) are over the runs that got
    furthest, so that a partial run is never averaged with a complete one.
    Numbers after an experience are over all runs that finished it.

    :param name: the strategy.
    :param runs: at least one, by seed.
    :param origins: where each run came from, for messages.
    """

    name: str
    runs: tuple[Run, ...]
    origins: tuple[str, ...]

    @property
    def n_experiences(self) -> int:
        """Training experiences of the stream; 1 for joint training."""
        return self.runs[0].n_experiences

    @property
    def at_once(self) -> bool:
        """Whether everything was learnt in one experience, or nothing was: a level line."""
        return self.n_experiences == 1

    @property
    def is_reference(self) -> bool:
        """Whether others are compared with it."""
        return self.name in REFERENCES

    @property
    def shown(self) -> str:
        """The name on one line, without characters that cannot be printed."""
        return one_line(self.name) or "(no name)"

    @property
    def partial(self) -> list[tuple[Run, str]]:
        """The runs that did not reach the end of the stream, each with its origin."""
        pairs = zip(self.runs, self.origins, strict=True)
        return [(run, origin) for run, origin in pairs if not run.complete]

    @property
    def finished(self) -> int:
        """Experiences that the runs which got furthest finished."""
        return max(run.finished for run in self.runs)

    @property
    def furthest(self) -> list[Run]:
        """The runs that got furthest: the complete ones, if there are any."""
        return [run for run in self.runs if run.finished == self.finished]

    @property
    def progress(self) -> str:
        """How far the group got, or "" if all its runs are complete."""
        if not self.partial:
            return ""
        if self.finished < self.n_experiences:
            return f"partial: {self.finished} of {self.n_experiences} experiences"
        return f"{len(self.partial)} of {len(self.runs)} runs partial"

    @property
    def label(self) -> str:
        """Name, number of runs and whether some are partial, as a curve is labelled."""
        note = f", {self.progress}" if self.progress else ""
        return f"{self.shown} (n = {len(self.runs)}{note})"

    def probe(self, name: str) -> list[ProbeRecord]:
        """Return what a probe found in each run.

        :param name: of the probe; a group without it gives an empty list.
        """
        return [run.probes[name] for run in self.runs if name in run.probes]

    def summary(self, probe: str) -> dict[str, Statistic]:
        """Return the numbers of the accuracy matrix over the runs that got furthest.

        :param probe: name of the probe.
        :return: see :meth:`ProbeRecord.summary`.
        """
        records = self.probe(probe)
        rows = max((len(record.accuracies) for record in records), default=0)
        found = [r.summary(self.n_experiences) for r in records if len(r.accuracies) == rows]
        names = dict.fromkeys(name for one in found for name in one)
        numbers = {name: statistic(one.get(name) for one in found) for name in names}
        return {name: number for name, number in numbers.items() if number is not None}

    def overall(self, probe: str) -> list[Statistic]:
        """Return the accuracy on all measured test samples after each experience.

        :param probe: name of the probe.
        """
        rows = [record.overall for record in self.probe(probe)]
        steps = (
            statistic(row[t] for row in rows if t < len(row))
            for t in range(max((len(row) for row in rows), default=0))
        )
        return [step for step in steps if step is not None]

    def before(self, probe: str) -> Statistic | None:
        """Return the same before any training.

        :param probe: name of the probe.
        """
        return statistic(record.random_overall for record in self.probe(probe))

    def cells(self, probe: str) -> list[list[Statistic | None]]:
        """Return the accuracy matrix, None where nothing was measured.

        :param probe: name of the probe.
        """
        matrices = [record.accuracies for record in self.probe(probe)]
        columns = max((len(row) for rows in matrices for row in rows), default=0)
        return [
            [statistic(rows[t][i] for rows in matrices if t < len(rows)) for i in range(columns)]
            for t in range(max((len(rows) for rows in matrices), default=0))
        ]

    def before_cells(self, probe: str) -> list[Statistic | None] | None:
        """Return the row of the network before any training, or None if it was not measured.

        :param probe: name of the probe.
        """
        rows = [record.random for record in self.probe(probe) if record.random is not None]
        return [statistic(column) for column in zip(*rows, strict=True)] if rows else None

    def layers(self, kind: Layers, t: int) -> dict[str, Statistic]:
        """Return a number of every layer after an experience.

        :param kind: which number.
        :param t: index of the experience.
        :return: layer → number; empty where it was not measured.
        """
        measured = [getattr(run, kind) for run in self.runs]
        entries = [values[t] for values in measured if t < len(values) and values[t]]
        names = dict.fromkeys(name for entry in entries for name in entry)
        numbers = {name: statistic(entry.get(name) for entry in entries) for name in names}
        return {name: number for name, number in numbers.items() if number is not None}

    def layer_steps(self, kind: Layers) -> list[int]:
        """Return the experiences after which there are numbers of layers.

        :param kind: which number.
        """
        last = max(len(getattr(run, kind)) for run in self.runs)
        return [t for t in range(last) if self.layers(kind, t)]

    def layer_mean(self, kind: Layers) -> Statistic | None:
        """Return the mean over the layers, after the last experience of the runs that got furthest.

        :param kind: which number.
        """
        t = self.finished - 1
        entries = [getattr(run, kind)[t : t + 1] for run in self.furthest] if t >= 0 else []
        return statistic(fmean(e[0].values()) if e and e[0] else None for e in entries)

    def seconds(self, kind: Literal["seconds", "evaluation_seconds"]) -> Statistic | None:
        """Return the time of the runs that got furthest.

        :param kind: of the training or of the evaluation.
        """
        times = [getattr(run, kind) for run in self.furthest]
        return statistic(sum(time) if time else None for time in times)

    @property
    def peak_memory_mib(self) -> Statistic | None:
        """Largest memory of the runs that got furthest."""
        return statistic(run.peak_memory_mib for run in self.furthest)

    def parameters(self, kind: Literal["network", "during", "after"]) -> Statistic | None:
        """Return how many parameters the network has, or were held beside it.

        :param kind: see :class:`~avalanche_branchtune.records.Run`.
        """
        return statistic(run.parameters.get(kind) for run in self.furthest)

    @property
    def trace(self) -> tuple[Trace, int] | None:
        """Accuracies during training and the number of runs they are the mean of.

        Runs that were measured at other iterations than the first one that got
        furthest are left out.
        """
        traces = [run.trace for run in self.furthest if run.trace and run.trace.iterations]
        if not traces:
            return None
        first = traces[0]
        alike = [
            t
            for t in traces
            if (t.iterations, t.experiences) == (first.iterations, first.experiences)
            and (t.probe, t.protocol) == (first.probe, first.protocol)
            and [len(row) for row in t.accuracies] == [len(row) for row in first.accuracies]
        ]
        mean = [
            [fmean(values) for values in zip(*rows, strict=True)]
            for rows in zip(*(t.accuracies for t in alike), strict=True)
        ]
        averaged = replace(first, accuracies=mean)
        return averaged, len(alike)


Source = Run | Group | str | os.PathLike[str]
"""What runs come from: themselves, runs that were grouped before, a folder of a run or of such."""


def group_runs(runs: Sequence[Source]) -> list[Group]:
    """Put runs of one name together.

    :param runs: runs, folders of runs, folders that hold such folders, or groups.
    :return: in the order in which the names first came, the references last.
    :raises RecordError: if there is no run, if a record is damaged, if runs of
        one name differ in anything but the seed or have the same seed, and if a
        probe was run under different protocols; names the setting, both values
        and both runs.
    """
    found = [pair for run in runs for pair in _found(run)]
    if not found:
        raise RecordError("no run was given: a report needs at least one")
    for origin, run in found:
        check_run(origin, run)
    named: dict[str, list[tuple[str, Run]]] = {}
    for origin, run in found:
        named.setdefault(run.name, []).append((origin, run))
    groups = []
    for name, members in named.items():
        check_same(members)
        members.sort(key=lambda member: -1 if member[1].seed is None else member[1].seed)
        groups.append(
            Group(name, tuple(run for _, run in members), tuple(origin for origin, _ in members))
        )
    check_comparable(found)
    return sorted(groups, key=lambda group: group.is_reference)


def _found(source: Source) -> list[tuple[str, Run]]:
    if isinstance(source, Group):
        return list(zip(source.origins, source.runs, strict=True))
    if isinstance(source, Run):
        seed = "no seed" if source.seed is None else f"seed {source.seed}"
        return [(f"{source.name} ({seed})", source)]
    folder = Path(source)
    if (folder / RECORD).is_file() or not folder.is_dir():
        return [(str(folder), load_run(folder))]
    below = sorted(path.parent for path in folder.rglob(RECORD) if not _foreign(path))
    if not below:
        raise RecordError(
            f"{folder}: no record of a run: neither this folder nor one below it has a {RECORD}"
        )
    return [(str(path), load_run(path)) for path in below]


def _foreign(path: Path) -> bool:
    """Tell whether a file is called like a record and says that it is something else."""
    try:
        content = read_json(path)
    except RecordError:
        return False
    return not isinstance(content, dict) or "format" not in content
