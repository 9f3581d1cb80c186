"""A comparison whose runs are sent to a tracker, too."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from avalanche_branchtune.errors import RecordError, UnknownOptionError
from avalanche_branchtune.metrics import LOGGERS
from solo_bridge.commands.training import LOGGERS as NAMES
from solo_bridge.comparison import Comparison
from tests import wandb_files

SMALL = Comparison(epochs=1, experiences=2, samples=80, size=8, width=4, batch=20, logger="wandb")


def test_the_command_knows_every_logger() -> None:
    assert tuple(LOGGERS) == NAMES
    with pytest.raises(UnknownOptionError, match="did you mean wandb"):
        replace(SMALL, logger="wand").check()


@pytest.mark.slow
def test_what_is_measured_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    SMALL.run("branch_tuning", tmp_path, bar=False)
    folder = SMALL.folder("branch_tuning", tmp_path)
    (records,) = wandb_files.runs(folder)
    assert wandb_files.settings(records)["specification"] == "branch_tuning"
    assert [end.exit_code for end in wandb_files.kinds(records, "exit")] == [0]
    found = {name for row in wandb_files.rows(records).values() for name in row}
    with (folder / "metrics.csv").open(newline="") as stream:
        assert {row["metric"] for row in csv.DictReader(stream)} | {"experience"} <= found


def test_a_run_goes_on_with_the_logger_that_it_was_begun_with(tmp_path: Path) -> None:
    SMALL._begun("fine_tuning", tmp_path)
    with pytest.raises(RecordError, match="logger None instead of 'wandb'"):
        replace(SMALL, logger=None)._begun("fine_tuning", tmp_path)
