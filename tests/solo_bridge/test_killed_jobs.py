"""Jobs under torchrun of which a process is killed, fails, or is asked to end: none hangs, and all
go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SIGNALS = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
CANNOT = "cannot reach the others: one of them has ended"
BROKEN = "UnreadableImageError: image-3.png is broken"
WITHIN = 30.0
"""Seconds, after which torchrun kills what has not ended."""


def started(folder: Path, what: str) -> subprocess.Popen[str]:
    """Start a job of two processes, see :mod:`tests.job_runs`."""
    command = [sys.executable, "-m", "torch.distributed.run", SIGNALS, "--nproc-per-node=2"]
    with (folder / "out.txt").open("w") as out:
        return subprocess.Popen(
            [*command, "-m", "tests.job_runs", str(folder), what],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            text=True,
        )


def at(folder: Path) -> float:
    """Wait for the moment, and return when it was."""
    while not (found := list(folder.glob("at-*"))):
        time.sleep(0.02)
    time.sleep(0.2)
    return min(float(file.read_text()) for file in found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("whole")
    assert started(folder, "").wait() == 0
    return torch.load(folder / "end.pt")


def assert_goes_on(folder: Path, whole: Any) -> None:
    assert started(folder, "").wait() == 0
    found = torch.load(folder / "end.pt")
    assert all(torch.equal(w, found["weights"][n]) for n, w in whole["weights"].items())
    assert found["results"] == whole["results"]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("1 5 SIGKILL", CANNOT),
        ("0 5 SIGKILL", CANNOT),
        ("0 eval SIGKILL", CANNOT),
        ("0 eval other", CANNOT),
        ("0 write SIGKILL", CANNOT),
        ("1 5 raise", BROKEN),
        ("0 eval raise", BROKEN),
    ],
)
def test_a_process_ends(what: str, said: str, tmp_path: Path, whole: Any) -> None:
    job = started(tmp_path, what)
    begin = at(tmp_path)
    assert job.wait() == 1
    assert time.time() - begin < WITHIN
    assert said in (tmp_path / "out.txt").read_text()
    assert_goes_on(tmp_path, whole)


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("0 5 wait1", signal.SIGTERM),
        ("0 5 wait1", signal.SIGINT),
        ("0 5 wait1", signal.SIGUSR1),
        ("0 eval wait3", signal.SIGTERM),
        ("1 5 SIGTERM", None),
        ("all 5 SIGUSR1", None),
    ],
)
def test_asked_to_end(what: str, number: signal.Signals | None, tmp_path: Path, whole: Any) -> None:
    job = started(tmp_path, what)
    begin = at(tmp_path)
    if number is not None:
        job.send_signal(number)
    assert job.wait() == 1, "torchrun's own status"
    assert time.time() - begin < WITHIN
    sidecar = json.loads((tmp_path / "state" / "sidecar.json").read_text())
    assert sidecar["state"] == "interrupted"
    assert sidecar["signal"] == (number.name if number is not None else what.split()[-1])
    assert "(SIGTERM)" not in (tmp_path / "out.txt").read_text(), "no rank dies of torchrun's own"
    within = "midway-*" if "eval" not in what else "state-000002*"
    assert list((tmp_path / "state").glob(within))
    assert_goes_on(tmp_path, whole)
