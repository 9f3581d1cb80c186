"""Tables of a study: means, deviations, paired differences, and what the seeds support."""

from __future__ import annotations

from collections.abc import Mapping

from avalanche_branchtune.report.formats import NONE, Table, markdown, number
from solo_bridge.study.results import Results
from solo_bridge.study.statistics import (
    ABOVE,
    BELOW,
    Difference,
    mean_and_deviation,
    ordering,
    paired,
)

MEASURES: Mapping[str, tuple[str, float, int]] = {
    "kNN": ("kNN", 100, 1),
    "linear": ("linear, offline", 100, 1),
    "online": ("linear, online", 100, 1),
    "S": ("S", 1, 3),
    "P": ("P", 1, 3),
}
"""Measure → how tables call it, its unit and decimals: accuracies are in percent."""
SIGNS = {ABOVE: "↑", BELOW: "↓"}
NOTE = (
    "Mean ± standard deviation over seeds after the last experience; in brackets the mean of the "
    "paired differences to {reference} on the same seeds, with its 95 % bootstrap interval. ↑ ↓: "
    "the seeds support this difference by itself (the interval leaves out zero, and Student's "
    "paired test of three seeds or more has p < 0.05); no arrow: undecided. If nothing differed, "
    "one difference of twenty would have an arrow. P is measured against the arm joint."
)


def tables(results: Results) -> str:
    """Return all tables as Markdown, with what the seeds say of orderings and what is not finished.

    :param results: of a study.
    """
    parts = [results.question] if results.question else []
    for group in results.groups():
        parts += [markdown(table(results, group))]
        for measure, (called, _, _) in MEASURES.items():
            values = results.values(group, measure)
            if len(values) > 1:
                parts.append(f"{called}, what the seeds support: {ordering(values)}")
    if results.left:
        parts.append(f"Not finished: {len(results.left)} runs: {', '.join(results.left)}")
    parts += [f"Failed: {name}: {why}" for name, why in results.failed.items()]
    return "\n\n".join(parts) + "\n"


def table(results: Results, group: str) -> Table:
    """Return the table of one group, a row for each arm.

    :param results: of a study.
    :param group: see :class:`~solo_bridge.study.results.Row`.
    """
    reference = results.reference
    measured = {measure: results.values(group, measure) for measure in MEASURES}
    measured = {measure: values for measure, values in measured.items() if values}
    arms = [arm for arm in results.arms if any(arm in values for values in measured.values())]
    rows = []
    for arm in arms:
        seeds = {seed for values in measured.values() for seed in values.get(arm, {})}
        cells = [
            cell(m, values.get(arm, {}), values.get(reference, {}), arm != reference)
            for m, values in measured.items()
        ]
        rows.append([arm, str(len(seeds)), *cells])
    head = ["arm", "seeds", *(MEASURES[measure][0] for measure in measured)]
    notes = [NOTE.format(reference=reference)]
    caveat = results.settings.get(group, {}).get("caveat")
    return Table(f"study-{group}", group, head, rows, [*notes, *([caveat] if caveat else [])])


def cell(
    measure: str, ours: Mapping[int, float], theirs: Mapping[int, float], compared: bool = True
) -> str:
    """Return what a table shows of one arm and one measure.

    :param measure: name of :data:`MEASURES`.
    :param ours: seed → value.
    :param theirs: the reference's.
    :param compared: False for the reference itself.
    """
    if not ours:
        return NONE
    _, unit, decimals = MEASURES[measure]
    mean, deviation = mean_and_deviation(list(ours.values()))
    text = number(unit * mean, decimals)
    if deviation is not None:
        text += f" ± {number(unit * deviation, decimals)}"
    found = paired(ours, theirs) if compared else None
    if found is None:
        return text
    pairs = "" if found.seeds == len(ours) else f" of {found.seeds} pairs"
    return f"{text} ({difference(measure, found)}{pairs})"


def difference(measure: str, found: Difference) -> str:
    """Return a paired difference with its interval and, if it is supported, an arrow.

    :param measure: name of :data:`MEASURES`.
    :param found: the difference.
    """
    _, unit, decimals = MEASURES[measure]

    def signed(value: float) -> str:
        text = number(unit * value, decimals)
        return f"+{text}" if value > 0 else text

    interval = "" if found.seeds < 2 else f" [{signed(found.low)}, {signed(found.high)}]"
    return f"{signed(found.mean)}{interval}{SIGNS.get(found.verdict, '')}"
