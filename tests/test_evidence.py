"""What docs/evidence.md says follows from its records, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.evidence import __main__ as evidence
from benchmarks.evidence import figures, sections
from solo_bridge.study.results import Results, Row

GROUP = "digits-simclr-60"


def results(ours: float, spread: float = 0.001, **others: float) -> Results:
    """Three seeds of fine-tuning at 50 %, joint training at 60 %, Branch-tuning and others."""
    means = {"fine_tuning": 0.5, "joint": 0.6, "branch_tuning": ours, **others}
    rows = []
    for place, (arm, mean) in enumerate(means.items()):
        for seed in (0, 1, 2):
            value = mean + spread * (place * seed % 7)
            series = [] if arm == "joint" else [None, value]
            layers = {} if arm == "joint" else {"conv": (mean, mean), "bn": (mean, None)}
            accuracies = {probe: [0.1, value] for probe in ("kNN", "linear")}
            rows.append(Row(GROUP, arm, seed, accuracies, series, series, layers, 3600.0))
    arms = {arm: {"strategy": arm, "options": {}, "settings": {}} for arm in means}
    machine = {
        "processor": "P",
        "cores": 2,
        "threads": 1,
        "gpu": None,
        "python": "3",
        "versions": {},
    }
    return Results(
        "Why?",
        "fine_tuning",
        arms,
        {GROUP: {"data": "d", "stream": "s", "image size": 8}},
        {},
        [machine],
        rows,
        ["x/y-0", "x/y-1", "x/z-0"],
        {"x/z-0": "no"},
    )


@pytest.fixture()
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write to a folder of its own; figures are drawn but not kept."""
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{evidence.BEGIN}old\n{evidence.END}after\n", encoding="utf-8")
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    monkeypatch.setattr(evidence, "PAGE", tmp_path / "evidence.md")
    monkeypatch.setattr(evidence, "README", readme)
    for module in (evidence, sections):
        monkeypatch.setattr(module, "PICTURES", tmp_path / "evidence")
    monkeypatch.setattr(figures, "save", lambda picture, path: None)
    return tmp_path


@pytest.mark.parametrize(
    ("ours", "spread", "opening", "where"),
    [
        (
            0.55,
            0.001,
            "above fine-tuning in 2 of the 2 ",
            "| digits, simclr, 60 epochs | linear, offline | 50.0 ± 0.0 | 55.2 ± 0.2 | – |",
        ),
        (
            0.45,
            0.001,
            "2 comparisons with 3 seeds or more that could be afforded here, below it in 2;",
            "| digits, simclr, 60 epochs | linear, offline | 50.0 ± 0.0 | 45.2 ± 0.2 | – |",
        ),
        (
            0.5,
            0.0,
            "below it in 0; the seeds leave 2 undecided",
            "| – | 60.0 ± 0.0 | 0.0 \\[0.0, 0.0\\] | – |",
        ),
    ],
)
def test_the_opening_is_what_the_seeds_support(
    written: Path, ours: float, spread: float, opening: str, where: str
) -> None:
    results(ours, spread).save(written / "streams.json")
    evidence.main()
    page = (written / "evidence.md").read_text(encoding="utf-8")
    assert opening in page and where in page
    assert "9 runs, seeds 0, 1, 2, 9.0 hours" in page
    assert "Cut off by time: 2 runs: x/y (seeds 0, 1)." in page and "Failed: x/z-0: no" in page
    assert "Not run (`benchmarks/studies/schedules.yaml`)" in page
    readme = (written / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("before\n") and readme.endswith("after\n")
    assert opening in readme and "old" not in readme


def test_too_few_seeds_are_counted_apart(written: Path) -> None:
    every = results(0.55)
    few = replace(every, rows=[row for row in every.rows if row.seed < 2])
    few.save(written / "streams.json")
    evidence.main()
    page = (written / "evidence.md").read_text(encoding="utf-8")
    assert "in 0 of the 0 comparisons with 3 seeds" in page and "2 more have fewer seeds" in page
    assert "the seeds leave 0 undecided" in page


def test_a_frozen_network_is_the_other_control(written: Path) -> None:
    results(0.45, frozen=0.4).save(written / "streams.json")
    evidence.main()
    page = (written / "evidence.md").read_text(encoding="utf-8")
    assert "above in 2, below in 0, and 0 are undecided" in page
    assert "those of fine-tuning and of the frozen network in 2 of 2." in page
    results(0.55, frozen=0.6).save(written / "streams.json")
    evidence.main()
    page = (written / "evidence.md").read_text(encoding="utf-8")
    assert "the frozen network's mean is higher still in 2 of 2." in page
    assert "In 6 of 6 Branch-tuning is on the side of fine-tuning" in page
    assert "in 6 it is nearer to fine-tuning than freezing" in page
    results(0.35, frozen=0.4).save(written / "streams.json")
    evidence.main()
    page = (written / "evidence.md").read_text(encoding="utf-8")
    assert "above in 0, below in 2" in page and "frozen network in 0 of 2." in page


def test_runs_that_plans_share_count_once(written: Path) -> None:
    results(0.5).save(written / "streams.json")
    results(0.5, frozen=0.4).save(written / "parts.json")
    evidence.main()
    page = (written / "evidence.md").read_text(encoding="utf-8")
    assert "12 runs, seeds" in page


def test_the_papers_orderings_are_judged_pair_by_pair() -> None:
    names = {"branches-1x1": 0.48, "branches-3x3": 0.46, "frozen": 0.3}
    text = "\n".join(sections.orderings(results(0.49, **names), GROUP))
    assert "fine_tuning < branch_tuning: contradicted (−0.0" in text, "S"
    assert "frozen < branches-1x1: reproduced (+0.1" in text
    assert "branch_tuning < branches-3x3: contradicted (−0.0" in text
    assert "**contradicted** here" in text
    names = {"branches-1x1": 0.44, "branches-3x3": 0.47, "frozen": 0.3}
    text = "\n".join(sections.orderings(results(0.46, **names), GROUP))
    assert "< fine-tuning .84: **supported** here" in text


def test_the_page_is_made_of_the_committed_records(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[1]
    monkeypatch.setattr(evidence, "RESULTS", root / "benchmarks" / "results" / "study")
    evidence.main()
    page = (root / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert (written / "evidence.md").read_text(encoding="utf-8") == page
    made = (written / "README.md").read_text(encoding="utf-8").split(evidence.BEGIN)[1]
    assert made.split(evidence.END)[0] in (root / "README.md").read_text(encoding="utf-8")
