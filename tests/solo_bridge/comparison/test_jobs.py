"""Strategies that train at the same time have the numbers that they have alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avalanche_branchtune.checkpoints.files import INDEX
from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.records import Run
from solo_bridge import cli, registry
from solo_bridge.apart import Stopped, stoppable
from solo_bridge.comparison import REFERENCE, Comparison, compare
from solo_bridge.comparison.asked import Asked
from solo_bridge.status import statuses

SMALL = Comparison(samples=80, epochs=2, experiences=2, width=4, batch=20, workers=0)
SPECS = ["fine_tuning+mine", "cassle", "joint"]
MINE = '''
import os
from pathlib import Path
from avalanche.core import SupervisedPlugin
from solo_bridge.registry import register

@register("mine", "mine")
class Mine(SupervisedPlugin):
    """Sends the signal that the file beside this one says, once, when another run has begun."""

    def after_update(self, strategy, *args, **kwargs):
        told = Path(__file__).with_name("told")
        step, number, process, other = told.read_text().split() if told.exists() else (99,) * 4
        if strategy.clock.train_iterations >= int(step):
            while not Path(other, "sidecar.json").exists(): pass
            told.unlink()
            os.kill(int(process) or os.getpid(), int(number))
'''


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    names, threads = dict(registry.ENTRIES), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    registry.ENTRIES.clear()
    registry.ENTRIES.update(names)


def result(folder: Path) -> tuple[Any, list[str]]:
    """The record and the values, without what they cost."""
    run = json.loads((folder / "run.json").read_text())
    for cost in ("seconds", "evaluation_seconds", "peak_memory_mib"):
        assert run.pop(cost), cost
    lines = [line.split(",", 1)[1] for line in (folder / "metrics.csv").read_text().splitlines()]
    return run, [line for line in lines if "Seconds" not in line and "Peak_MiB" not in line]


def test_killed_then_interrupted_then_alone(tmp_path: Path) -> None:
    file, told = tmp_path / "mine.py", tmp_path / "told"
    file.write_text(MINE)
    whole, out = tmp_path / "whole", tmp_path / "out"
    done: list[Run] = []
    names = [run.name for run in compare(SPECS, SMALL, whole, imports=[str(file)])]
    assert names == ["fine-tuning + mine", "CaSSLe", "joint"]

    told.write_text(f"1 {signal.SIGKILL:d} 0 {out / 'joint-0'}")
    with pytest.raises(RecordError, match=r"fine_tuning\+mine: its process was killed by signal 9"):
        compare(SPECS, SMALL, out, jobs=2, imports=[str(file)], done=done.append)
    states = {Path(one.folder).name: one.state for one in statuses(out)}
    assert states == {"joint-0": "done", "fine_tuning+mine-0": "died", "cassle-0": "not begun"}
    assert [run.name for run in done] == ["joint"], "it ran beside; nothing else was begun"

    told.write_text(f"5 {signal.SIGTERM:d} {os.getpid()} {out / 'cassle-0'}")
    with pytest.raises(Stopped) as stopped, stoppable():
        compare(SPECS, SMALL, out, jobs=2, imports=[str(file)])
    assert stopped.value.status == 143
    states = {Path(one.folder).name: one.state for one in statuses(out)}
    assert states["joint-0"] == "done" and states["fine_tuning+mine-0"] == "interrupted"
    assert states["cassle-0"] in ("interrupted", "done"), "it saved, if it was not finished"
    assert (out / "fine_tuning+mine-0" / INDEX).exists()

    assert cli.main(["resume", str(out), "--jobs", "1"]) == 0
    for spec in SPECS:
        assert result(out / f"{spec}-0") == result(whole / f"{spec}-0")
    one, other = (torch.load(folder / "joint-0" / REFERENCE) for folder in (whole, out))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_plasticity_waits_for_joint_training(tmp_path: Path) -> None:
    Asked.of(vars(SMALL), "joint").save(tmp_path / "joint-0")
    assert SMALL.run("frozen", tmp_path, bar=False).plasticity == [{}, {}]
    assert not SMALL.finished("frozen", tmp_path) and SMALL.waits("frozen", tmp_path)
    SMALL.run("joint", tmp_path, bar=False)
    run = SMALL.run("frozen", tmp_path, bar=False)
    assert SMALL.finished("frozen", tmp_path)
    assert [path.name for path in (tmp_path / "frozen-0").glob("*.pt")] == [REFERENCE]
    assert run.plasticity[0].keys() == run.stability[1].keys()
    assert run.plasticity[0] != run.plasticity[1], "images of other classes"
