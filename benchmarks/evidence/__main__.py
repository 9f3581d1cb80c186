"""What the studies support: ``python -m benchmarks.evidence``.

Reads ``benchmarks/results/study/*.json``, which ``branchtune study`` wrote of the plans in
``benchmarks/studies/``, and writes ``docs/evidence.md`` with its figures, and README's "What to
expect".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from avalanche_branchtune.evaluation.probe import sentence
from avalanche_branchtune.report.formats import Table, markdown, number
from benchmarks.evidence import figures, sections
from benchmarks.evidence.sections import PICTURES, Page, titled
from solo_bridge.study.results import Results, load_results
from solo_bridge.study.statistics import ABOVE, BELOW, FEWEST, UNDECIDED, Difference, paired
from solo_bridge.study.text import MEASURES, NOTE, cell, difference

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "study"
PAGE = ROOT / "docs" / "evidence.md"
README = ROOT / "README.md"
OVERVIEW = (
    "![Branch-tuning − fine-tuning, a line for each stream, schedule and probe]"
    "({}evidence/overview.svg)"
)
BEGIN, END = "<!-- made by benchmarks.evidence -->\n", "<!-- end of what it made -->\n"

SECTIONS: dict[str, tuple[str, Callable[[Page, str, Results], None]]] = {
    "headroom": ("Where is there something to win?", sections.headroom),
    "streams": ("Does Branch-tuning win it?", sections.streams),
    "schedules": ("How does the difference grow with the schedule?", sections.schedules),
    "parts": ("Which part of Branch-tuning matters?", sections.parts),
    "optimizers": ("Does the optimizer decide?", sections.optimizers),
    "tuning": ("The neighbours' weights", sections.tuned),
    "neighbours": ("The neighbours, each with its best weight", sections.neighbours),
    "distillation": ("Why were CaSSLe and Kaizen below fine-tuning?", sections.distillation),
    "probes": ("Online and offline linear probes", sections.probes),
    "demo": ("What may the demo show?", sections.demo),
}
"""Name of a plan → title and what writes its section."""
FEW = "few"
"""Beside the verdicts: comparisons of too few seeds for one."""
ARMS = (sections.FINE, sections.OURS, sections.FROZEN, sections.JOINT)
"""Columns of the first table."""
COUNTED = ("streams", "schedules", "parts", "optimizers", "neighbours", "demo")
"""Plans in which Branch-tuning is compared with fine-tuning under equal settings."""


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("*.svg"):
        old.unlink()
    found = {path.stem: path for path in sorted(RESULTS.glob("*.json"))}
    studies = {name: load_results(found[name]) for name in SECTIONS if name in found}
    page = Page()
    for name, (title, write) in SECTIONS.items():
        page.add(f"## {title}")
        if name not in studies:
            page.add(f"Not run (`benchmarks/studies/{name}.yaml`).")
            continue
        write(page, name, studies[name])
        page.add(*unfinished(studies[name]))
    text = "\n\n".join([*head(studies), *page.parts, *how(studies), *dropped()])
    PAGE.write_text(text + "\n", encoding="utf-8")
    begin, rest = README.read_text(encoding="utf-8").split(BEGIN)
    short = "\n\n".join([opening(studies), OVERVIEW.format("docs/"), runs_sentence(studies)])
    README.write_text(f"{begin}{BEGIN}{short}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def head(studies: dict[str, Results]) -> list[str]:
    """The title and the shortest answer."""
    rows = [
        (f"{titled(group)}, {measure}", found)
        for group, measure in compared(studies, sections.ACCURACIES)
        if (found := against(studies, group, measure, sections.FINE)) is not None
    ]
    overview = figures.forest(rows, "linear", "fine-tuning", "Branch-tuning")
    figures.save(overview, PICTURES / "overview.svg")
    return [
        "# When does Branch-tuning help?",
        "Made by `python -m benchmarks.evidence` from the records in `benchmarks/results/study/`; "
        "the plans that they were run by are in `benchmarks/studies/`.",
        *in_short(studies),
        "These are small networks, small images and short schedules. They say nothing of "
        "the papers' setting (ResNet-18, CIFAR-100, 500 epochs of each experience), for which "
        "`python -m benchmarks.paper` is there.",
        NOTE.format(reference="fine-tuning"),
    ]


def opening(studies: dict[str, Results]) -> str:
    """What Branch-tuning, with the paper's branches and fixed norms, won and lost, at once."""
    counts = counted(studies, sections.FINE)
    few = counts.pop(FEW)
    return (
        "**Branch-tuning with the paper's branches (1×k and k×1, weight and bias of BatchNorm "
        f"fixed) ended above fine-tuning in {counts[ABOVE]} of the {sum(counts.values())} "
        f"comparisons with {FEWEST} seeds or more that could be afforded here, below it in "
        f"{counts[BELOW]}; the seeds leave {counts[UNDECIDED]} undecided.**"
        + (f" {few} more have fewer seeds, and decide nothing." if few else "")
    )


