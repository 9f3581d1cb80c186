"""The demo, shortened, as a user runs it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from avalanche_branchtune.records import load_run
from avalanche_branchtune.streams import digits_on_photographs
from solo_bridge.cli import main


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> object:
    # The page shows the SVG; tests of the report look at the other files.
    monkeypatch.setattr("avalanche_branchtune.report.figures.style.FORMATS", ("svg",))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_demo_compares_and_writes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["--epochs", "1", "--samples", "300", "--jobs", "2"]
    assert main(["demo", "--out", str(out), *words]) == 0
    printed = capfd.readouterr()
    folders = {"fine-tuning": "fine_tuning", "Branch-tuning": "branch_tuning"}
    folders |= {"frozen": "frozen", "joint": "joint"}
    runs = {name: load_run(out / f"{folder}-0") for name, folder in folders.items()}
    curves = {name: run.probes["kNN"].overall for name, run in runs.items()}
    assert {n: len(a) for n, a in curves.items()} == {
        "fine-tuning": 5,
        "Branch-tuning": 5,
        "frozen": 5,
        "joint": 1,
    }
    assert curves["fine-tuning"][0] == curves["Branch-tuning"][0], "the first experience is alike"
    assert curves["fine-tuning"][1:] != curves["Branch-tuning"][1:]
    assert len(set(curves["frozen"])) == 1
    untrained = {run.probes["kNN"].random_overall for run in runs.values()}
    assert len(untrained) == 1, "all start from one network"
    for name, accuracies in [*curves.items(), ("before", list(untrained))]:
        assert name in printed.out.lower() or name in printed.out
        assert f"{100 * accuracies[-1]:.1f}" in printed.out
    assert runs["joint"].stability == [], "it is the reference"
    for name in ("fine-tuning", "Branch-tuning"):
        layers = runs[name].stability[-1]
        assert len(layers) > 10 and 0.5 < sum(layers.values()) / len(layers) <= 1.0
        assert len(runs[name].plasticity[-1]) == len(layers)
    assert runs["fine-tuning"].branch_norms == [{}] * 5
    assert min(runs["Branch-tuning"].branch_norms[-1].values()) > 0
    assert "weighted kNN, k 20, T 0.07, distance cosine" in printed.out
    assert "Branch-tuning" in (out / "report.html").read_text(encoding="utf-8")
    assert main(["demo", "--out", str(out), "--samples", "300"]) == 2
    assert "this one has epochs 16 instead of 1. Choose another" in capfd.readouterr().err


def test_example_runs_on_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, samples in (("train", 160), ("test", 60)):
        data = digits_on_photographs(split == "train", samples=samples)
        for i in range(len(data)):
            image, label = data[i]
            if label < 4:
                folder = tmp_path / split / str(label)
                folder.mkdir(parents=True, exist_ok=True)
                image.save(folder / f"{i}.png")
    script = Path(__file__).parents[2] / "examples" / "image_folder.py"
    options = ["--experiences", "2", "--epochs", "1", "--size", "16", "--workers", "0"]
    out = ["--out", str(tmp_path / "runs")]
    monkeypatch.setattr(
        sys, "argv", [str(script), str(tmp_path), *options, "--device", "cpu", *out]
    )
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    for name in ("fine-tuning", "Branch-tuning"):
        for experience in (0, 1):
            assert f"{name}, after experience {experience}: " in printed
    assert (tmp_path / "runs/report.html").is_file() and "report.html" in printed
