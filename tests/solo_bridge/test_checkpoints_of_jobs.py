"""Runs of several processes that are interrupted end as if they never were, also when another
number of processes goes on."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints import lock, signals
from avalanche_branchtune.checkpoints.decoder import Decoder
from avalanche_branchtune.checkpoints.encoder import Encoder
from avalanche_branchtune.errors import BranchTuneError
from tests.job_runs import WHAT, ask, made, run, written
from tests.jobs import in_job

Found = dict[str, Any]
INT, TERM, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
REPLACED = {"bad": {14, 47}, "spec": "fine_tuning", "experiences": 1}


def stopped(folder: Path, what: dict[int, dict[Any, int]], **settings: Any) -> Found:
    """Run until ranks are asked to end.

    :param what: by rank and moment the signal.
    """
    if ranks.launched():
        signal.signal(TERM, signal.SIG_DFL)  # a run that was asked to end ignores it
    WHAT.clear()
    mine = what.get(int(os.environ.get("RANK", "0")), {})  # it may not have joined yet
    WHAT.update({when: ask(number) for when, number in mine.items()})
    with written(lambda: time.sleep(0.05)):
        return run(folder, **settings)


def refused(folder: Path, **settings: Any) -> str:
    try:
        made(folder, **settings)
    except BranchTuneError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def job(top: Path) -> dict[str, Any]:
    """Do all that needs a job, one after the other."""
    signals.AT_ONCE, lock.SHOWN = 0.0, 0.3
    signal.signal(INT, signal.default_int_handler)
    own_clock = {"every_minutes": 0.005 if ranks.leads() else None, "every_epochs": 1}
    found: dict[str, Any] = {"whole": stopped(top / "whole", {})}
    asked = [{1: {2: TERM}}, {0: {"eval": USR1}}, {0: {12: TERM, 13: TERM}, 1: {13: INT}}, {}]
    found["parts"] = [stopped(top / "parts", what) for what in asked]
    one_call = [{1: {13: USR1}}, {}]
    found["one call"] = [stopped(top / "one", w, one_call=True, **own_clock) for w in one_call]
    found["replaced"] = stopped(top / "replaced", {}, **REPLACED)
    parts = [stopped(top / "replaced parts", what, **REPLACED) for what in ({0: {6: TERM}}, {})]
    found["replaced in parts"] = parts
    found["of one"] = stopped(top / "of one", {})
    found["for one"] = stopped(top / "for one", {1: {12: TERM}})
    found["a run"] = refused(top / "whole", resume=False)
    found["in use"] = refused(top / "in use")
    found["not shared"] = refused(top / f"not shared {ranks.rank()}")
    return found


def assert_whole(parts: Sequence[Found], whole: Found) -> None:
    """Bit by bit, and each sample as often as it should."""
    assert [step for part in parts for step in part["seen"]] == whole["seen"]
    assert all(torch.equal(w, parts[-1]["weights"][n]) for n, w in whole["weights"].items())


def assert_close(found: Found, whole: Found) -> None:
    for name, weight in whole["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, rtol=1e-4, atol=1e-4)


def test_two_processes(tmp_path: Path) -> None:
    alone = stopped(tmp_path / "alone", {})
    begun = stopped(tmp_path / "of one", {0: {12: TERM}})
    gc.collect()  # the strategy is no more, and lets others to its folder
    with lock.locked(tmp_path / "in use"):
        first, second = by_rank = in_job(2, job, tmp_path)
    for found in by_rank:
        statuses = [part["status"] for part in found["parts"]]
        assert statuses == [143, 75, 143, None]
        assert [part["midway"] for part in found["parts"][:-1]] == [True, False, True]
        assert_whole(found["parts"], found["whole"])
        assert found["parts"][-1]["results"] == first["whole"]["results"] != [{}, {}]
        assert found["one call"][0]["status"] == 75
        assert_whole(found["one call"], found["whole"])
        assert found["replaced"]["replaced"] == first["replaced"]["replaced"]
        assert found["replaced in parts"][0]["midway"]
        assert found["replaced in parts"][1]["replaced"] == first["replaced"]["replaced"]
        assert_close(found["whole"], alone)
        assert_close(found["of one"], alone)
        assert [*begun["seen"], *found["of one"]["seen"]] == alone["seen"] == found["whole"]["seen"]
    again = stopped(tmp_path / "for one", {})
    assert [*first["for one"]["seen"], *again["seen"]] == alone["seen"]
    assert_close(again, alone)
    counts = first["replaced"]["replaced"].values()
    assert list(counts) == [2, 2], "in two epochs, whichever rank saw them"
    assert first["a run"].startswith("CheckpointError") and "resume=True" in first["a run"]
    assert first["in use"].startswith("FolderInUseError: another process")
    for refusal in ("a run", "in use"):
        assert second[refusal].endswith(f"processes has failed: {first[refusal]}")
    for found in by_rank:
        assert found["not shared"].startswith("CheckpointError")
        assert "choose a folder that all machines share" in found["not shared"]


def test_each_process_has_its_own_device() -> None:
    """A checkpoint names the GPU of the process that wrote it."""
    mine, first = torch.device("cuda", 3), torch.device("cuda", 0)
    kept = Encoder({}, [], [], []).encode([first, torch.device("cpu")], "devices")
    assert Decoder({}, mine).decode(kept, "devices") == [mine, torch.device("cpu")]


def cassle(folder: Path, what: dict[int, dict[Any, int]]) -> Found:
    return stopped(folder, what, spec="branch_tuning+cassle")


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (4, 1), (4, 4)])
@pytest.mark.parametrize("when", [{1: {2: TERM}}, {0: {"eval": TERM}}, {0: {12: TERM}}])
def test_other_numbers_of_processes(
    before: int, after: int, when: dict[int, dict[Any, int]], tmp_path: Path
) -> None:
    whole = cassle(tmp_path / "alone", {})
    begun = in_job(before, cassle, tmp_path / "parts", when)
    ended = in_job(after, cassle, tmp_path / "parts", {})
    for rank, found in enumerate(ended):
        assert begun[rank % before]["status"] == 143
        assert [*begun[rank % before]["seen"], *found["seen"]] == whole["seen"]
        assert_close(found, whole)
        assert all(torch.equal(w, ended[0]["weights"][n]) for n, w in found["weights"].items())
