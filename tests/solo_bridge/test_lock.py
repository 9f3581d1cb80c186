"""One process in a folder at a time."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import psutil
import pytest

from avalanche_branchtune.errors import RecordError
from solo_bridge.lock import LOCK, locked


def _leave(folder: str) -> None:
    held = locked(Path(folder))
    held.__enter__()
    os._exit(1)


def test_a_second_one_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with locked(folder):
        with pytest.raises(RecordError, match=rf"\(process {os.getpid()} .*writes to {folder}"):
            locked(folder).__enter__()
        (folder / "result").touch()
        assert (folder / LOCK).is_file(), "the refused one leaves it"
    assert [path.name for path in folder.iterdir()] == ["result"]
    with locked(folder):
        pass


def test_nothing_stays_of_a_folder_that_stayed_empty(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "new"):
        _ = 1 / 0
    assert not (tmp_path / "new").exists()


def test_what_a_dead_process_left_does_not_count(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_leave, args=(str(tmp_path),))
    process.start()
    process.join()
    assert str(process.pid) in (tmp_path / LOCK).read_text(encoding="utf-8")
    with locked(tmp_path):
        text = (tmp_path / LOCK).read_text(encoding="utf-8")
    began = f"{psutil.Process().create_time():.2f}"
    assert f"process {os.getpid()} of {began} on " in text
    (tmp_path / LOCK).write_text(text.replace(began, "12.00"), encoding="utf-8")
    with locked(tmp_path):
        pass  # the number is another process's by now
    for other in (text.replace(" on ", " on another-"), "", "unknown"):
        (tmp_path / LOCK).write_text(other, encoding="utf-8")
        with pytest.raises(RecordError, match=r"remove .*running"):
            locked(tmp_path).__enter__()


def test_a_file_and_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RecordError, match="file is a file: choose a folder"):
        locked(file).__enter__()
    with pytest.raises(RecordError, match="below: nothing can be written there: Not a directory"):
        locked(file / "below").__enter__()
