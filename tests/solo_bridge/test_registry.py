"""Strategies by name, the references, and what may not be combined."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import (
    IncompatiblePluginError,
    NameTakenError,
    UnknownOptionError,
)
from avalanche_branchtune.metrics import ParameterMetric, RunRecorder
from avalanche_branchtune.metrics.parameters import held_parameters
from avalanche_branchtune.records import load_run
from solo_bridge import SelfSupervised, registry, specification
from solo_bridge.cli import main
from solo_bridge.comparison import Comparison, compare, experiment
from solo_bridge.plugins import CaSSLePlugin, DERPlugin, KaizenPlugin, LUMPPlugin
from solo_bridge.references import FineTuning, Frozen, Joint
from solo_bridge.titles import TITLES
from tests.selfsupervised import method, strategy, stream, weights

SETTINGS: dict[str, Any] = {"train_mb_size": 20, "optimizer": "sgd", "lr": 0.1, "evaluator": None}


@pytest.fixture(autouse=True)
def _own_names() -> Iterator[None]:
    before = dict(registry.ENTRIES)
    yield
    registry.ENTRIES.clear()
    registry.ENTRIES.update(before)


def test_a_specification_makes_its_plugins() -> None:
    made = specification.build(
        "cassle + branch_tuning",
        method(),
        options={"cassle": {"weight": 3.0}, "branch_tuning": {"verbose": False}},
        **SETTINGS,
    )
    assert type(made) is SelfSupervised
    found = {type(p): p for p in made.plugins}
    assert found[CaSSLePlugin]._weight == 3.0 and BranchTuningPlugin in found
    assert specification.title("branch_tuning+cassle") == "Branch-tuning + CaSSLe"


def test_the_table_of_titles_is_the_registry() -> None:
    assert {name: specification.title(name) for name in specification.names()} == TITLES


def test_a_strategy_can_be_a_part() -> None:
    made = specification.build("frozen+branch_tuning", method(), **SETTINGS)
    assert type(made) is Frozen and any(isinstance(p, BranchTuningPlugin) for p in made.plugins)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("branch_tunning", "'branch_tunning' is unknown; known are .*branch_tuning.*cassle"),
        ("cassle+branchtuning", "; did you mean branch_tuning[?]$"),
        ("Fine-Tuning", "; did you mean fine_tuning[?]$"),
        ("quantum", "known are .*, si$"),
        ("cassle+", "'' is unknown"),
        ("cassle+cassle", "'cassle' is given twice"),
        ("frozen+joint", "frozen and joint are each a whole strategy"),
    ],
)
def test_bad_specifications(spec: str, message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        specification.build(spec, method(), **SETTINGS)


def test_options_of_a_part_that_is_not_there() -> None:
    with pytest.raises(UnknownOptionError, match="options for 'kaizen', which is not part of it"):
        specification.build("cassle", method(), options={"kaizen": {}}, **SETTINGS)


def test_own_names() -> None:
    @registry.register("mine", "Mine")
    class Mine(SupervisedPlugin):
        def __init__(self, strength: int = 1) -> None:
            super().__init__()
            self.strength = strength

    registry.register("mine", "Mine")(Mine)  # again: the same thing
    made = specification.build(
        "mine+cassle", method(), options={"mine": {"strength": 2}}, **SETTINGS
    )
    assert [p.strength for p in made.plugins if isinstance(p, Mine)] == [2]
    with pytest.raises(NameTakenError, match=r"taken by .*Mine.*; taken are .*branch_tuning.*mine"):
        registry.register("mine")(CaSSLePlugin)
    with pytest.raises(UnknownOptionError, match="lower case"):
        registry.register("Branch-tuning")


def test_conflicts_are_refused_whoever_names_them() -> None:
    class Stubborn(SupervisedPlugin):
        conflicts: ClassVar[dict[type, str]] = {CaSSLePlugin: "it wants to be alone"}

    for plugins in ([Stubborn(), KaizenPlugin()], [CaSSLePlugin(), Stubborn()]):
        with pytest.raises(IncompatiblePluginError, match=r"beside .*: it wants to be alone"):
            strategy(plugins=plugins)
    strategy(plugins=[Stubborn(), BranchTuningPlugin()])


def train(cls: type[SelfSupervised], whole: bool = False, **settings: Any) -> SelfSupervised:
    run = cls(method(), **{**SETTINGS, "train_epochs": 2, **settings})
    torch.manual_seed(0)
    experiences = stream(5).train_stream
    for part in [experiences] if whole else experiences:
        run.train(part)
    return run


def test_fine_tuning_is_the_strategy_itself() -> None:
    assert torch.equal(weights(train(FineTuning).model), weights(train(SelfSupervised).model))


def test_frozen_learns_the_first_experience_only() -> None:
    frozen = Frozen(method(), **{**SETTINGS, "train_epochs": 2})
    states = []
    for experience in stream(5).train_stream:
        frozen.train(experience)
        states.append(weights(frozen.model))
    start = weights(method())
    assert not torch.equal(states[0], start)
    assert all(torch.equal(s, states[0]) for s in states[1:])
    assert frozen.clock.train_iterations == 2 and frozen.clock.train_exp_counter == 5


class Labels(SupervisedPlugin):
    """The labels of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.seen.append([])

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        assert len(strategy.mb_x) == 2, "views"
        self.seen[-1] += strategy.mb_y.tolist()