def in_short(studies: dict[str, Results]) -> list[str]:
    """The opening, and what it was counted of."""
    verdicts = counted(studies, sections.FINE)
    number_of = sum(n for verdict, n in verdicts.items() if verdict != FEW)
    frozen = counted(studies, sections.FROZEN)
    inside = between(studies)
    return [
        opening(studies),
        OVERVIEW.format(""),
        f"Against a network that is frozen after its first experience it ended above in "
        f"{frozen[ABOVE]}, below in {frozen[BELOW]}, and {frozen[UNDECIDED]} are undecided. Its "
        f"mean lies between those of fine-tuning and of the frozen network in {sum(inside)} of "
        f"{len(inside)}. {where_it_won(studies)}The two probes of one stream are of the same runs; "
        f"if nothing differed, {number(number_of / 20, 1)} of {number_of} comparisons would be "
        "decided by chance.",
        markdown(table_of(studies, sections.ACCURACIES, "accuracy", ARMS)),
        markdown(table_of(studies, ("S", "P"), "of its layers", ARMS[:2])),
        "\n".join(glossary(studies)),
        runs_sentence(studies),
    ]


def glossary(studies: dict[str, Results]) -> list[str]:
    """What the streams of the first table are."""
    lines = {}
    for group, _ in compared(studies, sections.ACCURACIES):
        facts = next(s.settings[group] for s in studies.values() if group in s.settings)
        name = group.rsplit("-", 2)[0]
        lines[name] = (
            f"- `{name}`: {facts['data']}; {facts['stream']}; {facts['image size']} pixels"
        )
    return list(lines.values())


def where_it_won(studies: dict[str, Results]) -> str:
    """Whether the frozen network was better still."""
    won = [
        frozen.mean < 0
        for group, measure in compared(studies, sections.ACCURACIES)
        if (fine := against(studies, group, measure, sections.FINE)) is not None
        and fine.verdict == ABOVE
        and (frozen := against(studies, group, measure, sections.FROZEN)) is not None
    ]
    if not won:
        return ""
    return (
        "Where it ended above fine-tuning, the frozen network's mean is higher still in "
        f"{sum(won)} of {len(won)}. "
    )


def table_of(
    studies: dict[str, Results], measures: Sequence[str], what: str, arms: Sequence[str]
) -> Table:
    """Each stream and schedule: the arms, and Branch-tuning's difference to each control."""
    controls = [arm for arm in (sections.FINE, sections.FROZEN) if arm in arms]
    head = ["stream, method, schedule", what, *(sections.NAMES[arm] for arm in arms)]
    head += [f"Branch-tuning − {sections.NAMES[arm]}" for arm in controls]
    rows = []
    for group, measure in compared(studies, measures):
        values = {arm: union(studies, group, measure, arm) for arm in arms}
        found = [paired(values[sections.OURS], values[arm]) for arm in controls]
        rows.append(
            [
                titled(group),
                MEASURES[measure][0],
                *(cell(measure, one, {}, compared=False) for one in values.values()),
                *("–" if one is None else difference(measure, one) for one in found),
            ]
        )
    return Table("short", "After the last experience", head, rows, [])


def counted(studies: dict[str, Results], reference: str) -> dict[str, int]:
    """Verdict → how often Branch-tuning differs so from the reference."""
    counts = dict.fromkeys((ABOVE, BELOW, UNDECIDED, FEW), 0)
    for group, measure in compared(studies, sections.ACCURACIES):
        found = against(studies, group, measure, reference)
        if found is not None:
            counts[found.verdict if found.seeds >= FEWEST else FEW] += 1
    return counts


def between(studies: dict[str, Results]) -> list[bool]:
    """Whether Branch-tuning's mean is between fine-tuning's and the frozen network's."""
    inside = []
    for group, measure in compared(studies, sections.ACCURACIES):
        fine = against(studies, group, measure, sections.FINE)
        frozen = against(studies, group, measure, sections.FROZEN)
        if fine is not None and frozen is not None and frozen.seeds >= FEWEST:
            inside.append(fine.mean * frozen.mean < 0)
    return inside


