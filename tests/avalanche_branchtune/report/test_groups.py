"""Which runs are averaged, and to what."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path

import pytest

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.report import Run, Statistic, Trace, group_runs
from avalanche_branchtune.report.groups import statistic
from avalanche_branchtune.report.notices import notices
from tests.run_records import ENVIRONMENT, FIRST, SECOND, full, joint, probe, run


def test_mean_and_sample_deviation() -> None:
    assert statistic([1.0, 2.0, 4.0]) == Statistic(7 / 3, pytest.approx(sqrt(7 / 3)), 3)
    assert statistic([1.0, None]) == Statistic(1.0, None, 1), "one run has no deviation"
    assert statistic([None, float("nan")]) is None


def test_runs_of_one_name_are_averaged_over_seeds() -> None:
    (group,) = group_runs([run(seed=1, rows=SECOND), run(seed=0)])
    assert [r.seed for r in group.runs] == [0, 1]
    summary = group.summary("knn")
    means = {name: number.mean for name, number in summary.items()}
    assert means == pytest.approx(
        {
            "final_accuracy": 0.55,
            "continual_accuracy": (0.7 + 2 / 3) / 2,
            "forgetting": 0.15,
            "forward_transfer": 0.10,
            "backward_transfer": -0.10,
        }
    )
    assert summary["final_accuracy"].deviation == pytest.approx(0.1 / sqrt(2))
    assert summary["final_accuracy"].n == 2
    assert [s.mean for s in group.overall("knn")] == pytest.approx(
        [(1.3 / 3 + 1.0 / 3) / 2, (2.1 / 3 + 1.8 / 3) / 2, (1.5 / 3 + 1.8 / 3) / 2]
    )
    cell = group.cells("knn")[1][2]
    assert cell is not None and cell.mean == pytest.approx(0.45)
    assert group.layer_mean("stability") == Statistic(pytest.approx(0.7), 0.0, 2)
    assert group.seconds("seconds") == Statistic(60.0, 0.0, 2)
    assert group.label == "fine-tuning (n = 2)"


def test_a_partial_run_is_never_averaged_with_a_complete_one() -> None:
    (group,) = group_runs([run(seed=0), run(seed=1, rows=SECOND[:2])])
    assert group.label == "fine-tuning (n = 2, 1 of 2 runs partial)"
    summary = group.summary("knn")
    assert summary["final_accuracy"] == Statistic(pytest.approx(0.5), None, 1)
    assert summary["continual_accuracy"] == Statistic(pytest.approx(0.7), None, 1)
    assert [step.n for step in group.overall("knn")] == [2, 2, 1]
    assert group.layers("stability", 1)["conv1"].n == 2
    assert group.layers("stability", 2)["conv1"].n == 1
    assert group.seconds("seconds") == Statistic(60.0, None, 1)


def test_partial_runs_alone() -> None:
    (group,) = group_runs([run(seed=0, rows=FIRST[:2]), run(seed=1, rows=SECOND[:1])])
    assert group.label == "fine-tuning (n = 2, partial: 2 of 3 experiences)"
    assert set(group.summary("knn")) == {"continual_accuracy"}
    assert group.summary("knn")["continual_accuracy"] == Statistic(pytest.approx(0.8), None, 1)
    assert group.layer_mean("stability") == Statistic(pytest.approx(0.8), None, 1)
    assert "Partial run: fine-tuning, seed 0 finished 2 of 3 experiences" in notices([group])[0]
    assert "seed 1 finished 1 of 3" in notices([group])[1]


def test_joint_training_has_a_final_accuracy_only() -> None:
    groups = group_runs([run(), joint()])
    assert [g.at_once for g in groups] == [False, True]
    assert set(groups[1].summary("knn")) == {"final_accuracy"}
    assert groups[1].summary("knn")["final_accuracy"].mean == pytest.approx(0.8)


def test_traces_are_averaged_where_they_were_measured_alike() -> None:
    trace = Trace([0, 10], [[0.2], [0.4]], [0, 1])
    other = Trace([0, 10], [[0.4], [0.8]], [0, 1])
    elsewhere = Trace([0, 11], [[0.9], [0.9]], [0, 1])
    runs = [run(seed=i, trace=t) for i, t in enumerate([trace, other, elsewhere])]
    (group,) = group_runs(runs)
    assert group.trace is not None
    mean, n = group.trace
    assert (n, mean.accuracies) == (2, [[pytest.approx(0.3)], [pytest.approx(0.6)]])


def test_folders_of_runs(tmp_path: Path) -> None:
    run(seed=1).save(tmp_path / "all" / "deep" / "one")
    run(seed=0).save(tmp_path / "all" / "two")
    joint().save(tmp_path / "joint")
    groups = group_runs([tmp_path / "all", str(tmp_path / "joint"), full()])
    assert [(g.name, len(g.runs)) for g in groups] == [
        ("Branch-tuning", 1),
        ("fine-tuning", 2),
        ("joint", 1),
    ]


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no run was given"):
        group_runs([])
    with pytest.raises(RecordError, match=r"neither this folder nor one below it has a run\.json"):
        group_runs([tmp_path])
    with pytest.raises(RecordError, match="no record of a run"):
        group_runs([tmp_path / "missing"])


def test_damaged_records_name_file_and_field(tmp_path: Path) -> None:
    path = run().save(tmp_path / "a") / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["seconds"][1] = "soon"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RecordError, match=r"run\.json: field 'seconds\[1\]'"):
        group_runs([tmp_path])
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")
    with pytest.raises(RecordError, match=r"run\.json: cannot be read"):
        group_runs([tmp_path])


def test_what_differs_between_averaged_runs_is_said() -> None:
    other = {**ENVIRONMENT, "versions": {"torch": "2.2", "numpy": "1.24"}}
    groups = group_runs([run(), run(seed=1, environment=other), joint()])
    said = notices(groups)
    assert said[0] == "Averaged runs of fine-tuning differ in versions.torch: 2.1, 2.2."
    assert "times and memory do not compare" in said[1]
    assert notices(group_runs([run(), joint()])) == []


def test_different_streams_are_said() -> None:
    longer = Run("other", 2, 0, {}, {"knn": probe([[0.5, 0.5], [0.5, 0.5]], random=None)})
    longer.environment = ENVIRONMENT
    (said,) = notices(group_runs([run(), longer]))
    assert "different numbers of experiences (2 in other, 3 in fine-tuning)" in said
