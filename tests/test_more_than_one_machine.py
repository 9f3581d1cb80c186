"""docs/more-than-one-machine.md: its snippets; docs/processes.md: its tables, and their counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avalanche_branchtune import expand, fix_norms
from avalanche_branchtune.parts import backbone_scope
from benchmarks.processes import made, tables
from benchmarks.scaling import sent, work_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "more-than-one-machine.md").read_text(encoding="utf-8")
TABLES = (ROOT / "docs" / "processes.md").read_text(encoding="utf-8")
MEASURED = json.loads((ROOT / "benchmarks" / "results" / "processes-cpu.json").read_text("utf-8"))


def snippets(language: str) -> list[str]:
    return [part.split("```")[0] for part in PAGE.split(f"```{language}\n")[1:]]


def part(name: str) -> str:
    found = TABLES.split(f"<!-- {name}: made by")[1].split("-->", 1)[1]
    return found.split("<!-- end of")[0].strip()


def test_measured_tables_are_those_of_the_results() -> None:
    assert part("measured") == tables(MEASURED).strip()


@pytest.mark.parametrize("form", ["fine-tuning", "Branch-tuning"])
def test_what_a_step_sends_is_counted_as_it_was_measured(form: str) -> None:
    model = made("small ResNet")
    if form == "Branch-tuning":
        fix_norms(model, "affine")
        expand(model, scope=backbone_scope(model))
    for job, measured in MEASURED["steps"]["small ResNet"][form].items():
        processes, share = map(int, job.split(" × "))
        if processes == 1:
            continue
        expected = sent(work_of(model, 256), processes * share, processes)
        assert set(measured["sent"]) == set(expected)
        for kind, (messages, size) in expected.items():
            assert measured["sent"][kind]["calls"] == messages, kind
            assert measured["sent"][kind]["bytes"] == pytest.approx(size, rel=0.003), kind


@pytest.mark.parametrize("script", snippets("bash"))
def test_shell_snippets_can_be_read(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_script_runs_under_torchrun_and_goes_on(tmp_path: Path) -> None:
    whole, plugin = snippets("python")
    script = whole.replace("digits_on_photographs()", "digits_on_photographs(samples=1280)")
    script = f"{plugin}\n\n{script}".replace("plugins=[", "plugins=[SmallestLoss(), ")
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    command: list[Any] = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--standalone", "--nproc-per-node=2", "script.py"]
    for printed in (10, 0):  # steps of rank 0, five experiences of two epochs; then nothing is left
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("smallest loss so far") == printed