def against(
    studies: dict[str, Results], group: str, measure: str, reference: str
) -> Difference | None:
    """Branch-tuning's difference to the reference on the seeds that both have."""
    arms = (sections.OURS, reference)
    return paired(*(union(studies, group, measure, arm) for arm in arms))


def compared(studies: dict[str, Results], measures: Sequence[str]) -> list[tuple[str, str]]:
    """Groups and measures in which Branch-tuning is compared with fine-tuning, each once."""
    those = [study for name, study in studies.items() if name in COUNTED]
    found = [
        (group, measure)
        for group in dict.fromkeys(group for study in those for group in study.groups())
        for measure in measures
        if against(studies, group, measure, sections.FINE) is not None
    ]
    return sorted(found, key=lambda one: (*by_schedule(one[0]), one[1] != "linear"))


def by_schedule(group: str) -> tuple[str, int]:
    """For sorting: a stream's schedules, the short ones first."""
    stream, epochs = group.rsplit("-", 1)
    return stream, int(epochs)


def union(studies: dict[str, Results], group: str, measure: str, arm: str) -> dict[int, float]:
    """Seed → value, of all studies that are counted and have the arm; they share their runs."""
    found: dict[int, float] = {}
    for name, study in studies.items():
        if name in COUNTED:
            found.update(study.values(group, measure).get(arm, {}))
    return found


def runs_sentence(studies: dict[str, Results]) -> str:
    """How many runs, seeds and core-hours: runs that plans share count once."""
    rows = {(r.group, r.arm, r.seed): r for study in studies.values() for r in study.rows}
    hours = sum(row.seconds for row in rows.values()) / 3600
    seeds = ", ".join(str(seed) for seed in sorted({row.seed for row in rows.values()}))
    return (
        f"{len(rows)} runs, seeds {seeds}, {number(hours, 1)} hours of training and evaluation in "
        "all, one thread a run. Differences are in points of accuracy "
        "after the last experience, between runs of the same seed."
    )


def unfinished(results: Results) -> list[str]:
    """What time cut off, and what failed."""
    parts = []
    left = [name for name in results.left if name not in results.failed]
    if left:
        seeds: dict[str, list[str]] = {}
        for name in left:
            arm, _, seed = name.rpartition("-")
            seeds.setdefault(arm, []).append(seed)
        names = "; ".join(f"{arm} (seeds {', '.join(each)})" for arm, each in seeds.items())
        parts.append(f"Cut off by time: {len(left)} runs: {names}.")
    parts += [f"Failed: {name}: {why}" for name, why in results.failed.items()]
    return parts


def how(studies: dict[str, Results]) -> list[str]:
    """Data, schedules, protocols and machines; what differs within a group is left out."""
    lines, machines = [], list[str]()
    for name, study in studies.items():
        for group, facts in study.settings.items():
            shown = "; ".join(f"{k}: {value}" for k, value in facts.items() if k != "caveat")
            lines.append(f"- {name}, {group}: {shown}")
            for probe, protocol in study.protocols.get(group, {}).items():
                lines.append(f"  - {probe}: {sentence(protocol)}")
        for machine in study.environments:
            versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
            machines.append(
                f"- {machine['processor']}, {machine['cores']} cores, {machine['threads']} thread "
                f"a run, GPU: {machine['gpu'] or 'none'}; Python {machine['python']}, {versions}"
            )
    return ["## How the runs were made", "\n".join([*lines, *dict.fromkeys(machines)])]


def dropped() -> list[str]:
    """What one seed was tried on before the studies, kept or left, from its own record."""
    path = RESULTS / "screening.json"
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    lines = [f"- {name}: {what}" for name, what in content["names"].items()]
    rows = [
        "| stream | epochs | lr | arm | kNN | linear |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for row in content["rows"]:
        rows.append(
            f"| {row['stream']} | {row['epochs']} | {row['lr']} | {row['arm']} | "
            f"{number(100 * row['kNN'][-1])} | {number(100 * row['linear'])} |"
        )
    return [
        "## What was tried before the studies",
        f"{content['what']}. {content['machine']}.",
        "\n".join(lines),
        "\n".join(rows),
    ]


if __name__ == "__main__":
    main()
