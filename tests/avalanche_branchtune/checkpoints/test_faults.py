"""Damaged, older and foreign files: an older checkpoint is used, or the error says what to do."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import dill
import pytest
import torch

from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.checkpoints.files import FORMAT, INDEX, CheckpointFolder
from avalanche_branchtune.errors import CheckpointError
from tests.supervised import Net, benchmark, strategy


def state(number: int) -> dict[str, Any]:
    whole: dict[str, Any] = {"calls": [], "clock": 0.0, "plugins": [], "run": "mine"}
    parts = {key: {} for key in ("modules", "optimizer", "random", "shapes", "strategy")}
    return {**whole, **parts, "n": number, "w": torch.arange(50.0)}


@pytest.fixture
def two(tmp_path: Path) -> CheckpointFolder:
    folder = CheckpointFolder(tmp_path / "run", keep=2)
    for number in (0, 1):
        folder.save(number, state(number))
    return folder


def newest(folder: CheckpointFolder) -> Path:
    return max(folder.path.glob("state-*.pt"))


def listed_again(folder: CheckpointFolder) -> None:
    """What someone does who puts a file in the place of another: all sums are right."""
    path = folder.path / INDEX
    index = json.loads(path.read_text())
    for entry in index["checkpoints"]:
        for each in filter(None, (entry, entry["between"], entry["midway"])):
            content = (folder.path / each["file"]).read_bytes()
            each["sha256"] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(index))


def found(folder: CheckpointFolder) -> int:
    pair = CheckpointFolder(folder.path, keep=2).newest()
    assert pair is not None
    number: int = pair[0]["n"]
    return number


def test_every_length_and_every_bit(
    two: CheckpointFolder, caplog: pytest.LogCaptureFixture
) -> None:
    path = newest(two)
    whole = path.read_bytes()
    assert found(two) == 1 and not caplog.records
    for length in (0, 1, *range(2, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:length])
        assert found(two) == 0, length
    for position in range(0, 8 * len(whole), 1009):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        assert found(two) == 0, position
    assert all("was changed or cut off" in r.getMessage() for r in caplog.records)
    path.write_bytes(whole + b"\0")
    assert found(two) == 0
    path.unlink()
    caplog.clear()
    assert found(two) == 0 and "No such file" in caplog.text
    path.mkdir()
    assert found(two) == 0


RAN: list[str] = []


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return RAN.append, ("ran",)


def lightning() -> dict[str, Any]:
    weights = {"backbone.conv.weight": torch.zeros(3)}
    return {"epoch": 3, "pytorch-lightning_version": "2.0", "state_dict": weights}


def avalanche_s(path: Path) -> None:
    """As avalanche.checkpointing.save_checkpoint writes it."""
    content = {"strategy": torch.nn.Linear(2, 2), "rng_manager": lambda: RAN.append("ran")}
    torch.save({**content, "exp_counter": 1}, path, pickle_module=dill)


FOREIGN = {
    "a pickle with code": lambda path: path.write_bytes(pickle.dumps(Code())),
    "torch.save of code": lambda path: torch.save({**state(1), "calls": Code()}, path),
    "torch.save of a network": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "weights": lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path),
    "Lightning's": lambda path: torch.save(lightning(), path),
    "Avalanche's": avalanche_s,
    "a text": lambda path: path.write_text("no checkpoint"),
    "older than torch 1.6": lambda path: torch.save(
        {**state(1), "calls": Code()}, path, _use_new_zipfile_serialization=False
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_with_a_right_sum(
    name: str, two: CheckpointFolder, caplog: pytest.LogCaptureFixture
) -> None:
    RAN.clear()
    FOREIGN[name](newest(two))
    listed_again(two)
    assert found(two) == 0 and "is no good" in caplog.text and "weights_only" not in caplog.text
    for path in two.path.glob("*.pt"):
        FOREIGN[name](path)
    listed_again(two)
    with pytest.raises(CheckpointError, match="none of 2 checkpoints is good: remove the folder"):
        found(two)
    assert not RAN


def test_the_middle_of_another_run(two: CheckpointFolder, caplog: pytest.LogCaptureFixture) -> None:
    def save(kind: str, **of: Any) -> tuple[Any, Any]:
        where = {"epoch_random": {}, "epochs": 0, "iterations": 0, "of": {}, "state": {}}
        two.save(1, {**where, "run": "mine", **of}, kind)
        newest = two.newest()
        assert newest is not None and newest[0]["n"] == 1
        return newest[1:]

    assert save("midway", within=0)[1] is not None
    assert save("midway", within=0, run="another") == (None, None)
    assert save("midway", within=1) == (None, None)
    assert len(caplog.records) == 2 and "it belongs to another one" in caplog.text
    between, midway = save("between", within=1)
    assert between is not None and midway is None
    assert save("midway", within=0)[1] is None
    assert save("midway", within=1)[1] is not None
    assert save("between", within=2)[1] is None, "it was before"
    assert save("between", within=1, run="another") == (None, None)
    assert {p.name.split("-")[0] for p in two.path.glob("*-000001-*")} == {"state", "between"}


LISTS = {
    "nothing": ("", "is no list of checkpoints"),
    "half": ('{"format": 2, "checkpoints": [{"numb', "is no list of checkpoints"),
    "a list": ("[1, 2]", "is no list of checkpoints"),
    "a text in it": ('{"format": 2, "checkpoints": ["state"]}', "is no list of checkpoints"),
    "deep": ("[" * 100_000, "is no list of checkpoints"),
    "older": ('{"format": 1, "checkpoints": []}', r"format 1; this version reads 2: .* older"),
    "newer": ('{"format": 3, "checkpoints": []}', r"format 3; this version reads 2: .* newer"),
    "elsewhere": (
        '{"format": 2, "checkpoints": [{"number": 1, "file": "../../x.pt", "sha256": "", '
        '"between": null, "midway": null}]}',
        "lists what is no checkpoint",
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_none(name: str, two: CheckpointFolder) -> None:
    assert FORMAT == 2, "the texts here are of it"
    text, message = LISTS[name]
    (two.path / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=message) as error:
        found(two)
    assert "folder" in str(error.value)


def test_a_list_that_is_lost_is_not_begun_anew(two: CheckpointFolder) -> None:
    (two.path / INDEX).unlink()
    with pytest.raises(CheckpointError, match=r"is not there, but state-000001-\w+\.pt is"):
        found(two)
    newest(two).unlink()  # killed while the first was written
    assert CheckpointFolder(two.path, keep=2).newest() is None


def test_the_sum_is_that_of_the_file(two: CheckpointFolder) -> None:
    index = json.loads((two.path / INDEX).read_text())["checkpoints"][-1]
    content = (two.path / index["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == index["sha256"]
    assert f"it has {len(content)} bytes" in two.lacking(state(1))


def trained(folder: Path) -> None:
    checkpoints = Checkpoints(folder)
    made = strategy([checkpoints], train_mb_size=4)
    checkpoints.attach(made)
    made.train(benchmark(3).train_stream[0])


def goes_on(folder: Path, model: torch.nn.Module | None = None) -> None:
    checkpoints = Checkpoints(folder, resume=True)
    made = strategy([checkpoints], model, train_mb_size=4)
    checkpoints.attach(made)
    made.train(benchmark(3).train_stream[0])


def test_another_model_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    model = Net()
    model.fc = torch.nn.Linear(32, 10)
    with pytest.raises(
        CheckpointError, match=r"weight fc\.bias of the model is \[10\], in the run it was \[6\]"
    ):
        goes_on(tmp_path, model)


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_a_state_that_was_tampered_with(every: int, tmp_path: Path) -> None:
    """Values of the file in turn become others: an error of ours, or none."""
    good, folder = tmp_path / "good", CheckpointFolder(tmp_path / "run", keep=2)
    trained(good)
    whole = torch.load(newest(CheckpointFolder(good, keep=2)), weights_only=True)
    places = _places(whole)
    assert len(places) > 500
    evil = [None, -1, "os:system", [], {"@": "name", "id": 0, "value": "os:system"}]
    errors = 0
    for number, place in enumerate(places[::every]):
        shutil.rmtree(folder.path, ignore_errors=True)
        shutil.copytree(good, folder.path)
        changed = torch.load(newest(folder), weights_only=True)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = evil[number % len(evil)]
        torch.save(changed, newest(folder))
        listed_again(folder)
        try:
            goes_on(folder.path)
        except CheckpointError as error:
            errors += 1
            assert str(folder.path) in str(error), place
    assert errors > len(places[::every]) / 3


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and len(value) < 20:
        items = enumerate(value)
    found = [path] if path else []
    for key, part in items:
        found += _places(part, (*path, key))
    return found
