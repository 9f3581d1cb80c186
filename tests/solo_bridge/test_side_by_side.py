"""Several works at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from avalanche_branchtune.errors import UnknownOptionError


def work(folder: str, name: str, until: str = "", error: str = "") -> None:
    """Say that it has begun, wait for a file of another one, and fail if it is to."""
    Path(folder, f"{name} begun").touch()
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
