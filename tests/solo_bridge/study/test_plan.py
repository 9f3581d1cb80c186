"""Plans: the list of jobs, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avalanche_branchtune.errors import BranchTuneError, UnknownOptionError
from solo_bridge.comparison import Comparison
from solo_bridge.study.plan import plan_of, read_plan

PLAN = """
question: Do branches forget less?
streams:
  five: {experiences: 5, samples: 200}
  two: {experiences: 2, width: 4}
methods: [simclr, byol]
epochs: [60, 15]
seeds: [3, 1]
arms:
  fine_tuning:
  small: {strategy: branch_tuning, options: {branch_tuning: {branch: 1x1}}, settings: {lr: 0.5}}
  joint:
"""


def test_the_jobs_of_a_plan(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    plan = read_plan(file)
    jobs = plan.jobs()
    assert len(jobs) == len({job.name for job in jobs}) == 2 * 2 * 2 * 2 * 3
    assert [job.name for job in jobs[:4]] == [
        "five-simclr-15/joint-3",
        "five-simclr-15/fine_tuning-3",
        "five-simclr-15/small-3",
        "five-byol-15/joint-3",
    ]
    assert {job.comparison.seed for job in jobs[:24]} == {3}, "seed after seed"
    small = next(job for job in jobs if job.name == "two-byol-60/small-1")
    assert small.strategy == "branch_tuning"
    comparison = small.comparison
    assert (comparison.lr, comparison.width, comparison.experiences) == (0.5, 4, 2)
    assert (comparison.method, comparison.epochs, comparison.seed) == ("byol", 60, 1)
    assert comparison.options == {"branch_tuning": {"branch": "1x1"}}
    assert comparison.folder(small.strategy, "out") == Path("out/small-1")
    assert comparison.title(small.strategy) == "Branch-tuning (small)"
    assert comparison.probes == ["knn", "linear"]


def test_a_stream_can_have_schedules_of_its_own() -> None:
    streams = {"short": None, "long": {"epochs": [7, 15], "samples": 50}}
    plan = plan_of({"streams": streams, "arms": {"joint": None}, "epochs": [2, 15], "seeds": 4})
    assert [job.name.split("/")[0] for job in plan.jobs()] == [
        "short-simclr-2",
        "long-simclr-7",
        "short-simclr-15",
        "long-simclr-15",
    ]
    assert {job.comparison.samples for job in plan.jobs() if "long" in job.group} == {50}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {}}, "arms: expected names"),
        ({"streams": None}, "streams: expected names"),
        ({"strems": 1}, "'strems' is no part: .* did you mean streams?"),
        ({"seeds": [1, 1]}, r"seeds: expected different numbers; got \[1, 1\]"),
        ({"epochs": ["15"]}, "epochs: expected different numbers"),
        ({"epochs": [True]}, "epochs: expected different numbers"),
        ({"arms": {"A b": None}}, "arms: the name 'A b' is one of folders too"),
        (
            {"arms": {"a": {"option": {}}}},
            "'option' is no part of arms.a: .* did you mean options?",
        ),
        ({"arms": {"a": {"options": {"cassle": 1}}}}, "arms.a.options: expected plugin"),
        ({"streams": {"a": {"epochs": "long"}}}, "streams.a.epochs: expected different numbers"),
        ({"streams": {"a": {"sampels": 1}}}, "'sampels' is no setting of streams.a: .* samples"),
        ({"arms": {"a": {"settings": {"width": 2}}}}, "'width' is no setting of arms.a.settings"),
        ({"streams": {"a": {"seed": 1}}}, "'seed' is no setting of streams.a"),
    ],
)
def test_what_is_wrong_with_a_plan_is_named(change: dict[str, object], message: str) -> None:
    content = {"streams": {"five": {}}, "arms": {"fine_tuning": None}}
    plan_of(content)
    with pytest.raises(UnknownOptionError, match=message):
        plan_of({**content, **change})


def test_files_that_are_no_plan(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    with pytest.raises(UnknownOptionError, match=r"plan\.yaml: cannot be read as YAML"):
        read_plan(file)
    file.write_text("a: [")
    with pytest.raises(UnknownOptionError, match=r"plan\.yaml: cannot be read as YAML"):
        read_plan(file)
    file.write_text("streams: {a: }\narms: {a: , a: }")
    with pytest.raises(UnknownOptionError, match=r"plan\.yaml: 'a' is given twice"):
        read_plan(file)
    file.write_text("fine_tuning")
    with pytest.raises(
        UnknownOptionError, match=r"plan\.yaml: expected parts .* got 'fine_tuning'"
    ):
        read_plan(file)


def test_a_plan_is_checked_before_anything_is_trained() -> None:
    unknown = plan_of({"streams": {"five": {}}, "arms": {"fine_tunning": None}})
    with pytest.raises(UnknownOptionError, match="did you mean fine_tuning"):
        unknown.check()
    none = plan_of({"streams": {"five": {"samples": 0}}, "arms": {"fine_tuning": None}})
    with pytest.raises(UnknownOptionError, match="samples"):
        none.check()


@pytest.mark.parametrize("own", [{"lr": 0.9}, {"optimizer": "adam"}, {"width": 8}])
def test_what_a_preset_says_is_not_said_twice(own: dict[str, Any], tmp_path: Path) -> None:
    settings = {"preset": "branch_tuning/cifar100", "data": str(tmp_path), **own}
    with pytest.raises(UnknownOptionError, match="beside preset 'branch_tuning/cifar100', which"):
        Comparison(**settings).check()


def test_what_is_done_otherwise_than_in_a_preset_is_in_the_record() -> None:
    made = Comparison(preset="branch_tuning/cifar100", optimizer_settings={"momentum": 0.1})
    assert made.overridden()["momentum of the optimizer"] == "0.1 instead of 0.9"


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"joint": {"strategy": "frozen"}}, "arms.joint: joint training has the name 'joint'"),
        ({"upper": {"strategy": "joint"}}, "arms.upper: joint training has the name 'joint'"),
        ({"a": {"strategy": "cassle", "options": {"casle": {}}}}, "'casle' is no plugin of arms.a"),
        ({"frozen": None}, "reference: there is no arm 'fine_tuning'"),
        (
            {"fine_tuning": {"settings": {"optimizer": "adamm"}}},
            "digits-simclr-15/fine_tuning-0: .*adamm",
        ),
        ({"fine_tuning": {"settings": {"lr": "1e-3"}}}, "fine_tuning-0: .*lr.*finite number"),
        (
            {"fine_tuning": None, "joint": {"options": {"joint": {"train_epochs": 7}}}},
            "options of joint: train_epochs is the same for all that are compared",
        ),
        (
            {
                "fine_tuning": {
                    "strategy": "branch_tuning",
                    "options": {"branch_tuning": {"branch": "7x7"}},
                }
            },
            "branch: .*7x7",
        ),
    ],
)
def test_arms_that_cannot_be_are_refused(arms: dict[str, object], message: str) -> None:
    plan = plan_of({"streams": {"digits": {"samples": 40}}, "arms": arms})
    with pytest.raises(BranchTuneError, match=message):
        plan.check()
