"""The tables of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from avalanche_branchtune.records.comparable import flat
from avalanche_branchtune.report.formats import NONE, Table, number, one_line, plain
from avalanche_branchtune.report.groups import Group, Statistic

ACCURACIES = {
    "final_accuracy": "final accuracy",
    "continual_accuracy": "continual accuracy",
    "forgetting": "forgetting",
    "forward_transfer": "forward transfer",
    "backward_transfer": "backward transfer",
}
LESS_IS_BETTER = ("forgetting",)
BOLD = "Bold: the best mean of a column, joint training apart."
HEADER = ("command", "caveat")
"""Settings that the page opens with."""
MEANING = (
    "Accuracies in percent; forgetting and transfer in percentage points. Final accuracy: mean "
    "over the test experiences after the last training experience. Continual accuracy: mean, after "
    "each experience, over those seen so far, and then over all of these. Forgetting: how far an "
    "experience fell from its best accuracy. Forward transfer: what it gained before it was "
    "trained, over the network before training. Backward transfer: what it gained after it was "
    "trained."
)


def summary_table(groups: Sequence[Group], probe: str) -> Table:
    """Return the numbers of whole runs.

    :param groups: in the order of the rows.
    :param probe: whose accuracies.
    """
    groups = [group for group in groups if group.probe(probe)]
    head = ["strategy", "runs n", *ACCURACIES.values(), "stability S", "plasticity P"]
    rows = []
    for group in groups:
        numbers, n = group.summary(probe), len(group.furthest)
        layers = (group.layer_mean("stability"), group.layer_mean("plasticity"))
        rows.append(
            [
                *_row_begin(group),
                *(percent(numbers.get(name), n) for name in ACCURACIES),
                *(shown(value, n, decimals=3) for value in layers),
            ]
        )
    notes = _deviation_note(groups)
    if any(group.layer_mean("stability") or group.layer_mean("plasticity") for group in groups):
        notes.append("S and P: mean over the layers, after the last experience.")
    best = _best(
        groups,
        {
            2 + i: [-x if name in LESS_IS_BETTER and x is not None else x for x in means]
            for i, name in enumerate(ACCURACIES)
            if (means := [_whole_mean(group, probe, name) for group in groups])
        },
    )
    notes += [BOLD] if best else []
    if any(group.partial for group in groups):
        notes.append(
            "Partial runs: the row is over the runs that got furthest; numbers that need the whole "
            "stream are left out where none did."
        )
    caption = f"Summary, probe {one_line(probe)}: accuracies in percent"
    return Table(f"summary-{probe}", caption, head, rows, notes, bold=best)


def cost_table(groups: Sequence[Group]) -> Table:
    """Return what whole runs cost: time, memory and parameters.

    :param groups: in the order of the rows.
    """
    head = ["strategy", "runs n", "training, s", "evaluation, s", "peak memory, MiB"]
    counted = any(group.parameters("network") for group in groups)
    head += ["extra parameters in training", "extra after"] if counted else []
    rows = []
    for group in groups:
        extra = [group.parameters("during"), group.parameters("after")] if counted else []
        times, n = (
            [group.seconds("seconds"), group.seconds("evaluation_seconds")],
            len(group.furthest),
        )
        rows.append(
            [
                *_row_begin(group),
                *(shown(value, n) for value in times),
                *(shown(value, n, decimals=0) for value in [group.peak_memory_mib, *extra]),
            ]
        )
    notes = _deviation_note(groups)
    if counted:
        networks = {number(size.mean, 0) for g in groups if (size := g.parameters("network"))}
        notes.append(
            "Extra parameters: held beyond the network and the method's heads "
            f"({', '.join(sorted(networks))}), most at any time in training (branches, teachers, "
            "predictors, stored weights; not samples), and needed afterwards to use it."
        )
    return Table("cost", "Cost of a whole run", head, rows, notes)


def overall_table(groups: Sequence[Group], probe: str) -> Table:
    """Return the accuracy on all measured test samples after each experience.

    :param groups: in the order of the rows.
    :param probe: whose accuracies.
    """
    groups = [group for group in groups if group.probe(probe)]
    last = max((group.n_experiences for group in groups), default=1)
    rows = []
    for group in groups:
        steps = [percent(step, len(group.runs)) for step in group.overall(probe)]
        gap = [NONE] * (last - len(steps))
        cells = gap + steps if group.at_once else steps + gap
        before = percent(group.before(probe), len(group.runs))
        rows.append([row_name(group), before, *cells])
    notes = ["On the test samples of all measured experiences together.", *_deviation_note(groups)]
    if any(group.at_once for group in groups) and last > 1:
        notes.append("What has one experience only (joint training) stands in the last column.")
    if any(group.partial and len(group.runs) > 1 for group in groups):
        notes.append("(n = …): over so many runs, because the others did not get so far.")
    steps_of = [[] if g.at_once else g.overall(probe) for g in groups]
    best = _best(
        groups,
        {2 + t: [s[t].mean if t < len(s) else None for s in steps_of] for t in range(last)},
    )
    return Table(
        f"overall-{probe}",
        f"Accuracy in percent after each experience, probe {one_line(probe)}",
        ["strategy", "before training", *(f"after {t}" for t in range(last))],
        rows,
        [*notes, BOLD] if best else notes,
        bold=best,
    )


def settings_tables(groups: Sequence[Group]) -> list[Table]:
    """Return the settings that all strategies share, and those in which they differ.

    :param groups: in the order of the columns.
    """
    columns = [
        {
            "experiences": str(group.n_experiences),
            **flat({k: v for k, v in group.runs[0].settings.items() if k not in HEADER}),
        }
        for group in groups
    ]
    shared, different = [], []
    for name in dict.fromkeys(name for column in columns for name in column):
        values = [one_line(column.get(name, NONE)) for column in columns]
        if len(set(values)) == 1:
            shared.append([one_line(name), values[0]])
        else:
            different.append([one_line(name), *values])
    names = [group.shown for group in groups]
    tables = [
        Table("settings", "Settings of all runs", ["setting", "value"], shared, [], True),
        Table(
            "settings-different",
            "Settings in which the strategies differ",
            ["setting", *names],
            different,
            [],
            True,
        ),
    ]
    return [table for table in tables if table.rows]


def protocol_tables(groups: Sequence[Group]) -> list[Table]:
    """Return how the accuracies of each probe, and S and P, were measured.

    :param groups: which agree in it.
    """
    runs = [run for group in groups for run in group.runs]
    found = {
        name: ("probe " + one_line(name), flat(probe.protocol))
        for run in runs
        for name, probe in run.probes.items()
    }
    analysis = next((run.analysis_protocol for run in runs if run.analysis_protocol), None)
    if analysis is not None:
        found["S and P"] = ("stability and plasticity", {"measured by": analysis})
    return [
        Table(
            f"protocol-{name}",
            f"Protocol of {what}, the same for all runs",
            ["part", "value"],
            [[one_line(key), one_line(value)] for key, value in lines.items()],
            [],
            prose=True,
        )
        for name, (what, lines) in found.items()
    ]


def environment_table(groups: Sequence[Group]) -> Table:
    """Return hardware and versions, a column for each that differs.

    :param groups: of the runs.
    """
    found: dict[tuple[tuple[str, str], ...], dict[str, list[str]]] = {}
    for group in groups:
        for run in group.runs:
            named = found.setdefault(tuple(flat(run.environment).items()), {})
            named.setdefault(group.shown, []).append("–" if run.seed is None else str(run.seed))
    names = dict.fromkeys(key for lines in found for key, _ in lines if key)
    head = ["part", *("; ".join(map(_seeds, d.keys(), d.values())) for d in found.values())]
    if len(found) == 1:
        head = ["part", "all runs"]
    columns = [dict(lines) for lines in found]
    rows = [[one_line(n), *(one_line(lines.get(n, NONE)) for lines in columns)] for n in names]
    return Table("environment", "Hardware and versions", head, rows, [], prose=True)


def runs_table(groups: Sequence[Group]) -> Table:
    """Return time and memory of every single run.

    :param groups: of the runs.
    """
    rows = []
    for group in groups:
        for run in group.runs:
            times = [number(sum(t)) if t else NONE for t in (run.seconds, run.evaluation_seconds)]
            pace = number(sum(run.seconds) / len(run.seconds)) if run.seconds else NONE
            memory = NONE if run.peak_memory_mib is None else number(run.peak_memory_mib, 0)
            done = f"{run.finished} of {run.n_experiences}"
            rows.append(
                [
                    group.shown,
                    NONE if run.seed is None else str(run.seed),
                    done if run.complete else f"{done} (partial)",
                    times[0],
                    pace,
                    times[1],
                    memory,
                ]
            )
    head = ["strategy", "seed", "experiences", "training, s", "training per experience, s"]
    head += ["evaluation, s", "peak memory, MiB"]
    return Table("runs", "Time and memory of each run", head, rows, [])


def probes_of(groups: Sequence[Group]) -> list[str]:
    """Return the names of all probes.

    :param groups: in which they were run.
    """
    return list(dict.fromkeys(name for group in groups for name in group.runs[0].probes))


def all_tables(groups: Sequence[Group]) -> list[Table]:
    """Return every table of a report.

    :param groups: in the order of the rows.
    """
    measured = [f(groups, p) for p in probes_of(groups) for f in (summary_table, overall_table)]
    rest = [cost_table(groups), *settings_tables(groups), *protocol_tables(groups)]
    rest += [environment_table(groups), runs_table(groups)]
    return [table for table in [*measured, *rest] if table.rows]


def text_table(groups: Sequence[Group]) -> str:
    """Return the accuracies for a terminal: two tables for each probe, and the cost.

    :param groups: in the order of the rows.
    """
    tables = [f(groups, p) for p in probes_of(groups) for f in (summary_table, overall_table)]
    return "\n\n".join(map(plain, [*tables, cost_table(groups)]))


def shown(value: Statistic | None, n: int, *, decimals: int = 1, scale: float = 1) -> str:
    """Return a number as a cell: mean, deviation, and over how many runs if not over all.

    :param value: None where there is none.
    :param n: number of runs that the row is about.
    :param decimals: of mean and deviation.
    :param scale: by which both are multiplied.
    """
    if value is None:
        return NONE
    text = number(scale * value.mean, decimals)
    if value.deviation is not None:
        text += f" ± {number(scale * value.deviation, decimals)}"
    return text if value.n == n else f"{text} (n = {value.n})"


def percent(value: Statistic | None, n: int) -> str:
    """Return an accuracy as a cell, in percent.

    :param value: a share.
    :param n: number of runs that the row is about.
    """
    return shown(value, n, scale=100)


def _row_begin(group: Group) -> list[str]:
    """Return the name and the number of runs."""
    n, every = len(group.furthest), len(group.runs)
    return [row_name(group), str(n) if n == every else f"{n} of {every}"]


def _mean(value: Statistic | None) -> float | None:
    return None if value is None else value.mean


def _whole_mean(group: Group, probe: str, name: str) -> float | None:
    """Return the mean of a number of whole runs; one over fewer experiences is not compared."""
    if group.finished < group.n_experiences:
        return None
    return _mean(group.summary(probe).get(name))


def _best(
    groups: Sequence[Group], columns: Mapping[int, Sequence[float | None]]
) -> frozenset[tuple[int, int]]:
    """Return the cells that are the best of their column: none where a strategy has one run only.

    :param groups: in the order of the rows.
    :param columns: index → a value for each row, the larger the better, None where there is none.
    """
    if any(len(group.furthest) < 2 for group in groups if not group.at_once):
        return frozenset()
    found = set()
    for column, values in columns.items():
        rows = [(r, v) for r, v in enumerate(values) if v is not None and not groups[r].at_once]
        if len(rows) > 1:
            most = max(v for _, v in rows)
            found |= {(r, column) for r, v in rows if v == most}
    return frozenset(found)


def row_name(group: Group) -> str:
    """Return how a row of numbers is called.

    :param group: of one strategy.
    """
    return f"{group.shown} ({group.progress})" if group.progress else group.shown


def _deviation_note(groups: Sequence[Group]) -> list[str]:
    if all(len(group.runs) == 1 for group in groups):
        return ["Single runs: no deviation is known."]
    return ["±: sample standard deviation over the runs (n − 1); none for a single run."]


def _seeds(name: str, seeds: list[str]) -> str:
    return f"{name}, seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
