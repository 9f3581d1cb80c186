"""Small records that would take much: memory, time, or the interpreter's stack."""

from __future__ import annotations

import io
import json
import os
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.metrics import RunRecorder
from avalanche_branchtune.records import FeatureSample, Run, load_run
from avalanche_branchtune.report import group_runs
from tests.run_records import full, joint, run

HUGE = 10**400


def refusal(folder: Path) -> str:
    begin = time.process_time()
    with pytest.raises(RecordError) as error:
        group_runs([folder])
    assert time.process_time() - begin < 5
    return str(error.value)


def changed(folder: Path, **fields: Any) -> Path:
    content = json.loads((full().save(folder) / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**content, **fields}))
    return folder


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_experiences": 10**7}, "'n_experiences': 10000000 experiences: expected at most 1000"),
        ({"n_experiences": HUGE}, "'n_experiences': expected an integer of 53 bits"),
        ({"name": "a" * 10**6}, "'name': 'aaa"),
        ({"probes": {"a" * 10**6: full().content()["probes"]["knn"]}}, "'probes': 'aaa"),
        ({"seed": HUGE}, "'seed': expected an integer of 64 bits"),
        ({"parameters": {"network": HUGE}}, "'parameters.network': expected an integer of 53"),
        ({"seconds": [HUGE]}, "'seconds[0]': expected float"),
        (
            {
                "trace": {
                    "iterations": [HUGE],
                    "accuracies": [[0.5]],
                    "experiences": [0],
                    "probe": "",
                    "protocol": {},
                }
            },
            "'trace.iterations[0]': expected an integer of 53 bits",
        ),
        (
            {
                "trace": {
                    "iterations": [1],
                    "accuracies": [[0.5] * 1001],
                    "experiences": [0],
                    "probe": "",
                    "protocol": {},
                }
            },
            "'trace': 1001 experiences",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_numbers_and_names(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    said = refusal(changed(tmp_path, **fields))
    assert message in said and len(said) < 1000


@pytest.mark.parametrize("depth", [60, 400, 5000, 200_000])
def test_depth(tmp_path: Path, depth: int) -> None:
    full().save(tmp_path / "a")
    nested = "[" * depth + "]" * depth
    text = (tmp_path / "a/run.json").read_text().replace('"data": "digits"', f'"data": {nested}')
    (tmp_path / "a/run.json").write_text(text)
    assert "levels" in refusal(tmp_path) or "recursion" in refusal(tmp_path)
    (tmp_path / "a/run.json").write_text(nested)
    with pytest.raises(RecordError):
        load_run(tmp_path / "a")


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a/run.json")
    with pytest.raises(RecordError, match="no record of a run"):
        load_run(tmp_path / "a")
    assert "no record" in refusal(tmp_path)


def test_what_cannot_be_read_is_not_written(tmp_path: Path) -> None:
    """So that nobody finds out after the training."""
    with pytest.raises(RecordError, match="201 letters"):
        RunRecorder(tmp_path, "a" * 201)
    with pytest.raises(RecordError, match="1001 experiences"):
        RunRecorder(tmp_path, "a", n_experiences=1001)
    with pytest.raises(RecordError, match="64 bits"):
        RunRecorder(tmp_path, "a", seed=2**64)
    with pytest.raises(RecordError, match="1001 experiences"):
        Run("a", 1001).save(tmp_path)
    assert not list(tmp_path.iterdir())
    most = run("a" * 200, seed=2**64 - 1)
    assert load_run(most.save(tmp_path)).seed == 2**64 - 1


# ---- features


def npz(folder: Path, compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    full().save(folder)
    with zipfile.ZipFile(folder / "features.npz", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return folder


def npy(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    if shape is None:
        return stream.getvalue()
    content, stream = stream.getvalue(), io.BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + content[-array.nbytes :]


LABELS = npy(np.zeros(3, np.int64))


def test_features_that_say_they_are_many(tmp_path: Path) -> None:
    """A header alone: numpy would make room for it first."""
    claimed = npy(np.zeros(6, np.float32), (1 << 28, 2))
    folder = npz(tmp_path, features=claimed, labels=LABELS, experiences=LABELS)
    tracemalloc.start()
    try:
        assert "field 'features' of shape (268435456, 2) does not go" in refusal(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_features_that_are_compressed_too_well(tmp_path: Path) -> None:
    many = npy(np.zeros((1 << 15, 640), np.float32))  # 80 MiB of zeros
    folder = npz(tmp_path, features=many, labels=LABELS, experiences=LABELS)
    assert (folder / "features.npz").stat().st_size < 2**17
    assert "does not go with a file of" in refusal(folder)


def test_features_of_a_network_that_collapsed(tmp_path: Path) -> None:
    whole = joint()
    labels = np.zeros(2000, np.int64)
    whole.sample = FeatureSample(np.zeros((2000, 512), np.float32), labels, labels)
    found = load_run(whole.save(tmp_path)).sample
    assert found is not None and found.features.shape == (2000, 512)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((), np.int64)}, "do not fit together"),
        ({"labels": np.zeros((3, 2), np.int64)}, "do not fit together"),
        ({"labels": np.zeros(3)}, "field 'labels' has values of type float64"),
        ({"features": np.full((3, 2), "x" * 9)}, "field 'features' has values of type <U9"),
        ({"features": np.zeros((3, 2), complex)}, "field 'features' has values of type complex"),
    ],
)
def test_features_of_other_kinds(
    tmp_path: Path, change: dict[str, np.ndarray], message: str
) -> None:
    parts = {
        "features": np.zeros((3, 2)),
        "labels": np.zeros(3, int),
        "experiences": np.ones(3, int),
    }
    full().save(tmp_path)
    np.savez(tmp_path / "features.npz", **{**parts, **change})
    assert message in refusal(tmp_path)
