"""The sections of docs/evidence.md: every sentence about a difference is made of its verdict."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from avalanche_branchtune.report.formats import Table, markdown, number
from benchmarks.evidence import figures
from solo_bridge.study.results import Results
from solo_bridge.study.statistics import (
    ABOVE,
    BELOW,
    Difference,
    claim,
    mean_and_deviation,
    paired,
)
from solo_bridge.study.text import MEASURES, cell, difference, table

PICTURES = Path(__file__).parents[2] / "docs" / "evidence"
HEADROOM = 0.05
"""Of joint training over fine-tuning, below which a stream leaves little to win."""
FINE, JOINT, OURS, FROZEN = "fine_tuning", "joint", "branch_tuning", "frozen"
ACCURACIES = ("linear", "kNN")
WORDS = {ABOVE: "above", BELOW: "below"}
NAMES = {
    FINE: "fine-tuning",
    JOINT: "joint training",
    OURS: "Branch-tuning",
    FROZEN: "a frozen network",
}


class Page:
    """The page as it grows."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def add(self, *parts: str) -> None:
        self.parts += parts

    def picture(self, name: str, figure: Any, alt: str) -> None:
        figures.save(figure, PICTURES / f"{name}.svg")
        self.add(f"![{alt}](evidence/{name}.svg)")


def titled(group: str) -> str:
    """``digits-5x2-simclr-60`` → ``digits-5x2, simclr, 60 epochs``."""
    stream, method, epochs = group.rsplit("-", 2)
    return f"{stream}, {method}, {epochs} epochs"


def compared(
    results: Results, group: str, measure: str, arms: Iterable[str], reference: str = FINE
) -> list[tuple[str, Difference]]:
    """The paired differences of arms to the reference, where there are any."""
    values = results.values(group, measure)
    found = [(arm, paired(values.get(arm, {}), values.get(reference, {}))) for arm in arms]
    return [(arm, one) for arm, one in found if one is not None]


def said(rows: Sequence[tuple[str, Difference]], measure: str, reference: str = FINE) -> str:
    """Who is above and below the reference by the seeds, and who is undecided."""
    parts = []
    for verdict, word in WORDS.items():
        names = [f"{name} ({difference(measure, d)})" for name, d in rows if d.verdict == verdict]
        if names:
            parts.append(f"{word} {NAMES.get(reference, reference)}: {', '.join(names)}")
    undecided = [name for name, d in rows if d.verdict not in WORDS]
    if undecided:
        parts.append(f"undecided: {', '.join(undecided)}")
    return f"- {MEASURES[measure][0]}: {'; '.join(parts) or 'not measured'}."


def others(results: Results, *left_out: str) -> list[str]:
    """The arms but for some."""
    return [arm for arm in results.arms if arm not in left_out]


def arms_against(page: Page, name: str, results: Results) -> None:
    """For each group a figure, a table, and what the seeds say of each arm."""
    reference = results.reference
    arms = others(results, reference, JOINT)
    for group in results.groups():
        page.add(f"### {titled(group)}")
        for measure in ACCURACIES:
            rows = compared(results, group, measure, arms, reference)
            if rows:
                figure = figures.forest(rows, measure, NAMES.get(reference, reference))
                page.picture(f"{name}-{group}-{measure.lower()}", figure, MEASURES[measure][0])
        page.add(markdown(without_notes(table(results, group))))
        lines = [
            said(compared(results, group, m, arms, reference), m, reference)
            for m in (*ACCURACIES, "S", "P")
            if results.values(group, m)
        ]
        page.add("What the seeds support:", "\n".join(lines))


def without_notes(found: Table) -> Table:
    """A table whose notes stand once on the page."""
    return replace(found, caption="After the last experience", notes=[])


