"""Comparisons that are interrupted go on, and end as if they never were."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from avalanche_branchtune.checkpoints.files import INDEX
from avalanche_branchtune.checkpoints.lock import LOCK
from avalanche_branchtune.errors import RecordError
from solo_bridge import cli, registry
from solo_bridge.apart import Stopped
from solo_bridge.comparison import REFERENCE, Comparison, compare
from solo_bridge.comparison.asked import ASKED, Asked, asked
from solo_bridge.status import statuses

SMALL = Comparison(samples=80, epochs=2, experiences=2, width=4, batch=20, workers=0)
SPECS = ["cassle+mine", "joint"]
AT: dict[int, signal.Signals] = {}
"""By step."""


class Mine(SupervisedPlugin):
    """Sends the process a signal at some step."""

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        number = AT.get(strategy.clock.train_iterations)
        if number is not None:
            os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    names, threads = dict(registry.ENTRIES), torch.get_num_threads()
    registry.register("mine", "mine")(Mine)
    torch.set_num_threads(1)  # a forked process hangs with more
    yield
    torch.set_num_threads(threads)
    registry.ENTRIES.clear()
    registry.ENTRIES.update(names)
    AT.clear()


def killed(out: Path, step: int) -> None:
    """Compare in a process that is killed after some step."""
    AT[step] = signal.SIGKILL
    how = {"checkpoint_minutes": 1e-6}
    process = multiprocessing.get_context("fork").Process(
        target=compare, args=(SPECS, SMALL, out), kwargs=how
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    AT.clear()


def result(folder: Path) -> tuple[Any, list[str]]:
    """The record and the values without what another run would have otherwise."""
    run = json.loads((folder / "run.json").read_text())
    for cost in ("seconds", "evaluation_seconds", "peak_memory_mib"):
        assert run.pop(cost), cost
    lines = (folder / "metrics.csv").read_text().splitlines()
    values = [line.split(",", 1)[1] for line in lines]
    return run, [line for line in values if "Seconds" not in line and "Peak_MiB" not in line]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    compare(SPECS, SMALL, whole)
    killed(out, 7)
    states = {Path(s.folder).name: s for s in statuses(out)}
    assert states["joint-0"].state == "done" and states["cassle+mine-0"].state == "died"
    assert states["cassle+mine-0"].progress == "experience 2 of 2, epoch 2 of 2"
    assert states["cassle+mine-0"].checkpoint_bytes
    assert not (out / "joint-0" / INDEX).exists(), "of a finished run nothing is kept"
    assert cli.main(["resume", str(out / "cassle+mine-0")]) == 0
    capsys.readouterr()
    runs = compare(SPECS, SMALL, out)
    assert [run.name for run in runs] == ["CaSSLe + mine", "joint"]
    assert capsys.readouterr().err.count("finished before, its record is kept") == 2
    for name in ("joint-0", "cassle+mine-0"):
        assert result(out / name) == result(whole / name)
        assert not [p.name for p in (out / name).iterdir() if p.name in (INDEX, LOCK)]
        assert [path.name for path in (out / name).glob("*.pt")] == [REFERENCE]
    assert not (out / LOCK).exists() and {s.state for s in statuses(out)} == {"done"}
    assert cli.main(["resume", str(out)]) == 0, "a job that is queued again has nothing left to do"
    assert "all runs are finished" in capsys.readouterr().out
    with pytest.raises(RecordError, match="mine-0 holds the record of a run that is finished"):
        SMALL.run("cassle+mine", out)
    (out / "joint-0" / REFERENCE).unlink()
    compare(["joint"], SMALL, out, keep_checkpoints=True)
    again, before = (torch.load(folder / "joint-0" / REFERENCE) for folder in (out, whole))
    assert again.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in again.items())
    assert (out / "joint-0" / INDEX).exists()


def test_asked_to_end_in_the_same_process(tmp_path: Path) -> None:
    AT[1] = signal.SIGTERM
    with pytest.raises(Stopped, match="SIGTERM") as stopped:
        compare(["mine"], replace(SMALL, epochs=1), tmp_path)
    assert stopped.value.status == 143 and (tmp_path / "mine-0" / INDEX).exists()
    (found,) = statuses(tmp_path)
    assert (found.state, found.note) == ("interrupted", "SIGTERM")


@pytest.mark.slow
def test_the_command_is_interrupted_from_a_terminal(tmp_path: Path) -> None:
    """The signal goes to the whole group: the command, the strategy's process, its loaders."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from solo_bridge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["--strategies", "fine_tuning,lwf", "--samples", "200", "--epochs", "10"]
    words += ["--workers", "0", "--experiences", "2", "--jobs", "2"]
    command = [sys.executable, "-c", code, "compare", *words, "--out"]
    process = subprocess.Popen([*command, out], stderr=-1, text=True, start_new_session=True)
    until = time.monotonic() + 120
    names = ("fine_tuning-0", "lwf-0")
    while not all((out / name / INDEX).exists() for name in names):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    said = complaint.splitlines()[-1]
    assert "interrupted by SIGINT; 0 of 2 strategies finished" in said
    assert said.endswith(f"go on with: branchtune resume {out}") and "Traceback" not in complaint
    states = {Path(s.folder).name: (s.state, s.note) for s in statuses(out)}
    assert states == dict.fromkeys(names, ("interrupted", "SIGINT"))
    assert all(list((out / name).glob("midway-*.pt")) for name in names)
    resume = [sys.executable, "-m", "solo_bridge", "resume", str(out), "--jobs", "1"]
    subprocess.run(resume, check=True, cwd="/", env={**os.environ, "PYTHONPATH": os.getcwd()})
    done = subprocess.run([*command, whole], check=True, stderr=-1, text=True)
    assert done.stderr.count(": experience 2 of 2, loss") == len(names), "lines, not bars"
    for name in names:
        assert result(out / name) == result(whole / name)
    assert (out / "report.html").is_file()


