"""One process in a folder at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import threading
from pathlib import Path

import psutil
import pytest

from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.checkpoints.lock import LOCK, Lock, locked
from avalanche_branchtune.checkpoints.sidecar import SIDECAR
from avalanche_branchtune.errors import FolderInUseError, RecordError


def _leave(folder: str) -> None:
    held = locked(Path(folder))
    held.__enter__()
    os._exit(1)


def test_a_second_one_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with locked(folder):
        with pytest.raises(
            FolderInUseError, match=rf"\(process {os.getpid()} .*writes to {folder}"
        ):
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
        with pytest.raises(FolderInUseError, match=r"remove .*running"):
            locked(tmp_path).__enter__()


def test_of_several_that_take_over_one_gets_it(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(f"process {2**22 + 1} of 12.00 on {socket.gethostname()}\n")
    start, got, refused = threading.Barrier(8), [], []

    def take() -> None:
        start.wait()
        try:
            got.append(Lock(tmp_path))
        except FolderInUseError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    got[0].release()
    assert list(tmp_path.iterdir()) == []


def test_a_late_taker_leaves_the_new_lock(tmp_path: Path) -> None:
    """It has read the old one, and comes to remove it after another has done so."""
    lock = Lock(tmp_path)
    lock._clear("process 12 of 12.00 on here\n")
    assert not lock.lost and [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_another_host_is_refused_with_its_last_sign(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("process 7 of 12.00 on elsewhere\n")
    said = {"state": "training", "heartbeat": "2020-01-01T00:00:00+00:00"}
    (tmp_path / SIDECAR).write_text(json.dumps(said))
    message = r"\(process 7 on elsewhere, begun [-\d]+ \S+, last .* d ago\).*remove .*running"
    with pytest.raises(FolderInUseError, match=message):
        Lock(tmp_path)


def test_the_same_process_may_take_its_own_again(tmp_path: Path) -> None:
    old = Lock(tmp_path)
    new = Lock(tmp_path, again=True)
    assert old.lost and not new.lost
    old.release()
    assert (tmp_path / LOCK).exists()
    new.release()
    assert not (tmp_path / LOCK).exists()


def test_a_file_and_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RecordError, match="file is a file: choose a folder"):
        locked(file).__enter__()
    with pytest.raises(RecordError, match="below: nothing can be written there: Not a directory"):
        locked(file / "below").__enter__()


def _asked_to_end(folder: Path) -> None:
    held.append(Checkpoints(folder))
    held[0]._take_lock()
    assert (folder / LOCK).exists()
    raise SystemExit(143)


held: list[Checkpoints] = []


def test_a_process_of_multiprocessings_lets_others_in_when_it_ends(tmp_path: Path) -> None:
    """Such processes do not do what is registered with atexit."""
    process = multiprocessing.get_context("spawn").Process(target=_asked_to_end, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 143 and not (tmp_path / LOCK).exists()