def headroom(page: Page, name: str, results: Results) -> None:
    """Headroom and S of each stream, and which leave little to win."""
    rows, poor = [], []
    for group in results.groups():
        cells = [titled(group)]
        rooms = {}
        for measure in ACCURACIES:
            values = results.values(group, measure)
            rooms[measure] = paired(values.get(JOINT, {}), values.get(FINE, {}))
            room = rooms[measure]
            cells.append(cell(measure, values.get(FINE, {}), {}, compared=False))
            cells.append("–" if room is None else difference(measure, room))
        if rooms["linear"] is None:
            continue
        if rooms["linear"].mean < HEADROOM:
            poor.append(titled(group))
        stability = results.values(group, "S").get(FINE, {})
        rows.append([*cells, cell("S", stability, {}, compared=False)])
    head = ["stream", "fine-tuning, linear", "headroom", "fine-tuning, kNN", "headroom", "S"]
    caption = "Headroom: joint training − fine-tuning, of as many steps"
    page.add(markdown(Table("streams", caption, head, rows, [])))
    page.add(
        f"Headroom of less than {number(100 * HEADROOM, 0)} points in the linear probe makes a "
        f"stream a poor one for this purpose: {'; '.join(poor) or 'none of these'}."
    )


def streams(page: Page, name: str, results: Results) -> None:
    """Headroom of each stream, and whether Branch-tuning ends above both of its controls."""
    headroom(page, name, results)
    page.add(
        "To help, Branch-tuning has to end above two: fine-tuning, by which everything learns, and "
        "a network that is frozen after its first experience, by which nothing is forgotten."
    )
    for reference in (FINE, FROZEN):
        for measure in ACCURACIES:
            found = [
                (titled(group), one)
                for group in results.groups()
                for _, one in compared(results, group, measure, [OURS], reference)
            ]
            if found:
                figure = figures.forest(found, measure, NAMES[reference])
                alt = f"Branch-tuning − {NAMES[reference]}, {MEASURES[measure][0]}"
                page.picture(f"{name}-{reference}-{measure.lower()}", figure, alt)
                page.add(said(found, measure, reference))
    gained(page, name, results)
    for group in results.groups():
        page.add(f"### {titled(group)}", markdown(without_notes(table(results, group))))


def gained(page: Page, name: str, results: Results) -> None:
    """Whether Branch-tuning wins where freezing does: each run and probe is a point."""
    points: dict[str, list[tuple[float, float]]] = {}
    for group in results.groups():
        for measure in ACCURACIES:
            arms = [results.values(group, measure).get(arm, {}) for arm in (FINE, OURS, FROZEN)]
            for seed in sorted(set.intersection(*(set(arm) for arm in arms))):
                fine, ours, frozen = (arm[seed] for arm in arms)
                points.setdefault(titled(group), []).append((frozen - fine, ours - fine))
    every = [pair for pairs in points.values() for pair in pairs]
    if len(every) < 3 or any(
        len(set(differences)) == 1 for differences in zip(*every, strict=True)
    ):
        return
    figure = figures.gains(points)
    page.picture(f"{name}-gains", figure, "What freezing wins, and what Branch-tuning does")
    alike = sum((frozen > 0) == (ours > 0) for frozen, ours in every)
    less = sum(abs(ours) < abs(frozen) for frozen, ours in every)
    r = statistics.correlation(*zip(*every, strict=True))
    page.add(
        f"Each point is a seed and a probe. In {alike} of {len(every)} Branch-tuning is on the "
        "side of fine-tuning on which freezing is, and in "
        f"{less} it is nearer to fine-tuning than freezing (dashed: as far); the "
        f"correlation of the two differences is {number(r, 2)} (both are to the same fine-tuning, "
        "which alone makes them somewhat alike). So on these streams a frozen network, which costs "
        "no training, says beforehand on which side of fine-tuning branches end."
    )


def schedules(page: Page, name: str, results: Results) -> None:
    """How differences grow with the schedule, for each stream."""
    by_stream: dict[str, dict[int, str]] = {}
    for group in results.groups():
        stream, epochs = group.rsplit("-", 1)
        by_stream.setdefault(stream, {})[int(epochs)] = group
    for stream, groups in by_stream.items():
        for measure in ACCURACIES:
            series: dict[str, dict[int, Difference]] = {}
            for epochs, group in groups.items():
                for arm, found in compared(results, group, measure, others(results, FINE)):
                    series.setdefault(arm, {})[epochs] = found
            if series:
                figure = figures.over_epochs(series, measure, "fine-tuning")
                page.picture(
                    f"{name}-{stream}-{measure.lower()}",
                    figure,
                    f"{stream}, {MEASURES[measure][0]}",
                )
    arms_against(page, name, results)