def test_another_comparison_is_refused_by_what_differs(tmp_path: Path) -> None:
    Asked.of(vars(replace(SMALL, epochs=1)), "frozen").save(tmp_path / "frozen-0")
    others = {"epochs": 3, "lr": 0.5, "options": {"cassle": {"weight": 2.0}}}
    message = (
        r"frozen-0 is of another comparison: this one has epochs 3 instead of 1, options "
        r"\{'cassle': \{'weight': 2.0\}\} instead of \{\}, lr 0.5 instead of 0.12. Choose another"
    )
    for specs in (["frozen"], ["fine_tuning"]):
        with pytest.raises(RecordError, match=message):
            compare(specs, replace(SMALL, **others), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["frozen-0"]


def asked_for(folder: Path, **changed: Any) -> None:
    path = folder / ASKED
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def test_what_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(folder: Path) -> str:
        assert cli.main(["resume", str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("branchtune resume: ")
        return error

    assert f"no {ASKED} there, nor below" in said(tmp_path)
    assert "there is no such folder" in said(tmp_path / "missing")
    own = tmp_path / "own"
    own.mkdir()
    (own / INDEX).touch()
    assert "start the script again with Checkpoints(…, resume=True)" in said(own)
    folder = tmp_path / "out" / "frozen-0"
    Asked.of({**vars(SMALL), "options": {"cassle": {"weight": object()}}}, "frozen").save(folder)
    assert [s.state for s in statuses(folder)] == ["not begun"]
    assert "its options hold objects" in said(folder)
    asked_for(folder, exact=True, settings={"epoch": 3})
    assert f"{ASKED} is of another version" in said(folder)
    asked_for(folder, place="first")
    assert f"{folder / ASKED} is damaged, or another version's: field 'place'" in said(folder)
    assert [s.state for s in statuses(folder)] == ["broken"]


CODE = """
from solo_bridge import register

def square(x):
    return {what}

@register("{name}_one")
class One:
    value = {one}

@register("{name}_two", weight=2)
class Two:
    value = {two}

register("{name}_ten", weight={ten})(One)
"""


def test_a_run_does_not_go_on_with_other_code(tmp_path: Path) -> None:
    file, folder = tmp_path / "own.py", tmp_path / "run"

    def now(spec: str = "fine_tuning+a_one", **changed: Any) -> Asked:
        usual = {"name": "a", "what": "x * x", "one": 1, "two": 2, "ten": 10, **changed}
        file.write_text(CODE.format(**usual), encoding="utf-8")
        return Asked.of({}, spec, imports=[str(file)])

    begun = now()
    begun.save(folder)
    known = asked(folder)
    assert known == begun
    known.check_same_run(now(two=3, ten=11), folder)  # of other names
    with pytest.raises(RecordError, match=r"own.py has changed since .*run was begun"):
        known.check_same_run(now(what="abs(x)"), folder)
    with pytest.raises(RecordError, match="has changed"):
        now("a_ten").check_same_run(now("a_ten", ten=11), folder)
    with pytest.raises(RecordError, match="has changed"):  # which has another name too
        now("a_ten").check_same_run(now("a_ten", one=0), folder)
    now("a_two").check_same_run(now("a_two", one=0, ten=11), folder)
    (folder / ASKED).write_text(
        json.dumps(
            {k: v for k, v in json.loads((folder / ASKED).read_text()).items() if k != "code"}
        )
    )
    older = asked(folder)
    assert older is not None
    older.check_same_run(now(what="abs(x)"), folder)  # it did not say
