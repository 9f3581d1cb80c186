"""Work in a process of its own ends with its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from avalanche_branchtune.checkpoints.signals import AT_ONCE, Requests
from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge.apart import Stopped, stoppable


def _wait_long() -> None:
    time.sleep(120)


def long_work(folder: str) -> None:
    """Have a worker, as a data loader has, and say so."""
    worker = multiprocessing.get_context("fork").Process(target=_wait_long, daemon=True)
    worker.start()
    Path(folder, "part").write_text(f"{os.getpid()} {worker.pid}", encoding="utf-8")
    Path(folder, "part").rename(Path(folder, "pids"))
    _wait_long()


def patient_work(folder: str) -> None:
    """Listen to what asks to end, as Checkpoints does, and save in the end."""
    requests = Requests(75)
    with requests.heard():
        Path(folder, "listens").touch()
        while requests.status is None:
            time.sleep(0.01)
        time.sleep(0.3)  # the step, in which the same request may come by another way
        Path(folder, "saved").write_text(str(requests.signal), encoding="utf-8")
        raise SystemExit(requests.status)


def stubborn_work(folder: str) -> None:
    """Listen, and take a long step."""
    with Requests(75).heard():
        Path(folder, "listens").touch()
        while True:
            time.sleep(0.01)


def fail(kind: str) -> None:
    """End in a way that is not the usual one."""
    if kind == "refused":
        raise UnknownOptionError("mine: expected 1; got 2")
    if kind == "at length":
        raise UnknownOptionError("mine: " + 1_000_000 * "1")
    if kind == "system":
        raise OSError(28, "No space left on device", "run.json")
    if kind == "unexpected":
        raise ZeroDivisionError
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import signal\n"  # ignored where the tests were started in the background
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from solo_bridge.apart import Stopped, stoppable\n"
        "from solo_bridge.side_by_side import run_side_by_side\n"
        "from tests.solo_bridge.test_apart import long_work\n"
        "with stoppable():\n"
        "    try: run_side_by_side([('long', long_work, (" + repr(str(tmp_path)) + ",))])\n"
        "    except Stopped as error: print(error, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "pids").exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        found = [psutil.Process(int(p)) for p in (tmp_path / "pids").read_text().split()]
        process.send_signal(number)
        said, complaint = process.communicate(timeout=20)
        _, alive = psutil.wait_procs(found, timeout=10)
        assert alive == []
    finally:
        process.kill()
        process.communicate()  # else its pipes would be complained of in whichever test comes then
    assert said == ("" if number == signal.SIGKILL else f"interrupted by {number.name}\n")
    assert "Traceback" not in complaint


def work_of_a_worker_that_is_ended_while_it_is_made(folder: str) -> None:
    os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
    worker = multiprocessing.get_context("fork").Process(target=_wait_long, daemon=True)
    worker.start()
    worker.join(20)
    Path(folder, "ended").write_text(str(worker.exitcode), encoding="utf-8")
    worker.kill()


def test_a_worker_can_be_ended_as_soon_as_it_is_there(tmp_path: Path) -> None:
    code = (
        "from solo_bridge.side_by_side import run_side_by_side\n"
        "from tests.solo_bridge.test_apart import work_of_a_worker_that_is_ended_while_it_is_made\n"
        "work = work_of_a_worker_that_is_ended_while_it_is_made\n"
        f"run_side_by_side([('work', work, ({str(tmp_path)!r},))])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert (tmp_path / "ended").read_text(encoding="utf-8") == "-15"


def ask(work: str, folder: Path, numbers: list[signal.Signals], group: bool) -> str:
    """Ask a process to end whose work is done apart; return what it says."""
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from solo_bridge.apart import Stopped, stoppable\n"
        "from solo_bridge.side_by_side import run_side_by_side\n"
        f"from tests.solo_bridge.test_apart import {work}\n"
        "with stoppable():\n"
        f"    try: run_side_by_side([('work', {work}, ({str(folder)!r},))])\n"
        "    except Stopped as error: print(error, error.status, flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not (folder / "listens").exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        for number in numbers:
            os.killpg(process.pid, number) if group else process.send_signal(number)
            time.sleep(AT_ONCE + 0.2 if number is not numbers[-1] else 0)
        said, complaint = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert complaint == ""
    return said


@pytest.mark.parametrize(
    ("number", "group", "status"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143), (signal.SIGUSR1, True, 75)],
)
def test_who_is_asked_lets_the_work_save(
    number: signal.Signals, group: bool, status: int, tmp_path: Path
) -> None:
    said = ask("patient_work", tmp_path, [number], group)
    assert said == f"interrupted by {number.name} {status}\n"
    assert (tmp_path / "saved").read_text(encoding="utf-8") == number.name


def test_who_is_asked_twice_does_not_wait(tmp_path: Path) -> None:
    said = ask("stubborn_work", tmp_path, [signal.SIGINT, signal.SIGTERM], False)
    assert said == "interrupted by SIGTERM 143\n"


def test_what_went_wrong_is_known() -> None:
    """In a process of its own: others are forked here from one that has imported more."""
    code = (
        "from solo_bridge.side_by_side import run_side_by_side\n"
        "from tests.solo_bridge.test_apart import fail\n"
        "for kind in ('refused', 'at length', 'system', 'unexpected', 'at once', 'killed'):\n"
        "    try: run_side_by_side([('work', fail, (kind,))])\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ended = "RecordError work: its process {}, for the reason above if there is one; what it "
    ended += "finished is recorded"
    assert done.stdout.splitlines() == [
        "UnknownOptionError work: mine: expected 1; got 2",
        "UnknownOptionError work: mine: " + 1_000_000 * "1",
        "OSError [Errno 28] No space left on device: 'run.json'",
        ended.format("ended with status 1"),
        ended.format("ended with status 3"),
        ended.format("was killed by signal 9"),
    ]
    assert "ZeroDivisionError" in done.stderr


def test_an_interrupt_is_for_the_process_that_asked() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM"), stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before
