"""Mistakes in a configuration: one line that names the setting and what to do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("hydra")

from avalanche_branchtune.errors import ConfigError
from solo_bridge import cli
from solo_bridge.commands import parsed
from solo_bridge.run.composing import split
from tests.solo_bridge.run.tiny import tiny

MISTAKES = {
    "methd=byol": "unknown methd; did you mean method?",
    "method=byoll": "did you mean byol?",
    "preset=lap": "did you mean laptop?",
    "hardware=gpuu": "there is no 'gpuu'; did you mean gpu?",
    "backbone=resnet5": "no 'resnet5'; did you mean resnet50?",
    "stream=foldr": "did you mean folder?",
    "stream=folder": "stream.root=… is needed",
    "stream.sample=10": "unknown stream.sample; did you mean samples?",
    "stream.samples=few": "stream.samples: expected a valid integer; got 'few'",
    "traning.epochs=3": "unknown traning; did you mean training?",
    "training.epoch=3": "unknown training.epoch; did you mean epochs?",
    "training.epochs=2.5": "training.epochs: expected a whole number of at least 1; got 2.5",
    "max_epochs=3": "unknown max_epochs: solo-learn's name; here it is training.epochs",
    "method_kwargs.temperature=1": "solo-learn's name; here it is method.NAME",
    "augmentation.views=batchd": "did you mean batched?",
    "hydra.run.dir=a": "only its launcher's can be said",
    "training.lr=fast": "training.lr: expected a valid number; got 'fast'",
    "training.lr=-1": "(lr=…): expected a finite number of at least 0; got -1",
    "training.optimizer=sdg": "did you mean sgd?",
    "training.optimizer_settings.momentm=1": "did you mean momentum?",
    "method.temprature=1": "unknown method.temprature; did you mean temperature?",
    "method.temperature=hot": "method.temperature: expected",
    "strategy=branch_tuning+casle": "did you mean cassle?",
    "options.cassle.weight=0.3": "options.cassle: not a part of strategy 'fine_tuning'",
    "probe=knn+lineal": "did you mean linear?",
    "logger=tensorbord": "did you mean tensorboard?",
    "augmentation.blur_prob=2": "expected a number from 0 to 1; got 2",
    "seed=0,1": "seed=0,1: several values: add --multirun",
    "hardware=slurm": "start jobs of a sweep: add --multirun",
    "-m hardware.processes=2": "the runs of a sweep have a process each",
    "seed=${nope}": "'nope' not found",
    "name=../up": "name: expected that of one folder",
    "imports=[nowhere.py]": "nowhere.py",
    "a==": "Error parsing override 'a=='",
}


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["run", *words]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1 and "Traceback" not in streams.err
    return streams.err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    *flags, last = mistake.split()
    line = said(capsys, *flags, *tiny(tmp_path), last)
    assert line.startswith("branchtune run: ") and MISTAKES[mistake] in line
    assert list(tmp_path.iterdir()) == []


def test_a_papers_settings_want_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(capsys, "preset=cassle/cifar100", f"out={tmp_path}")
    assert "is of CIFAR-100: say where they are, as stream=split_cifar100 stream.root=DIR" in line


def test_options_may_stand_among_overrides() -> None:
    words = ["run", "preset=laptop", "--multirun", "seed=0,1", "--cfg", "job", "method=byol"]
    found = parsed(words)
    assert found.overrides == ["preset=laptop", "seed=0,1", "method=byol"]
    assert found.multirun and found.cfg == "job"
    with pytest.raises(SystemExit):
        parsed(["run", "preset=laptop", "-m", "--fast=1"])
    hydras = ["+hydra.launcher.additional_parameters.account=a", "hydra/launcher=submitit_local"]
    assert split(["seed=0,1", *hydras]) == (hydras, ["seed=0,1"])
    assert parsed(["run", "--cfg", "job", "~method.tau"]).overrides == ["~method.tau"]


@pytest.mark.parametrize("said", ["hydra.run.dir=a", "hydra.sweep.dir=a", "hydra/sweeper=optuna"])
def test_of_hydras_own_settings_only_the_launchers_can_be_said(said: str) -> None:
    with pytest.raises(ConfigError, match="only its launcher's can be said"):
        split([said])


def test_hydras_flags_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["run", "--config-name", "a"])
    assert "of Hydra's flags there are -m and --cfg, and --config FILE" in capsys.readouterr().err


def test_options_of_plugins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tiny(tmp_path, "strategy=branch_tuning+cassle")
    assert "did you mean weight?" in said(capsys, *words, "options.cassle.weigth=0.3")
    assert "options.cassle.hidden: expected" in said(capsys, *words, "options.cassle.hidden=big")
    assert "options.cassle.NAME=…" in said(capsys, *words, "options.cassle=3")


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no such file" in said(capsys, "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [", encoding="utf-8")
    assert "no valid YAML" in said(capsys, "--config", str(broken))
    broken.write_text("- a\n", encoding="utf-8")
    assert "expected a configuration" in said(capsys, "--config", str(broken))


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    hidden = lambda name, *more: None if name == "hydra" else find(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    assert "pip install 'avalanche-branchtune[cli]'" in said(capsys, "preset=laptop")


def test_a_sweep_of_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from avalanche_branchtune.errors import ConfigError
    from solo_bridge.run.composing import sweep
    from solo_bridge.run.running import checked, run_of

    each = sweep(tiny(tmp_path, "name=mine", "training.lr=0.1,0.2"))
    runs = [run_of(one) for one in each]
    with pytest.raises(ConfigError, match="two runs of the sweep would be in this folder"):
        checked(runs)
    assert list(tmp_path.iterdir()) == []
