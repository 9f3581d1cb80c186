"""``benchmarks.paper``: what it asks for, and a tiny run of it from the download to the tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets import CIFAR100

from avalanche_branchtune.records import Run, load_run
from benchmarks import paper
from solo_bridge.comparison.works import Work
from solo_bridge.study import estimate, running
from solo_bridge.study.results import Results, Row
from tests.fake_cifar import fake_cifar

TINY = ["--size", "8", "--batch", "8", "--epochs", "1", "--experiences", "2", "--methods", "simclr"]
ONE = [*TINY, "--seeds", "3", "--probes", "knn,online"]


def planned(*words: str) -> Any:
    return paper.plan(paper.options_of(words))


def test_it_asks_for_the_papers_runs() -> None:
    jobs = planned().jobs()
    assert len(jobs) == 4 * 5 * 3
    first = jobs[0].comparison
    assert (first.data, first.size, first.batch, first.epochs) == ("cifar100:data", 32, 256, 500)
    assert {job.comparison.preset for job in jobs} == {"branch_tuning/cifar100"}
    assert {job.comparison.method for job in jobs} == set(paper.METHODS)
    assert {job.arm for job in jobs} == set(paper.ARMS)
    assert {job.group for job in jobs[:5]} == {"branch_tuning-cifar100-5-simclr-500"}
    assert first.overridden().keys() <= {"precision"}, "of a CPU"

    ten = planned("--experiences", "10", "--data", "folder", "--per-class", "7").jobs()[0]
    assert ten.group.startswith("branch_tuning-cifar100-10-")
    assert ten.comparison.overridden()["training images of each class"] == "7 instead of all"
    other = planned("--preset", "cassle/cifar100", "--methods", "vicreg", "--seeds", "4")
    assert [job.arm for job in other.jobs()] == ["joint", "fine_tuning", "cassle"]
    assert other.jobs()[0].comparison.command == (
        "python -m benchmarks.paper --preset cassle/cifar100 --methods vicreg "
        "--probes knn,linear,online --device cpu --workers 0"
    )


def test_what_cannot_be_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CIFAR100, "url", (tmp_path / "no network").as_uri())
    out = ["--out", str(tmp_path / "out")]
    assert paper.main([*out, "--data", f"cifar100:{tmp_path}"]) == 2
    assert "cannot be downloaded" in (said := capsys.readouterr().err) and "pass --data DIR" in said
    assert paper.main([*out, "--preset", "lump/cifar10"]) == 2
    assert "of CIFAR-10: pass the folder" in capsys.readouterr().err
    assert paper.main([*out, "--methods", "simclr,simclr"]) == 2
    assert not (tmp_path / "out").exists()


def in_this_process(
    works: Sequence[Work],
    jobs: int,
    imports: Sequence[str],
    how: dict[str, Any],
    done: Callable[[Run], None],
    go_on: Callable[[], bool],
    keep_failures: bool,
) -> None:
    for work in works:
        work.comparison.run(work.spec, work.out, **how)


def trained_nothing(plan: Any, out: Path, **how: Any) -> running.Progress:
    state = running.run_study(plan, out, **{**how, "hours": 1e-9})
    assert not state.left
    return state


@pytest.mark.slow
def test_from_the_download_to_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_cifar(tmp_path, monkeypatch)
    monkeypatch.setattr(running, "run_works", in_this_process)
    out, data = tmp_path / "out", f"cifar100:{tmp_path / 'data'}"
    words = [*ONE, "--data", data, "--out", str(out), "--per-class", "6"]
    words += ["--strategies", "fine_tuning,joint"]
    assert paper.main(words) == 0
    said = capsys.readouterr().out
    assert "**branch\\_tuning-cifar100-2-simclr-1**" in said
    assert "published" not in said, "nothing was published of 2 experiences"
    run = load_run(out / "branch_tuning-cifar100-2-simclr-1" / "fine_tuning-3")
    assert run.settings["overridden"] == (
        "image size 8 instead of 32, experiences 2 instead of 5, epochs 1 instead of 500, batch "
        "size 8 instead of 256, training images of each class 6 instead of all, warm-up a tenth of "
        "the epochs, at most 10, instead of 10, precision bf16 instead of 16, on a CPU"
    )
    assert run.settings["data"] == f"{data}, 6 training images of each class"
    assert run.probes["kNN"].protocol["training images"] == 24
    rows = json.loads((out / "paper.json").read_text())["rows"]
    assert {row["arm"] for row in rows} == {"fine_tuning", "joint"}
    assert all(row["accuracies"]["online"] for row in rows)

    (tmp_path / "served.tar.gz").unlink()
    monkeypatch.setattr(paper, "run_study", trained_nothing)
    assert paper.main(words) == 0
    assert said == capsys.readouterr().out == f"{(out / 'paper.md').read_text()}\n{out}/paper.md\n"


def test_published_figures_stand_beside_what_was_found() -> None:
    asked = planned("--methods", "byol", "--epochs", "3", "--seeds", "0,1")
    group = asked.jobs()[0].group
    rows = [Row(group, "cassle", seed, {"online": [0.1, 0.4 + seed / 50]}) for seed in (0, 1)]
    results = Results("", "fine_tuning", {arm: {} for arm in paper.ARMS}, {}, {}, [], rows, [], {})
    (table,) = paper.beside(results, asked)
    assert table.head == [
        "arm",
        "found: linear, online",
        "published; probe as in the source, sources differ",
    ]
    assert table.rows[0] == ["fine_tuning", "–", "52.7"]
    assert table.rows[2] == ["cassle", "41.0 ± 1.4 (2 seeds)", "62.2"]
    assert "epochs 3 instead of 500" in table.notes[0]
    assert table.notes[0].endswith(": the columns cannot be compared.")
    assert paper.beside(results, planned("--experiences", "10")) == []


def test_hours_are_measured_without_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimate, "WARM_UP", 0)
    few = ["--per-class", "1", "--test-per-class", "1", "--strategies", "branch_tuning"]
    assert paper.main([*ONE, *few, "--estimate", "--steps", "1", "--probes", "knn"]) == 0
    said = capsys.readouterr().out
    steps = 2 * (50 // 8)
    assert f"branch_tuning-cifar100-2-simclr-1/branch_tuning     {steps} " in said
    assert "data: random images, 1 of each of 100 classes" in said and "all 1 runs" in said
