"""The command ``branchtune report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from solo_bridge import cli
from tests.run_records import FIRST, joint, run


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(rows=FIRST[:2]).save(tmp_path / "runs" / "a")
    joint().save(tmp_path / "runs" / "b")
    out = tmp_path / "out"
    assert cli.main(["report", str(tmp_path / "runs"), "--out", str(out), "--title", "T"]) == 0
    printed = capsys.readouterr()
    assert "Partial run: fine-tuning, seed 0 finished 2 of 3" in printed.out
    assert printed.out.splitlines()[-1] == str(out / "report.html")
    assert "<h1>T</h1>" in (out / "report.html").read_text(encoding="utf-8")


def test_report_goes_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joint().save(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "runs"]) == 0
    assert (tmp_path / "report" / "report.html").is_file()


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert cli.main(["report", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and printed.err.startswith("branchtune report: ")
    return printed.err


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", tmp_path / "out"]
    assert "no record of a run" in complaint(capsys, tmp_path / "missing", *out)
    assert "has a run.json" in complaint(capsys, tmp_path, *out)
    path = run("two\nlines").save(tmp_path / "a") / "run.json"
    run("two\nlines", 1, settings={}).save(tmp_path / "b")
    said = complaint(capsys, tmp_path / "a", tmp_path / "b", *out)
    assert "settings.data" in said and str(tmp_path / "b") in said
    content = json.loads(path.read_text(encoding="utf-8"))
    content["probes"]["knn"]["accuracies"][1][0] = 1.5
    path.write_text(json.dumps(content), encoding="utf-8")
    said = complaint(capsys, tmp_path / "a", *out)
    assert f"{path}: field 'probes.knn.accuracies[1][0]'" in said
    path.write_bytes(b"\xff\xfe{")
    assert f"{path}: cannot be read" in complaint(capsys, tmp_path / "a", *out)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joint().save(tmp_path / "a")
    (tmp_path / "file").write_text("")
    assert "file" in complaint(capsys, tmp_path / "a", "--out", tmp_path / "file")