def test_joint_sees_everything_in_one_experience(tmp_path: Path) -> None:
    labels = Labels()
    evaluator = EvaluationPlugin(loggers=[RunRecorder(tmp_path, "joint")])
    run = train(Joint, whole=True, plugins=[labels], evaluator=evaluator)
    everything = sorted(label for e in stream(5).train_stream for label in e.dataset.targets)
    assert [sorted(epoch) for epoch in labels.seen] == [everything] * 2
    assert run.clock.train_exp_counter == 1 and load_run(tmp_path).n_experiences == 1
    with pytest.raises(UnknownOptionError, match="the whole stream at once"):
        run.train(stream(5).train_stream[0])


def test_what_a_strategy_holds_is_counted() -> None:
    metric = ParameterMetric()
    cassle = CaSSLePlugin(hidden=16)
    model = method()
    plain = sum(v.numel() for v in [*model.parameters(), *model.buffers()])
    run = strategy(
        model,
        [cassle, BranchTuningPlugin(verbose=False)],
        evaluator=EvaluationPlugin(metric, loggers=[]),
    )
    for experience in stream(2).train_stream:
        run.train(experience)
    branches = 8 * 3 * 6 + 8 * 8 * 6  # 1×3 and 3×1 for each pair of channels
    predictor = (8 * 16 + 16) + (16 * 8 + 8) + (2 * 16 + 2 * 16 + 1)
    parts = [model.backbone, model.projector]
    norms = [m for p in parts for m in p.modules() if hasattr(m, "running_mean")]
    copies = sum(v.numel() for p in parts for v in [*p.parameters(), *p.buffers()])
    statistics = sum(2 * m.num_features for m in norms)  # a teacher's, which it does not keep
    assert metric.network == plain
    assert metric.during == branches + predictor + copies - statistics
    assert metric.after == 0
    held = {"a": torch.zeros(3), "b": [torch.zeros(2, 2)], "a term": torch.zeros(())}
    assert held_parameters(held) == 7


