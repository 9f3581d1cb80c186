"""The groups of a configuration are what the registries have, and every name can be chosen."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra")

from avalanche_branchtune.errors import ConfigError, UnknownOptionError
from avalanche_branchtune.streams import STREAMS
from solo_bridge.augmentation import MEAN
from solo_bridge.comparison import Comparison
from solo_bridge.defaults import DEFAULTS
from solo_bridge.method import available_methods
from solo_bridge.presets import PRESETS
from solo_bridge.run import groups
from solo_bridge.run.completing import completed, experiment, folder
from solo_bridge.run.composing import composed

ROOT = {
    "paper/imagenet100_5": ["stream.root=there", "stream.classes=there.txt"],
    "paper/domainnet": ["stream.root=there"],
}


def test_every_method_has_its_settings() -> None:
    listed = groups.GROUPS["method"][1]()
    assert set(listed) == {*DEFAULTS, groups.FROM_YAML}
    assert available_methods().keys() <= set(listed)
    for name in DEFAULTS:
        assert DEFAULTS[name].method_kwargs.keys() <= groups.method(name).keys()


@pytest.mark.parametrize("name", ["mae", "deepclusterv2", "byol"])
def test_a_method_starts_from_its_own_settings(name: str) -> None:
    made = completed(composed([f"method={name}", "stream.n_experiences=5", "training.epochs=1"]))
    for setting, value in DEFAULTS[name].method_kwargs.items():
        assert made["method"][setting] == value
    assert made["training"]["lr"] == DEFAULTS[name].lr
    assert completed(made) == made, "a complete configuration stays as it is"


def test_every_stream_has_the_options_of_the_registry_and_of_each_division() -> None:
    for name, entry in STREAMS.items():
        for division in (None, *entry.divisions):
            found = groups.stream(name if division is None else f"{name}/{division}")
            wanted = entry.options(division)
            assert found.keys() == {"name", "division", "size", *wanted}
            empty = {n for n, value in wanted.items() if value is inspect.Parameter.empty}
            assert {n for n, value in found.items() if value == "???"} == empty


def test_a_division_is_chosen_behind_the_name_of_the_data() -> None:
    chosen = ["stream=digits/sparse", "stream.per_experience=2", "stream.n_experiences=3"]
    made = completed(composed([*chosen, "stream.samples=100", "training.epochs=1"]))
    stream = experiment(made).stream()
    assert [len(e.classes_in_this_experience) for e in stream.train_stream] == [2, 2, 2]


@pytest.mark.parametrize("name", [*groups.files("preset"), *PRESETS])
def test_every_preset_is_complete(name: str) -> None:
    method = "barlow_twins" if "barlow_twins" in getattr(PRESETS.get(name), "methods", {}) else ""
    chosen = [f"preset={name}", *([f"method={method}"] if method else []), *ROOT.get(name, [])]
    made = completed(composed(chosen))
    assert completed(made) == made
    assert made["training"]["epochs"] >= 6
    if made["preset"] is not None:
        own = PRESETS[made["preset"]].method(made["method"]["name"])
        assert made["training"]["lr"] == own.lr
        assert own.method_kwargs.items() <= made["method"].items()


def test_imagenet100_needs_its_classes() -> None:
    with pytest.raises(ConfigError, match=r"stream\.classes=… is needed"):
        completed(composed(["preset=paper/imagenet100_5", "stream.root=there"]))


def test_a_logger_does_not_part_runs_that_are_compared() -> None:
    every = ["stream.n_experiences=2", "training.epochs=1"]
    plain, logged = (completed(composed([*every, *more])) for more in ([], ["logger=wandb"]))
    assert experiment(plain).logger is None and experiment(logged).logger == "wandb"
    assert folder(plain) == folder(logged)


def test_every_group_lists_what_it_takes() -> None:
    for make, names in groups.GROUPS.values():
        listed = names()
        assert len(set(listed)) >= 5
        for name in listed[:3]:
            assert make(name) is not None


def test_images_are_judged_as_they_are_trained_on() -> None:
    """Mean and deviation of the views' pipelines, and in the record unless they are the usual."""
    chosen = ["preset=paper/imagenet100_5", "stream.root=there", "stream.classes=list.txt"]
    configured = experiment(completed(composed(chosen)))
    compared = Comparison(preset="cassle/imagenet100", data="there", size=224)
    for made in (configured, compared):
        assert made.eval_view.mean == (0.485, 0.456, 0.406)
        facts = made.stream_facts()
        assert facts["image size"] == 224 and facts["image deviation"] == (0.228, 0.224, 0.225)
    usual = experiment(completed(composed(["stream.n_experiences=2", "training.epochs=1"])))
    assert usual.eval_view.mean == MEAN and "image mean" not in usual.stream_facts()


FILE = """
method: vicreg
backbone: {name: resnet18}
data: {dataset: cifar10}
optimizer: {name: lars, lr: 0.3, batch_size: 64, kwargs: {eta: 0.02}}
scheduler: {name: none}
max_epochs: 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vicreg.yaml"
    path.write_text(FILE, encoding="utf-8")
    return path


def of_file(file: Path, *overrides: str) -> dict[str, Any]:
    return completed(composed(["stream.n_experiences=2", *overrides], file))


def test_a_file_of_solo_learns_has_its_views_and_its_method(file: Path) -> None:
    assert of_file(file)["augmentation"]["views"] == "solo_learn"
    assert of_file(file, "augmentation.views=batched")["augmentation"]["views"] == "batched"
    with pytest.raises(ConfigError, match=r"is of vicreg: leave method=simclr out"):
        of_file(file, "method=simclr")
    with pytest.raises(ConfigError, match=r"optimizer.lr: \?\?\? says that a value"):
        of_file(_changed(file, "lr: 0.3", 'lr: "???"'))
    with pytest.raises(UnknownOptionError, match=r"backbone.kwargs.cifar"):
        of_file(_changed(file, "{name: resnet18}", "{name: resnet18, kwargs: {cifar: true}}"))


def test_another_optimizer_keeps_the_schedule(file: Path) -> None:
    assert of_file(file)["training"]["optimizer_settings"]["eta"] == 0.02
    settings = of_file(file, "training.optimizer=sgd", "training.optimizer_settings.momentum=0.8")
    said = settings["training"]["optimizer_settings"]
    assert said["scheduler"] == "none" and said["momentum"] == 0.8 and "eta" not in said


def _changed(file: Path, old: str, new: str) -> Path:
    file.write_text(FILE.replace(old, new), encoding="utf-8")
    return file