CLAIMS = {
    "S": (
        "mean S: fine-tuning .87 < Branch-tuning .99",
        ("fine_tuning", "branch_tuning"),
    ),
    "P": (
        "mean P: frozen .48 < 1×1 .55 < 1×3 .68 < 3×3 .70 < fine-tuning .84",
        ("frozen", "branches-1x1", "branch_tuning", "branches-3x3", "fine_tuning"),
    ),
}
"""What the paper reports of ResNet-18 on CIFAR-100, with 500 epochs of each experience."""


def parts(page: Page, name: str, results: Results) -> None:
    """Which part matters, with the paper's orderings of S and P."""
    arms_against(page, name, results)
    against_controls(page, results, CONTROLS)
    for group in results.groups():
        page.add("### The paper's orderings", *orderings(results, group))
        shapes = ("fine_tuning", "fixed_norms", *CLAIMS["P"][1][1:4], "frozen")
        labels = {arm: arm for arm in shapes if results.values(group, "S").get(arm)}
        if labels:
            picture = figures.layers(results, group, labels)
            page.picture(f"{name}-layers-{group}", picture, "S and P of each layer")


def optimizers(page: Page, name: str, results: Results) -> None:
    """Branches against fine-tuning by each optimizer, and by whose norm LARS goes."""
    for group in results.groups():
        page.add(markdown(without_notes(table(results, group))))
    against_controls(page, results, BY_OPTIMIZER)


def against_controls(page: Page, results: Results, pairs: Sequence[tuple[str, str, str]]) -> None:
    """Differences of pairs that have but one thing between them: control, ours, what it is."""
    for group in results.groups():
        lines = []
        for control, ours, what in pairs:
            shown = []
            for measure in (*ACCURACIES, "S", "P"):
                for _, found in compared(results, group, measure, [ours], control):
                    shown.append(f"{MEASURES[measure][0]} {difference(measure, found)}")
            if shown:
                lines.append(f"- {what} ({ours} − {control}): {', '.join(shown)}")
        if lines:
            page.add(f"One thing at a time, {titled(group)}:", "\n".join(lines))


def neighbours(page: Page, name: str, results: Results) -> None:
    """The neighbours against fine-tuning, and beside branches."""
    arms_against(page, name, results)
    against_controls(page, results, TOGETHER)


def distillation(page: Page, name: str, results: Results) -> None:
    """Distillation against fine-tuning, and what each suspect changes of it."""
    arms_against(page, name, results)
    against_controls(page, results, SUSPECTS)


def demo(page: Page, name: str, results: Results) -> None:
    """On which stream three seeds show something, and what fine-tuning loses there."""
    lines = []
    for group in results.groups():
        finals = results.values(group, "kNN")
        frozen = paired(finals.get(FROZEN, {}), finals.get(FINE, {}))
        if frozen is not None:  # a frozen network is what the first experience left
            lines.append(
                f"- {titled(group)}: from the first experience to the last fine-tuning's kNN "
                f"accuracy changes by {number(-100 * frozen.mean)} points, the mean of "
                f"{frozen.seeds} seeds; {claim_of(results, group)}"
            )
    page.add("\n".join(lines))
    arms_against(page, name, results)


def claim_of(results: Results, group: str) -> str:
    """The order in stability that a demonstration is to show, and what the seeds say of it."""
    order = (FINE, OURS, FROZEN)
    said_of = claim(results.values(group, "S"), order)
    return f"S rises from {' over '.join(NAMES[arm] for arm in order)}: **{said_of}**."


