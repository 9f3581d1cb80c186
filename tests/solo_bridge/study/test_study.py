"""A study from its plan to its tables: stopped by time, gone on with, and with a run that fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.records import load_run
from solo_bridge import cli, registry
from solo_bridge.study.plan import plan_of, read_plan
from solo_bridge.study.results import Row, collect, load_results
from solo_bridge.study.running import progress, run_study
from solo_bridge.study.text import tables

FAILING = '''
from avalanche.core import SupervisedPlugin
from solo_bridge.registry import register

@register("failing")
class Failing(SupervisedPlugin):
    """Fails until a file beside this one is gone."""

    def before_training(self, strategy, *args, **kwargs):
        from pathlib import Path
        if Path(__file__).with_name("broken").exists():
            raise RuntimeError("out of luck")
'''
PLAN = """
streams:
  digits: {samples: 40, experiences: 2, width: 4, batch: 10}
epochs: [1]
seeds: [5]
probes: [knn, linear, online]
arms:
  fine_tuning:
  failing: {strategy: fine_tuning+failing}
  joint:
  pointwise: {strategy: branch_tuning, options: {branch_tuning: {branch: 1x1}}}
"""


@pytest.fixture(autouse=True)
def _registry_as_it_was() -> Iterator[None]:
    names, threads = dict(registry.ENTRIES), torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    registry.ENTRIES.clear()
    registry.ENTRIES.update(names)


def test_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, mine, out = tmp_path / "plan.yaml", tmp_path / "failing_study.py", tmp_path / "out"
    file.write_text(PLAN)
    mine.write_text(FAILING)
    (tmp_path / "broken").touch()
    command = ["study", str(file), "--out", str(out), "--jobs", "2", "--import", str(mine)]

    assert cli.main([*command, "--hours", "1e-9"]) == 0
    assert "Not finished: 4 runs: digits-simclr-1/joint-5, " in capsys.readouterr().out
    assert cli.main(command) == 1
    said = capsys.readouterr()
    assert "Failed: digits-simclr-1/failing-5: RuntimeError: out of luck" in said.out
    assert "Not finished: 1 runs: digits-simclr-1/failing-5" in said.out
    assert said.err.count("finished") == 3

    (tmp_path / "broken").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert "ailed" not in said.out and "Not finished" not in said.out
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is there is kept"
    assert cli.main([*command, "--list"]) == 0
    assert capsys.readouterr().out.count("finished ") == 4

    results = load_results(out / "plan.json")
    assert [(row.arm, row.seed) for row in results.rows] == [
        ("joint", 5),
        ("fine_tuning", 5),
        ("failing", 5),
        ("pointwise", 5),
    ]
    row = results.rows[-1]
    run = load_run(out / "digits-simclr-1" / "pointwise-5")
    assert run.name == "Branch-tuning (pointwise)"
    assert run.settings["options of branch_tuning"] == "{'branch': '1x1'}"
    assert row.final("kNN") == pytest.approx(run.probes["kNN"].overall[-1], abs=1e-4)
    assert set(row.accuracies) == {"kNN", "linear", "online"}
    assert all(len(series) == 2 for series in row.accuracies.values())
    mean = sum(run.stability[1].values()) / len(run.stability[1])
    assert row.final("S") == pytest.approx(mean, abs=1e-4)
    mean = sum(run.plasticity[1].values()) / len(run.plasticity[1])
    assert row.final("P") == pytest.approx(mean, abs=1e-4), "against joint training"
    same, other = results.rows[1], results.rows[2]
    assert same.accuracies == other.accuracies, "a plugin that does nothing changes nothing"
    assert "seed" in tables(results) and "pointwise" in tables(results)

    asked = json.loads((out / "digits-simclr-1" / "joint-5" / "comparison.json").read_text())
    assert asked["settings"]["samples"] == 40
    file.write_text(PLAN.replace("samples: 40", "samples: 60"))
    assert cli.main(command) == 2
    assert "samples 60 instead of 40" in capsys.readouterr().err


def test_results_of_nothing(tmp_path: Path) -> None:
    plan = plan_of({"streams": {"digits": {}}, "arms": {"fine_tuning": None}})
    results = collect(plan, tmp_path)
    assert results.rows == [] and len(results.left) == len(progress(plan, tmp_path).left) == 3
    results.save(tmp_path / "plan.json")
    assert load_results(tmp_path / "plan.json") == results
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(RecordError, match="holds no results of a study"):
        load_results(tmp_path / "plan.json")
    with pytest.raises(ValueError, match="hours"):
        run_study(plan, tmp_path, hours=0)


def test_rows_give_numbers_of_whole_runs() -> None:
    row = Row("g", "a", 0, {"kNN": [0.1, 0.4]}, [None, 0.9, 0.7], [0.1, 0.5, 0.7])
    assert [row.final(m) for m in ("kNN", "linear", "S", "P")] == [0.4, None, 0.8, 0.6]


@pytest.mark.slow
def test_resume_goes_on_with_a_study(tmp_path: Path) -> None:
    file, out = tmp_path / "plan.yaml", tmp_path / "out"
    file.write_text(PLAN.replace("  failing: {strategy: fine_tuning+failing}\n", ""))
    plan = read_plan(file)
    assert cli.main(["study", str(file), "--out", str(out), "--hours", "1e-9"]) == 0
    assert len(progress(plan, out).left) == 3
    assert cli.main(["resume", str(out), "--jobs", "1"]) == 0
    assert progress(plan, out).left == ()
    assert collect(plan, out).rows[-1].final("P") is not None
