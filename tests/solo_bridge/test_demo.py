"""The demo, shortened, as a user runs it."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from avalanche_branchtune.streams import digits_on_photographs
from solo_bridge.__main__ import main


@pytest.fixture(autouse=True)
def _threads() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_demo_compares_and_writes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["demo", "--out", str(out), "--epochs", "3", "--samples", "700"]) == 0
    printed = capfd.readouterr()
    saved = json.loads((out / "results.json").read_text(encoding="utf-8"))
    curves = {c["name"]: c["accuracies"] for c in saved["curves"]}
    assert {n: len(a) for n, a in curves.items()} == {
        "fine-tuning": 5,
        "Branch-tuning": 5,
        "joint": 1,
        "random network": 1,
    }
    assert curves["fine-tuning"][0] == curves["Branch-tuning"][0], "the first experience is alike"
    assert curves["fine-tuning"][1:] != curves["Branch-tuning"][1:]
    for name, accuracies in curves.items():
        assert name in printed.out
        assert f"{100 * accuracies[-1]:.1f}" in printed.out
    analysed = {c["name"]: (c["stability"], c["plasticity"]) for c in saved["curves"]}
    assert analysed["joint"] == (None, None)
    for name in ("fine-tuning", "Branch-tuning"):
        assert 0.5 < analysed[name][0] <= 1.0
        assert f"{analysed[name][0]:.3f}" in printed.out
    assert "weighted kNN (k 20, T 0.07, cosine)" in printed.out
    assert "fine-tuning" in printed.err, "progress bars"
    assert (out / "results.csv").is_file()
    assert (out / "curves.png").stat().st_size > 10_000


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
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), *options, "--device", "cpu"])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    for name in ("fine-tuning", "Branch-tuning"):
        for experience in (0, 1):
            assert f"{name}, after experience {experience}: " in printed
    assert "MiB; weighted kNN" in printed
