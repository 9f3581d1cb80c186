"""What `branchtune status` makes of what runs left."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from avalanche_branchtune.checkpoints.lock import LOCK, Lock
from avalanche_branchtune.checkpoints.sidecar import SIDECAR
from avalanche_branchtune.records import Run
from solo_bridge import cli


def run(folder: Path, state: str, minutes: float = 1, lock: str | None = None, **more: Any) -> None:
    folder.mkdir()
    then = datetime.now(timezone.utc) - timedelta(minutes=minutes)
    said = {
        "state": state,
        "heartbeat": then.isoformat(),
        "experience": 2,
        "experiences": 5,
        "epoch": 3,
        "epochs": 15,
        "checkpoint": {"saved": then.isoformat(), "bytes": 5 * 1024**2},
        "process": 7,
        "host": "here",
        **more,
    }
    (folder / SIDECAR).write_text(json.dumps(said))
    if lock is not None:
        (folder / LOCK).write_text(lock)


def test_every_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = "process 7 of 12.00 on elsewhere\n"
    run(tmp_path / "a", "training")
    run(tmp_path / "b", "training", lock=elsewhere)
    run(tmp_path / "c", "evaluating", minutes=11, lock=elsewhere)
    run(tmp_path / "d", "waiting")
    run(tmp_path / "e", "interrupted", signal="SIGTERM")
    run(tmp_path / "f", "failed", error="ValueError: no", experiences=None, epoch=None)
    run(tmp_path / "g", "done", checkpoint=None)
    run(tmp_path / "h", "training", checkpoint={"saved": 3})
    run(tmp_path / "i", "training")
    lock = Lock(tmp_path / "i")
    assert cli.main(["status", str(tmp_path), "--json"]) == 0
    lock.release()
    found = {Path(one["folder"]).name: one for one in json.loads(capsys.readouterr().out)}
    assert {name: one["state"] for name, one in found.items()} == {
        "a": "died",
        "b": "training",
        "c": "silent",
        "d": "stopped",
        "e": "interrupted",
        "f": "failed",
        "g": "done",
        "h": "broken",
        "i": "training",
    }
    assert 60 <= found["b"]["heartbeat"] < 120 and found["b"]["checkpoint_bytes"] == 5 * 1024**2
    assert cli.main(["status", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = ["run", "state", "progress", "heartbeat", "checkpoint", "where"]
    assert lines[0].split() == head and len(lines) == 10
    row = "a died experience 2 of 5, epoch 3 of 15 1 min ago 1 min ago, 5 MiB process 7 on here"
    assert " ".join(lines[1].split()).endswith(row)
    assert lines[5].endswith("process 7 on here  SIGTERM")
    assert "failed       experience 2  " in lines[6] and lines[6].endswith("ValueError: no")
    assert "is damaged" in lines[8]


def test_a_record_alone_is_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, part = Run("a", 1, seconds=[2.0]), Run("b", 3, seconds=[2.0])
    whole.save(tmp_path / "a")
    part.save(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run.json").write_text("{")
    assert cli.main(["status", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in found] == ["done", "partial", "broken"]
    assert found[1]["progress"] == "1 of 3 experiences"


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: no runs there, nor below\n"
    assert cli.main(["status", str(tmp_path / "missing")]) == 2
    assert "missing: no such folder" in capsys.readouterr().err
