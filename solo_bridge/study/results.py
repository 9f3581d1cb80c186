"""What the runs of a study found, small enough to be kept: a row for each run."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.metrics.recorder import VALUES
from avalanche_branchtune.records import Run, load_run
from avalanche_branchtune.writing import write_text
from solo_bridge.study.plan import Job, Plan
from solo_bridge.study.running import progress, work_of

FORMAT = "avalanche-branchtune study 1"
ONLINE = "Online_Probe_Acc_Stream/eval_phase/test_stream"
OWN = ("strategy", "specification", "command")


@dataclass(frozen=True)
class Row:
    """One run.

    :param group: what it is compared with: stream, method and schedule.
    :param arm: its name in the plan.
    :param seed: of all that is random.
    :param accuracies: name of a probe → accuracy on all classes after each experience.
    :param stability: mean over the layers (CKA) for each experience; NaN is None.
    :param plasticity: the same.
    :param layers: layer → stability and plasticity, means over the experiences after the first.
    :param seconds: of training and evaluation together.
    """

    group: str
    arm: str
    seed: int
    accuracies: Mapping[str, list[float]]
    stability: list[float | None] = field(default_factory=list)
    plasticity: list[float | None] = field(default_factory=list)
    layers: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    seconds: float = 0.0

    def final(self, measure: str) -> float | None:
        """Return one number of the run.

        :param measure: a probe, of which the accuracy after the last experience; ``"S"`` or
            ``"P"``, their means over the experiences after the first.
        """
        if measure in ("S", "P"):
            series = self.stability if measure == "S" else self.plasticity
            known = [value for value in series[1:] if value is not None]
            return math.fsum(known) / len(known) if known else None
        series = list(self.accuracies.get(measure, []))
        return series[-1] if series else None


@dataclass(frozen=True)
class Results:
    """What a study found so far.

    :param question: that it answers.
    :param reference: name of the arm that the others are compared with.
    :param arms: name → its specification, options and settings.
    :param settings: group → what is the same in all its runs.
    :param protocols: group → probe → how it is made.
    :param environments: of the runs, each once.
    :param rows: finished runs.
    :param left: names of runs that are not finished.
    :param failed: name of a run → why it failed.
    """

    question: str
    reference: str
    arms: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Mapping[str, Any]]
    protocols: Mapping[str, Mapping[str, Mapping[str, Any]]]
    environments: list[Mapping[str, Any]]
    rows: list[Row]
    left: list[str]
    failed: Mapping[str, str]

    def values(self, group: str, measure: str) -> dict[str, dict[int, float]]:
        """Return arm → seed → value, in the order of the plan; arms without runs are left out.

        :param group: see :class:`Row`.
        :param measure: see :meth:`Row.final`.
        """
        found: dict[str, dict[int, float]] = {arm: {} for arm in self.arms}
        for row in self.rows:
            value = row.final(measure)
            if row.group == group and value is not None:
                found[row.arm][row.seed] = value
        return {arm: seeds for arm, seeds in found.items() if seeds}

    def groups(self) -> list[str]:
        """Return what there are runs of, in the order of the first seed."""
        return list(dict.fromkeys(row.group for row in self.rows))

    def save(self, path: Path) -> None:
        """Write them as JSON, a line for each run.

        :param path: of the file.
        """
        content = {"format": FORMAT, **asdict(self)}
        rows = [json.dumps(row, ensure_ascii=False) for row in content.pop("rows")]
        head = json.dumps(content, indent=1, ensure_ascii=False)
        lines = ",\n".join(f"  {row}" for row in rows)
        write_text(path, f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n')


def collect(plan: Plan, out: str | Path) -> Results:
    """Read the records of a study.

    :param plan: what is run.
    :param out: folder of the study.
    """
    state = progress(plan, out)
    runs = [(job, load_run(work_of(job, Path(out)).folder)) for job in state.trained]
    environments: list[Mapping[str, Any]] = []
    for _, run in runs:
        environments += [e for e in _listed(run.environment) if e not in environments]
    protocols: dict[str, dict[str, Any]] = {}
    for job, run in runs:
        found = {name: probe.protocol for name, probe in run.probes.items()}
        protocols.setdefault(job.group, {}).update(found)
    return Results(
        plan.question,
        plan.reference,
        {
            arm.name: {"strategy": arm.strategy, "options": arm.options, "settings": arm.settings}
            for arm in plan.arms
        },
        _settings(runs),
        protocols,
        environments,
        [row_of(job, run, work_of(job, Path(out)).folder) for job, run in runs],
        [job.name for job in state.left],
        state.failed,
    )


def load_results(path: str | Path) -> Results:
    """Read what :meth:`Results.save` wrote.

    :param path: of the file.
    :raises RecordError: if it is something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError(f"expected {FORMAT!r}")
        rows = [Row(**row) for row in content.pop("rows")]
        return Results(**content, rows=rows)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path} holds no results of a study: {error}") from error


def row_of(job: Job, run: Run, folder: Path) -> Row:
    """Return what one run found.

    :param job: that it was.
    :param run: its record.
    :param folder: of it, for the accuracies of an online probe.
    """
    accuracies = {name: [round(a, 4) for a in p.overall] for name, p in run.probes.items()}
    online = _online(folder / VALUES)
    if online:
        accuracies["online"] = online
    return Row(
        job.group,
        job.arm,
        job.comparison.seed,
        accuracies,
        [_mean(layers.values()) for layers in run.stability],
        [_mean(layers.values()) for layers in run.plasticity],
        _layers(run),
        round(sum(run.seconds) + sum(run.evaluation_seconds), 1),
    )


def _layers(run: Run) -> dict[str, tuple[float | None, float | None]]:
    names = [name for layers in run.stability[-1:] for name in layers]

    def mean(series: list[dict[str, float]], name: str) -> float | None:
        return _mean(layers[name] for layers in series if name in layers)

    return {n: (mean(run.stability[1:], n), mean(run.plasticity[1:], n)) for n in names}


def _mean(values: Iterable[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return round(math.fsum(known) / len(known), 4) if known else None


def _online(path: Path) -> list[float]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == ONLINE]
    return [round(float(row["value"]), 4) for row in rows]


def _settings(runs: Iterable[tuple[Job, Run]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for job, run in runs:
        own = {k: v for k, v in run.settings.items() if k not in OWN}
        known = found.setdefault(job.group, own)
        for name in [name for name in known if own.get(name) != known[name]]:
            del known[name]
    return found


def _listed(environment: Any) -> list[Any]:
    return environment if isinstance(environment, list) else [environment]
