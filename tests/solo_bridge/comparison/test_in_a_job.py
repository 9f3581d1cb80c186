"""Strategies that a job of several processes trains one after the other, all together."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from avalanche.core import SupervisedPlugin

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints.lock import LOCK
from avalanche_branchtune.errors import BranchTuneError
from avalanche_branchtune.records import load_run
from solo_bridge import registry
from solo_bridge.apart import Stopped
from solo_bridge.comparison import REFERENCE, Comparison, compare
from solo_bridge.comparison.asked import asked
from tests.jobs import in_job

SMALL = Comparison(samples=80, epochs=2, experiences=2, width=4, batch=20, lr=0.01)
SPECS = ["joint", "fine_tuning", "branch_tuning", "branch_tuning+cassle"]


def compared(specs: list[str], comparison: Comparison, out: str) -> list[Any]:
    """Compare as the command does; what each rank returns and prints."""
    done: list[Any] = []
    runs = compare(specs, comparison, out, separate=True, done=done.append)
    assert [run.content() for run in done] == [run.content() for run in runs]
    return [run.content() for run in runs]


def values(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()


def assert_like(one: Path, several: Path) -> None:
    """All numbers of a record but for rounding, which a larger learning rate would amplify, as it
    does with another number of threads in one process."""
    first, other = load_run(one), load_run(several)
    assert first.settings == other.settings and first.parameters == other.parameters
    assert first.environment.pop("processes") == 1 and other.environment.pop("processes") == 2
    assert first.environment == other.environment
    for name, probe in first.probes.items():
        found = other.probes[name]
        far = np.subtract(probe.accuracies, found.accuracies)
        assert np.abs(far).max() < 0.005, name
        assert probe.protocol == found.protocol and probe.random_overall == found.random_overall
    for kind in ("stability", "plasticity", "branch_norms"):
        for mine, theirs in zip(getattr(first, kind), getattr(other, kind), strict=True):
            assert mine == pytest.approx(theirs, abs=1e-4), kind
    names = [[line.split(",")[3] for line in values(folder)] for folder in (one, several)]
    assert names[0] == names[1], "no line twice"


@pytest.mark.slow
def test_two_processes_write_the_records_of_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    compare(SPECS, SMALL, one)
    capfd.readouterr()
    told, others = in_job(2, compared, SPECS, SMALL, str(two))
    assert told == others, "every rank has the records"
    lines = capfd.readouterr().err.splitlines()
    assert len([line for line in lines if ": experience 2 of 2, loss" in line]) == 3
    for spec in SPECS:
        assert_like(one / f"{spec}-0", two / f"{spec}-0")
        known = asked(two / f"{spec}-0")
        assert known is not None and known.finished and known.separate
        files = [{p.name for p in (out / f"{spec}-0").iterdir()} for out in (one, two)]
        assert files[0] == files[1], "no checkpoints, no locks"
    assert (two / "joint-0" / REFERENCE).is_file()
    assert not (two / LOCK).exists()


def complained(some: list[tuple[Comparison, int]], out: str) -> list[str]:
    """What is said of each comparison and its number of jobs."""
    found = []
    for comparison, jobs in some:
        with pytest.raises(BranchTuneError) as error:
            compare(["frozen"], comparison, out, jobs=jobs)
        found.append(f"{error.typename}: {error.value}")
    return found


def test_what_a_job_cannot_do_is_refused_before_training(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, other = in_job(2, complained, [(replace(SMALL, batch=21), 1), (SMALL, 2)], str(out))
    assert "BatchSizeError" in first[0] and "2 processes cannot share it equally" in first[0]
    assert first[1].startswith("UnknownOptionError: jobs 2: the 2 processes of a job train one")
    assert all(said.startswith("OtherProcessError: the first of the job's") for said in other)
    assert not out.exists()


def torchrun(*words: str, folder: Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*start, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )


def own_lines(text: str) -> list[str]:
    """What is not torchrun's own."""
    return [line for line in text.splitlines() if not re.match(r"[WE]\d{4} ", line)]


@pytest.mark.slow
def test_the_command_under_torchrun(tmp_path: Path) -> None:
    words = ("--strategies", "fine_tuning", "--samples", "200", "--epochs", "1")
    done = torchrun("-m", "branchtune", "compare", *words, "--out", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Summary, probe kNN") == 1 and "look at out/report.html" in done.stdout
    assert "processes: 2, which share each minibatch" in done.stdout
    said = own_lines(done.stderr)
    assert len(said) == 5 and all("fine-tuning: experience" in line for line in said)
    again = torchrun("-m", "branchtune", "resume", "out", folder=tmp_path)
    assert again.returncode == 0 and again.stdout.count("all runs are finished") == 1
    status = torchrun("-m", "branchtune", "status", "out", folder=tmp_path)
    assert status.stdout.count("fine_tuning-0") == 1
    bad = torchrun("-m", "branchtune", "compare", *words[2:], "--strategies", "x", folder=tmp_path)
    assert bad.returncode == 1, "torchrun's"
    said = [line for line in own_lines(bad.stderr) if line.startswith("branchtune compare: ")]
    assert len(said) == 1 and "'x'" in said[0] and "[rank" not in bad.stderr


class Mine(SupervisedPlugin, supports_distributed=True):
    """Sends the process SIGTERM at a step, where it is told so."""

    at = -1

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_iterations == self.at and ranks.leads():
            os.kill(os.getpid(), signal.SIGTERM)


def gone_on(at: int, out: str) -> str:
    Mine.at = at
    registry.register("mine", "mine")(Mine)
    try:
        compare(["cassle+mine"], SMALL, out)
        return "finished"
    except Stopped:
        return "stopped"
    finally:
        del registry.ENTRIES["mine"]
        gc.collect()  # a strategy that was stopped keeps its folder until it is no more


@pytest.mark.slow
@pytest.mark.parametrize("begun", [1, 2])
def test_a_comparison_goes_on_in_another_number_of_processes(begun: int, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    for processes, at, how in ((begun, 5, "stopped"), (3 - begun, -1, "finished")):
        if processes == 1:
            assert gone_on(at, str(out)) == how
        else:
            assert in_job(2, gone_on, at, str(out)) == [how, how]
    assert gone_on(-1, str(whole)) == "finished"
    run = load_run(out / "cassle+mine-0")
    assert run.environment["processes"] == [begun, 3 - begun]
    run.environment["processes"] = 2
    run.save(out / "cassle+mine-0")
    assert_like(whole / "cassle+mine-0", out / "cassle+mine-0")
