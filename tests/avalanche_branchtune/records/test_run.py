"""The record as it is written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.records import FeatureSample, ProbeRecord, Run, Trace, load_run
from tests.run_records import FIRST, full, joint, run

WRITTEN = """{
 "format": "avalanche-branchtune run",
 "version": 1,
 "name": "Überblick <a>",
 "n_experiences": 2,
 "seed": 0,
 "settings": {
  "sizes": [
   1,
   2
  ],
  "lr": 0.1
 },
 "probes": {
  "kNN": {
   "protocol": {
    "k": 20
   },
   "accuracies": [
    [
     0.5,
     null
    ]
   ],
   "overall": [
    0.5
   ],
   "random": null,
   "random_overall": 0.25
  }
 },
 "seconds": [
  1.5
 ],
 "evaluation_seconds": [
  1e-05
 ],
 "peak_memory_mib": null,
 "parameters": {
  "network": 10
 },
 "stability": [
  {}
 ],
 "plasticity": [
  {
   "conv1": 0.75
  }
 ],
 "analysis_protocol": "linear CKA",
 "branch_norms": [],
 "trace": {
  "iterations": [
   0
  ],
  "accuracies": [
   [
    0.125,
    null
   ]
  ],
  "experiences": [
   0
  ],
  "probe": "kNN",
  "protocol": {
   "k": 20
  }
 },
 "replaced_images": {
  "images/1.png": 3
 },
 "skipped_steps": 2,
 "trained": 3,
 "stream": {
  "made by": "joint"
 },
 "environment": {
  "gpu": null
 }
}
"""


def small() -> Run:
    return Run(
        "Überblick <a>",
        2,
        seed=0,
        settings={"sizes": (1, 2), "lr": 0.1},
        probes={"kNN": ProbeRecord({"k": 20}, [[0.5, None]], [0.5], random_overall=0.25)},
        seconds=[1.5],
        evaluation_seconds=[0.00001],
        parameters={"network": 10},
        stability=[{}],
        plasticity=[{"conv1": 0.75}],
        analysis_protocol="linear CKA",
        trace=Trace([0], [[0.125, math.nan]], [0], "kNN", {"k": 20}),
        replaced_images={"images/1.png": 3},
        skipped_steps=2,
        trained=3,
        stream={"made by": "joint"},
        environment={"gpu": None},
    )


def test_the_file_to_the_byte(tmp_path: Path) -> None:
    assert small().save(tmp_path) == tmp_path
    assert (tmp_path / "run.json").read_bytes() == WRITTEN.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("record", [small, full, joint, lambda: run(rows=FIRST[:2], seed=None)])
def test_what_was_read_is_written_as_it_was(tmp_path: Path, record: Any) -> None:
    first = record().save(tmp_path / "first")
    second = load_run(first).save(tmp_path / "second")
    for path in first.iterdir():
        assert (second / path.name).read_bytes() == path.read_bytes()


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    run().save(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        run(settings={"lr": math.nan}).save(tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before


def test_how_far_a_run_got() -> None:
    assert (run().finished, run().complete) == (3, True)
    partial = run(rows=FIRST[:2])
    assert (partial.finished, partial.complete) == (2, False)
    assert run(probes={}, seconds=[1.0]).finished == 1, "nothing was measured"


# ---- the features


def features(folder: Path) -> dict[str, np.ndarray]:
    with np.load(full().save(folder) / "features.npz") as archive:
        return dict(archive)


def test_features_come_back(tmp_path: Path) -> None:
    written = features(tmp_path)
    found = load_run(tmp_path).sample
    assert isinstance(found, FeatureSample)
    np.testing.assert_equal(vars(found), written)
    (tmp_path / "features.npz").unlink()
    assert load_run(tmp_path).sample is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "cannot be read: 'labels is not a file"),
        ({"labels": np.array([None] * 60, dtype=object)}, "cannot be read: Object arrays"),
        ({"labels": np.zeros(3)}, "fields do not fit together: .*'labels': [(]3,[)]"),
        ({"features": np.zeros(60)}, "fields do not fit together: .*'features': [(]60,[)]"),
        ({"features": np.full((60, 2), np.nan)}, "field 'features' has values that are not finite"),
    ],
)
def test_damaged_features(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    parts = {k: v for k, v in {**features(tmp_path), **change}.items() if v is not None}
    np.savez(tmp_path / "features.npz", **parts)
    with pytest.raises(RecordError, match=rf"features\.npz: {message}"):
        load_run(tmp_path)


def test_half_a_file_of_features(tmp_path: Path) -> None:
    features(tmp_path)
    (tmp_path / "features.npz").write_bytes(b"PK half")
    with pytest.raises(RecordError, match=r"features\.npz: cannot be read"):
        load_run(tmp_path)