def test_remembered_digits_are_not_mirrored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it was asked for."""
    given: dict[str, Any] = {}

    def stop(spec: str, method: Any, *, options: Any, **settings: Any) -> None:
        given.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "build", stop)
    mirrored = {"lump": {"replay_view": None, "memory": 5}}
    whole = {"lump": {"views": "before_augmentation"}}  # makes no view of a remembered image alone
    several: list[dict[str, Any]] = [{}, {"options": mirrored}, {"options": whole}]
    for number, more in enumerate(several):
        small = Comparison(samples=40, epochs=1, experiences=2, width=4, workers=0, **more)
        with pytest.raises(KeyboardInterrupt):
            small.run("lump+der", tmp_path / str(number), bar=False)
        crop = given["der"]["replay_view"]
        assert (crop.flip_prob, crop.jitter_prob, crop.grayscale_prob) == (0, 0, 0)
        assert (crop.crop_size, crop.crop_min_scale) == (16, 0.5)
        asked = more.get("options", {"lump": {"replay_view": crop}})["lump"]
        assert given["lump"] == asked and LUMPPlugin(**asked)
        assert DERPlugin(**given["der"]).needs == {"index"}


def test_strategies_are_compared_each_in_its_own_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = Comparison(samples=300, epochs=1, experiences=2, width=4, batch=64, workers=0)
    seen = []
    file = tmp_path / "mine_of_compare.py"
    file.write_text(
        "from solo_bridge import Frozen, register\n"
        "@register('mine', 'mine')\n"
        "class Mine(Frozen): ...\n"
    )
    runs = compare(
        ["mine", "joint"],
        small,
        tmp_path,
        separate=True,
        done=seen.append,
        imports=[str(file)],
    )
    assert [r.name for r in runs] == ["mine", "joint"] and seen[0].name == "joint"
    progress = capfd.readouterr().err
    assert "mine: experience 2 of 2, loss " in progress and "joint: experience 1 of 1" in progress
    assert progress.count("\n") == 3 and "%|" not in progress, "bars are for terminals"
    assert runs[0].complete and runs[0].plasticity[0] and runs[0].parameters["during"] == 0
    assert runs[1].n_experiences == 1 and (tmp_path / "joint-0/backbone.pt").is_file()
    with pytest.raises(UnknownOptionError, match="'cold' is unknown"):
        compare(["frozen", "cold"], small, tmp_path / "other", separate=True)
    assert not (tmp_path / "other").exists()
    assert small.run("joint+cassle", tmp_path, bar=False).n_experiences == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--method", "simclear"], "expected one of .*simclr"),
        (["--strategies", "branch_tunning"], "'branch_tunning' is unknown"),
        (["--strategies", "frozen,frozen"], "'frozen' is given twice"),
        (["--seed", "-1"], "seed: expected a whole number of at least 0; got -1"),
        (["--epochs", "0"], "epochs: expected a whole number of at least 1; got 0"),
        (["--experiences", "3"], "with 10 classes: expected one of 1, 2, 5, 10; got 3"),
        (["--import", "no/mine.py"], "no/mine.py: expected a Python file"),
    ],
)
def test_the_command_says_what_is_wrong_before_it_trains(
    option: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    out = tmp_path / "out"
    small = ["--samples", "200", "--strategies", "frozen"]
    assert main(["compare", "--out", str(out), *small, *option]) == 2
    torch.set_num_threads(threads)
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("\n") == 1 and not out.exists()


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine_registered.py"
    file.write_text(
        "import mine_beside\nfrom solo_bridge import Frozen, register\n"
        "@register('mine')\nclass Mine(Frozen): ...\n"
    )
    with pytest.raises(UnknownOptionError, match=r"registered.py, line 1: .*'mine_beside'"):
        registry.import_file(file)
    (tmp_path / "mine_beside.py").touch()
    registry.import_file(file)
    registry.import_file(file)
    assert "mine" in specification.names()
    (tmp_path / "json.py").touch()
    with pytest.raises(UnknownOptionError, match="another module has this name: rename"):
        registry.import_file(tmp_path / "json.py")
    with pytest.raises(UnknownOptionError, match=r"expected a Python file"):
        registry.import_file(tmp_path / "mine.txt")
    file = tmp_path / "mine_wrong.py"
    file.write_text("a = 1\ndef (:\n")
    with pytest.raises(UnknownOptionError, match=r"mine_wrong.py, line 2: SyntaxError"):
        registry.import_file(file)


def test_each_strategy_is_made_before_the_first_is_trained(tmp_path: Path) -> None:
    small = Comparison(samples=40, size=8, width=2, epochs=1, experiences=2, batch=20)
    with pytest.raises(IncompatiblePluginError, match="CLRPlugin beside BranchTuningPlugin"):
        compare(["fine_tuning", "branch_tuning+clr"], small, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
