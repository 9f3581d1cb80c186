"""Which runs are refused, to be averaged or to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.report import group_runs
from tests.run_records import PROTOCOL, SECOND, probe, run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"epochs": 3}}, ["settings.data", '"digits"', "absent"]),
        (
            {"settings": {"data": "digits", "optimizer": {"name": "sgd", "lr": 0.2}, "epochs": 2}},
            ["settings.optimizer.lr", "is 0.1 in", "0.2 in"],
        ),
        ({"probes": {"linear": probe()}}, ["probes is", '["knn"]', '["linear"]']),
        ({"analysis_protocol": "linear CKA, 64"}, ["analysis_protocol", '"linear CKA, 64"']),
        ({"n_experiences": 4}, ["n_experiences is 3", "4 in"]),
    ],
)
def test_runs_that_differ_are_not_averaged(change: dict[str, Any], said: list[str]) -> None:
    other = run(seed=1, **{k: v for k, v in change.items() if k != "n_experiences"})
    other.n_experiences = change.get("n_experiences", 3)
    if other.n_experiences == 4:
        other.probes = {"knn": probe([[0.1, 0.2, 0.3, 0.4]], random=None)}
    with pytest.raises(RecordError) as caught:
        group_runs([run(), other])
    for text in [*said, "fine-tuning (seed 0)", "fine-tuning (seed 1)", "not averaged"]:
        assert text in str(caught.value)


def test_protocols_that_differ_are_neither_averaged_nor_compared() -> None:
    other = probe()
    other.protocol = {**PROTOCOL, "k": 5}
    with pytest.raises(
        RecordError, match=r"not averaged: probes\.knn\.protocol\.k is 20 in .* but 5"
    ):
        group_runs([run(), run(seed=1, probes={"knn": other})])
    with pytest.raises(RecordError, match=r"protocol\.k is 20 in fine-tuning .*two reports"):
        group_runs([run(), run("Branch-tuning", probes={"knn": other})])
    with pytest.raises(RecordError, match="analysis_protocol"):
        group_runs([run(), run("Branch-tuning", analysis_protocol="other")])
    other_name = run("Branch-tuning", settings={"epochs": 9}, probes={"linear": other})
    assert len(group_runs([run(), other_name])) == 2, "other names may differ in settings"


def test_long_values_are_shown_where_they_differ() -> None:
    one, two = ("x" * 300 + end + "y" * 300 for end in ("left", "right"))
    with pytest.raises(RecordError) as caught:
        group_runs([run(settings={"a": one}), run(seed=1, settings={"a": two})])
    assert "xleft" in str(caught.value) and "xright" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_no_run_counts_twice(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="seed 0 is there twice"):
        group_runs([run(), run(rows=SECOND)])
    with pytest.raises(RecordError, match="the same run is there twice"):
        group_runs([run(seed=None), run(seed=None)])
    assert len(group_runs([run(seed=None), run(seed=None, rows=SECOND)])[0].runs) == 2
    run().save(tmp_path / "a")
    with pytest.raises(RecordError, match=r"seed 0 is there twice, in \S+/a and in \S+/a"):
        group_runs([tmp_path / "a", tmp_path])


def test_lists_and_tuples_are_alike(tmp_path: Path) -> None:
    run(settings={"crops": (1, 2)}).save(tmp_path / "a")
    assert len(group_runs([tmp_path / "a", run(seed=1, settings={"crops": (1, 2)})])) == 1


@pytest.mark.parametrize("rows", [[[0.1, 0.2]], [[None, None, None]], [[0.5, None, None]] * 2])
def test_matrices_that_mean_nothing(rows: list[list[float | None]]) -> None:
    with pytest.raises(RecordError, match=r"field 'probes\.knn\.accuracies'"):
        group_runs([run(probes={"knn": probe(rows, random=None)})])
