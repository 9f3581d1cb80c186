"""Several works at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge.commands.training import jobs
from solo_bridge.side_by_side import places_of


def work(folder: str, name: str, until: str = "", error: str = "") -> None:
    """Say that it has begun, wait for a file of another one, and fail if it is to."""
    place = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    Path(folder, f"{name} begun").write_text(place, encoding="utf-8")
    limit = time.monotonic() + 60
    while until and not Path(folder, until).exists():
        assert time.monotonic() < limit
        time.sleep(0.01)
    if error:
        raise UnknownOptionError(error)
    time.sleep(0.5)
    Path(folder, f"{name} ended").touch()


HEAD = """
import os, signal, sys, threading, time
from pathlib import Path
from solo_bridge.apart import Stopped, stoppable
from solo_bridge.side_by_side import run_side_by_side
from tests.solo_bridge.test_apart import patient_work
from tests.solo_bridge.test_side_by_side import work
folder = Path(sys.argv[1])
def task(name, *how): return name, work, (str(folder), name, *how)
"""


def said(code: str, folder: Path) -> tuple[list[str], list[str]]:
    """Run code in a process that has imported little; return the lines of what it says."""
    command = [sys.executable, "-c", HEAD + code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_as_many_as_asked_and_what_follows_is_next(tmp_path: Path) -> None:
    code = """
def ended(name):
    print(name, "|", *sorted(path.name for path in folder.glob("* begun")))
    return [task("follows")] if name == "first" else []
tasks = [task("first", "second begun"), task("second", "follows ended"), task("third")]
run_side_by_side(tasks, 2, ended)
"""
    lines, _ = said(code, tmp_path)
    assert lines[:2] == [
        "first | first begun second begun",
        "follows | first begun follows begun second begun",
    ]
    assert sorted(line.split(" |")[0] for line in lines[2:]) == ["second", "third"]


def test_they_are_shared_out_among_places(tmp_path: Path) -> None:
    code = """
places = [{"CUDA_VISIBLE_DEVICES": "a"}, {"CUDA_VISIBLE_DEVICES": "b"}]
tasks = [task("1", "2 begun"), task("2", "1 begun"), task("3", "4 begun"), task("4", "3 begun")]
run_side_by_side(tasks, 2, places=places)
print("here", os.environ.get("CUDA_VISIBLE_DEVICES"))
"""
    lines, _ = said(code, tmp_path)
    assert lines == ["here None"]
    on = {path.name[0]: path.read_text() for path in tmp_path.glob("* begun")}
    assert {on["1"], on["2"]} == {on["3"], on["4"]} == {"a", "b"}


@pytest.mark.parametrize(
    ("device", "count", "visible", "expected"),
    [
        ("cpu", 4, None, [None]),
        ("cuda", 1, None, [None]),
        ("cuda:1", 4, None, [None]),
        ("cuda", 3, None, ["0", "1", "2"]),
        ("cuda", 2, "5, GPU-ab,-1,3", ["5", "GPU-ab"]),
    ],
)
def test_a_place_for_each_gpu(
    device: str,
    count: int,
    visible: str | None,
    expected: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [place.get("CUDA_VISIBLE_DEVICES") for place in places_of(device)] == expected
    if device != "cpu":
        assert jobs(None, device, 1) == len(expected)


def test_one_that_fails_lets_those_beside_it_finish(tmp_path: Path) -> None:
    code = """
tasks = [task("slow", "bad begun"), task("bad", "slow begun", "got 2"), task("never")]
try: run_side_by_side(tasks, 2)
except ValueError as error: print(error)
"""
    lines, complaint = said(code, tmp_path)
    assert lines == ["bad: got 2"]
    assert complaint == ["bad: got 2; what runs beside it is finished first"]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["bad begun", "slow begun", "slow ended"]


def test_all_are_asked_to_end_and_save(tmp_path: Path) -> None:
    """Also after one of them ended by a signal of its own: that was not for the others."""
    code = """
both = [folder / "a", folder / "b"]
for one in both: one.mkdir()
def ask():
    while not all((one / "listens").exists() for one in both): time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=ask, daemon=True).start()
tasks = [(one.name, patient_work, (str(one),)) for one in both]
tasks.insert(0, ("alone", signal.raise_signal, (signal.SIGUSR1,)))
with stoppable():
    try: run_side_by_side(tasks, 3)
    except Stopped as error: print(error, error.status)
print(*((one / "saved").read_text() for one in both))
"""
    lines, complaint = said(code, tmp_path)
    assert lines == ["interrupted by SIGTERM 143", "SIGTERM SIGTERM"] and complaint == []
