"""Files that are written whole or not at all, and not through links."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from avalanche.evaluation.metric_results import MetricValue
from PIL import Image

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.metrics import RunRecorder
from avalanche_branchtune.report import write_report
from avalanche_branchtune.writing import append, remove_unfinished, replacing, write_text
from solo_bridge.checkpoint import save_backbone
from tests.interruptions import full_disk
from tests.run_records import full, joint
from tests.selfsupervised import backbone


def record(folder: Path) -> None:
    recorder = RunRecorder(folder, "a", overwrite=True)
    metric: object = None
    recorder.log_metrics([MetricValue(metric, "acc", 0.5, 1)])  # type: ignore[arg-type]
    picture = Image.new("RGB", (2, 2))
    recorder.log_metrics([MetricValue(metric, "picture", picture, 1)])  # type: ignore[arg-type]


WRITERS: dict[str, Callable[[Path], object]] = {
    "report": lambda folder: write_report([joint()], folder),
    "record": lambda folder: full().save(folder),
    "recorder": record,
    "weights": lambda folder: save_backbone(backbone(), folder / "a.pt"),
    "safetensors": lambda folder: save_backbone(backbone(), folder / "a.safetensors"),
}


@pytest.mark.parametrize("name", list(WRITERS))
def test_links_are_replaced_and_not_followed(tmp_path: Path, name: str) -> None:
    folder, target = tmp_path / "out", tmp_path / "precious"
    WRITERS[name](folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    target.write_text("precious")
    for path in files:
        path.unlink()
        path.symlink_to(target)
    WRITERS[name](folder)
    assert target.read_text() == "precious"
    assert sorted(files) == sorted(path for path in folder.rglob("*") if path.is_file())
    assert not [path for path in files if path.is_symlink()]


def test_a_link_that_comes_later_is_refused(tmp_path: Path) -> None:
    recorder, target = RunRecorder(tmp_path / "run", "a"), tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "run/metrics.csv").unlink()
    (tmp_path / "run/metrics.csv").symlink_to(target)
    with pytest.raises(RecordError, match=r"metrics\.csv: expected a file, found a link"):
        recorder.log_metrics([MetricValue(None, "acc", 0.5, 1)])  # type: ignore[arg-type]
    assert target.read_text() == "precious"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecordError, match="found a link or a device"):
        append(tmp_path / "pipe", "x")


def test_the_users_mask_decides_who_may_read(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")}
    assert len(modes) == 1


def test_long_names_have_room(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".txt")
    write_text(path, "ü\r\n")
    append(path, "ä\n")
    assert path.read_bytes() == "ü\r\nä\n".encode()


def test_whatever_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as path:
        path.write_text("half")
        raise KeyboardInterrupt
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.txt": "old"}


@pytest.mark.parametrize("name", ["a.pt", "a.json", "a"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, name: str) -> None:
    others = [".hidden", ".0123456789abcdef-mine.pt", "0123456789abcdef.pt"]
    for other in others:
        (tmp_path / other).touch()
    with pytest.raises(FileNotFoundError), replacing(tmp_path / name) as path:
        path.write_text("half")
        remove_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(others)


@pytest.mark.skipif(sys.platform == "win32", reason="limits files as Unix does")
@pytest.mark.parametrize("name", sorted(WRITERS.keys() - {"recorder"}))
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="too large") as caught, full_disk(600):
        WRITERS[name](tmp_path)
    assert Path(caught.value.filename).parent.is_relative_to(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits files as Unix does")
def test_half_a_line_is_not_added(tmp_path: Path) -> None:
    append(tmp_path / "a", "x" * 500)
    with pytest.raises(OSError, match="too large"), full_disk(600):
        append(tmp_path / "a", "y" * 500)
    assert (tmp_path / "a").read_text() == "x" * 500


def test_an_array_is_written_where_it_should(tmp_path: Path) -> None:
    """numpy adds a suffix of its own to names that have none."""
    with replacing(tmp_path / "a.npz") as path:
        np.savez(path, a=np.ones(2))
    assert os.listdir(tmp_path) == ["a.npz"]