TOGETHER = (
    ("cassle-0.3", "branch_tuning+cassle", "branches, beside CaSSLe in both"),
    ("branch_tuning", "branch_tuning+cassle", "CaSSLe, beside branches in both"),
)
SUSPECTS = (
    ("cassle", "cassle-0.1", "a tenth of the weight"),
    ("kaizen", "kaizen-0.1", "a tenth of the weight"),
    ("cassle", "cassle-teacher-eval", "the teacher's BatchNorm by its statistics"),
    ("cassle", "cassle-new-predictor", "a fresh predictor for each experience"),
    ("cassle", "cassle_fast_predictor", "the predictor at ten times the rate"),
)
CONTROLS = (
    ("fixed_norms", "branch_tuning", "branches, with weight and bias of BatchNorm fixed in both"),
    ("fixed_norms-eval", "branches-eval", "branches, with BatchNorm's statistics fixed in both"),
    ("fine_tuning", "branches-free-norms", "branches alone, with free norms in both"),
    ("fine_tuning", "fixed_norms", "fixing weight and bias of BatchNorm alone"),
    ("fine_tuning", "fixed_norms-eval", "fixing BatchNorm's statistics too"),
    ("branch_tuning", "branches-rate-4", "branches at four times the rate"),
)
BY_OPTIMIZER = (
    ("fine_tuning", "branch_tuning", "branches, by SGD"),
    ("fine_tuning-adam", "branches-adam", "branches, by Adam"),
    ("fine_tuning-lars", "branches-lars-own-norm", "branches, by LARS and their own norm"),
    ("fine_tuning-lars", "branches-lars-kernel-norm", "branches, by LARS and their kernels' norm"),
    ("branches-lars-own-norm", "branches-lars-kernel-norm", "whose norm LARS takes"),
)


def orderings(results: Results, group: str) -> list[str]:
    """Each ordering that the paper reports, pair by pair, with what the seeds say here."""
    lines = []
    for measure, (text, names) in CLAIMS.items():
        values = results.values(group, measure)
        pairs = []
        for low, high in itertools.pairwise(names):
            found = paired(values.get(high, {}), values.get(low, {}))
            if found is None:
                continue
            verdict = {ABOVE: "reproduced", BELOW: "contradicted"}.get(found.verdict, "undecided")
            pairs.append(f"{low} < {high}: {verdict} ({difference(measure, found)})")
        lines.append(f"- {text}: **{claim(values, names)}** here. {'; '.join(pairs)}.")
    return ["\n".join(lines)]


def tuned(page: Page, name: str, results: Results) -> None:
    """The grid of each neighbour on the held-out seed, with its best."""
    for group in results.groups():
        finals = {
            measure: {
                arm: mean_and_deviation(list(seeds.values()))[0]
                for arm, seeds in results.values(group, measure).items()
            }
            for measure in ACCURACIES
        }
        families: dict[str, list[str]] = {}
        for arm, said_of in results.arms.items():
            if all(arm in values for values in finals.values()):
                families.setdefault(said_of["strategy"], []).append(arm)
        rows = []
        for strategy, arms in families.items():
            shown = [
                f"{arm} {number(100 * finals['linear'][arm])} / {number(100 * finals['kNN'][arm])}"
                for arm in arms
            ]
            best = max(arms, key=lambda arm: sum(values[arm] for values in finals.values()))
            rows.append([strategy, "; ".join(shown), best])
        seeds = ", ".join(sorted({str(row.seed) for row in results.rows}))
        caption = f"{titled(group)}, seed {seeds}: linear / kNN of each value"
        head = ["strategy", "what was tried", "taken"]
        page.add(markdown(Table("tuned", caption, head, rows, [], prose=True)))


def probes(page: Page, name: str, results: Results) -> None:
    """The same runs by a probe that learns along and by one afterwards."""
    for group in results.groups():
        rows, gaps = [], []
        for arm in results.arms:
            measured = {
                m: results.values(group, m).get(arm, {}) for m in ("online", "linear", "kNN")
            }
            if not measured["online"]:
                continue
            gap = paired(measured["online"], measured["linear"])
            cells = [cell(m, values, {}, compared=False) for m, values in measured.items()]
            rows.append([arm, *cells, "–" if gap is None else difference("linear", gap)])
            gaps += [] if gap is None else [(arm, gap)]
        head = ["arm", "linear, online", "linear, offline", "kNN", "online − offline"]
        page.add(markdown(Table("probes", titled(group), head, rows, [])))
        page.add(said(gaps, "linear", "the offline probe"))
