"""What a run says of itself, and to whom its folder belongs."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from avalanche.core import SupervisedPlugin

from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.checkpoints.lock import LOCK, holder
from avalanche_branchtune.checkpoints.sidecar import SIDECAR, age, ago, read_sidecar, slurm_job
from avalanche_branchtune.errors import FolderInUseError, RecordError
from tests.supervised import benchmark, strategy


class Look(SupervisedPlugin):
    """Reads the sidecar at some step, and may raise an error there."""

    def __init__(self, folder: Path, fail_at: int | None = None) -> None:
        super().__init__()
        self.folder, self.fail_at = folder, fail_at
        self.seen: list[Any] = []

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_iterations == self.fail_at:
            raise ZeroDivisionError("first line\nsecond")

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.seen.append(read_sidecar(self.folder)["state"])

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        said = read_sidecar(self.folder)
        fields = ("state", "experience", "experiences", "epoch", "epochs", "steps")
        self.seen.append([said[field] for field in fields])


def made(folder: Path, *, resume: bool = False, **look: Any) -> tuple[Any, Look]:
    checkpoints, plugin = Checkpoints(folder, resume=resume), Look(folder, **look)
    run = strategy([plugin, checkpoints], train_mb_size=4, train_epochs=1)
    checkpoints.attach(run)
    return run, plugin


def test_what_is_said(tmp_path: Path) -> None:
    run, look = made(tmp_path)
    streams = benchmark(2)
    run.train(streams.train_stream[0])
    steps = run.clock.train_iterations
    said = read_sidecar(tmp_path)
    assert (said["epoch"], said["steps"]) == (1, steps)
    assert said["state"] == "waiting" and said["checkpoint"]["bytes"] > 1000
    assert 0 <= age(said["heartbeat"]) < 60 and 0 <= age(said["checkpoint"]["saved"]) < 60
    run.eval(streams.test_stream[:1])
    run.train(streams.train_stream[1])
    assert read_sidecar(tmp_path)["state"] == "done"
    assert look.seen == [
        ["training", 1, 2, 1, 1, 0],
        "evaluating",
        ["training", 2, 2, 1, 1, steps],
    ]
    run.plugins[-1].finish()
    assert [path.name for path in tmp_path.iterdir()] == [SIDECAR]


def test_an_error_is_said(tmp_path: Path) -> None:
    run, _ = made(tmp_path, fail_at=0)
    with pytest.raises(ZeroDivisionError):
        run.train(benchmark(2).train_stream[0])
    said = read_sidecar(tmp_path)
    assert (said["state"], said["error"]) == ("failed", "ZeroDivisionError: first line")


def test_a_sidecar_that_cannot_be_written_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / SIDECAR).mkdir()
    run, _ = made(tmp_path)
    run.plugins.pop(0)
    run.train(benchmark(2).train_stream[0])
    warned = [r.getMessage() for r in caplog.records if SIDECAR in r.getMessage()]
    assert len(warned) == 1 and "cannot be written" in warned[0] and "goes on" in warned[0]


def test_the_folder_is_the_newest_strategys_until_there_is_none(tmp_path: Path) -> None:
    old, _ = made(tmp_path)
    experiences = benchmark(2).train_stream
    old.train(experiences[0])
    new, _ = made(tmp_path, resume=True)
    new.train(experiences[0])
    with pytest.raises(FolderInUseError, match="a strategy that was made later writes there"):
        old.train(experiences[1])
    assert holder(tmp_path) is not None
    del old, new
    gc.collect()
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"state": "asleep", "heartbeat": null}',
        '{"state": "done", "heartbeat": "2020-01-01T00:00:00"}',
    ],
)
def test_a_damaged_one(content: str, tmp_path: Path) -> None:
    (tmp_path / SIDECAR).write_text(content)
    with pytest.raises(RecordError, match=f"{SIDECAR} is damaged"):
        read_sidecar(tmp_path)


def test_ages_in_words() -> None:
    assert [ago(s) for s in (-2, 59.9, 60, 7200, 200000)] == [
        "0 s ago",
        "59 s ago",
        "1 min ago",
        "2 h ago",
        "2 d ago",
    ]


def test_slurms_job_is_said_as_squeue_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    assert slurm_job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert slurm_job() == "7"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert slurm_job() == "5_2"
