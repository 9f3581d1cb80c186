"""Methods and strategies made of presets: what they are trained by, and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge import Kaizen, SelfSupervised, SoloMethod, build
from solo_bridge.defaults import DEFAULTS
from solo_bridge.optim import OptimizerSettings
from solo_bridge.plugins import CaSSLePlugin, KaizenPlugin
from solo_bridge.presets import PRESETS, preset
from solo_bridge.specification import entries, names
from tests.selfsupervised import VIEW, Bare, backbone, method, small, stream, weights

RUNS = [(p.name, name) for p in PRESETS.values() for name in p.methods]


def made(name: str, of: str, **overrides: Any) -> SoloMethod:
    """As the preset says, but a tiny network on 8 pixels."""
    torch.manual_seed(0)
    tiny: dict[str, Any] = {"image_size": 8, "num_classes": 10, **small(name)}
    return SoloMethod.from_preset(name, of, backbone=backbone(), **{**tiny, **overrides})


@pytest.mark.parametrize(("of", "name"), RUNS)
def test_every_preset_says_all_there_is_to_say(of: str, name: str) -> None:
    found = preset(of)
    run = found.method(name)
    assert set(run.method_kwargs) == set(DEFAULTS[name].method_kwargs)
    assert sum(a.num_crops for a in run.augmentations) == 2
    assert {a.crop_size for a in run.augmentations} == {found.image_size}
    momentum = {"byol", "mocov2plus"}
    assert (run.tau is not None) == (name in momentum)
    OptimizerSettings(run.optimizer, run.lr, run.weight_decay, **run.optimizer_settings)
    rate = {"scheduler", "momentum"}
    lars = {"eta", "clip", "exclude_bias_and_norm", "trust"}
    assert set(run.optimizer_settings) >= rate | (lars if run.optimizer == "lars" else set())
    assert set(found.options(name)) <= set(names())
    parts = {entry.name for spec in found.strategies for entry in entries(spec)}
    assert set(found.options(name)) <= parts, "options of what is compared"
    with pytest.raises(FrozenInstanceError):
        run.lr = 1.0  # type: ignore[misc]


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownOptionError, match=r"preset: .*; did you mean cassle/cifar100\?"):
        preset("cassle/cifar10")
    said = r"'cassle/cifar100': 'mocov2plus' was not run there; it has barlow_twins, byol, simclr"
    with pytest.raises(UnknownOptionError, match=said):
        SoloMethod.from_preset("mocov2plus", "cassle/cifar100")
    with pytest.raises(UnknownOptionError, match=r"temprature=…\): unknown setting"):
        SoloMethod.from_preset("simclr", "cassle/cifar100", temprature=1)


def test_a_method_has_the_presets_settings_and_overrides_win() -> None:
    model = SoloMethod.from_preset("simclr", "kaizen/cifar100", backbone=backbone(), image_size=16)
    assert (model.preset, model.image_size, model.num_classes) == ("kaizen/cifar100", 16, 100)
    kwargs = {"proj_hidden_dim": 4096, "proj_output_dim": 256, "temperature": 0.1}
    assert model.settings.method_kwargs == kwargs
    assert [a.solarization_prob for a in model.augmentations] == [0.0, 0.2]
    assert {a.crop_size for a in model.augmentations} == {16}
    assert {a.std for a in model.augmentations} == {(0.247, 0.243, 0.261)}
    moco = made("mocov2plus", "kaizen/cifar100", tau=(0.5, 0.6), temperature=1.5)
    assert moco.settings.tau == (0.5, 0.6) and moco.solo.temperature == 1.5
    assert moco.preset == copy.deepcopy(moco).preset == pickle.loads(pickle.dumps(moco)).preset
    assert method().preset is None, "a method of no preset"
    own = replace(preset("lump/cifar10"), name="mine")
    assert made("simsiam", "lump/cifar10").lr == SoloMethod.from_preset("simsiam", own).lr == 0.03


class Watch(SupervisedPlugin):  # type: ignore[misc]
    """Keeps each step's rates, and the groups of each experience."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[list[list[float]]] = []
        self.groups: list[list[dict[str, Any]]] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.rates.append([])

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        groups = strategy.optimizer.param_groups
        self.rates[-1].append([g["lr"] for g in groups])
        if len(self.groups) < len(self.rates):
            self.groups.append([{k: v for k, v in g.items() if k != "params"} for g in groups])


SHORT: dict[str, Any] = {"train_mb_size": 20, "evaluator": None, "train_epochs": 3}


def test_a_strategy_of_its_own_trains_as_the_paper() -> None:
    """Epochs, batch, optimizer, rates, decay and views, over three experiences."""
    model = made("swav", "cassle/cifar100")
    run = SelfSupervised(model, evaluator=None)
    assert (run.train_epochs, run.train_mb_size, run.precision) == (500, 256, "bf16")
    settings = run.optimizer_settings
    assert (settings.name, settings.lr, settings.weight_decay) == ("lars", 0.6, 1e-6)
    assert not settings.exclude_bias_and_norm and settings.clip and settings.eta == 0.02
    watch = Watch()
    run = SelfSupervised(
        model,
        train_epochs=4,
        train_mb_size=10,
        evaluator=None,
        plugins=[watch],
        precision="32",
        optimizer_settings={"warmup_epochs": 2},
    )
    for experience in stream(5).train_stream[:3]:
        run.train(experience)
    scaled = 0.6 * 10 / 256
    assert [len(rates) for rates in watch.rates] == [8, 8, 8], "two steps an epoch"
    for rates in watch.rates:
        by_epoch = (0.003, scaled, scaled, (scaled + 6e-4) / 2)
        assert rates == [pytest.approx([r] * 3) for r in by_epoch for _ in range(2)]
    for groups in watch.groups:
        assert len(groups) == 3, "backbone, projector, prototypes"
        for group in groups:
            assert group["weight_decay"] == 1e-6 and group["momentum"] == 0.9


def test_lars_takes_biases_and_norms_where_the_script_says_so() -> None:
    """A step by hand: LARS's rate, of a bias as of a kernel, or the group's."""
    for of, name, on_all in (
        ("branch_tuning/cifar100", "mocov2plus", True),
        ("branch_tuning/cifar100", "simclr", False),
    ):
        found = preset(of).training(name)
        settings = OptimizerSettings(
            found["optimizer"], 2.0, found["weight_decay"], **found["optimizer_settings"]
        )
        bias, kernel = (torch.nn.Parameter(torch.full(s, 0.5)) for s in ((4,), (2, 2)))
        optimizer = settings.optimizer([{"params": [bias, kernel]}])
        for p in (bias, kernel):
            p.grad = torch.ones_like(p)
        optimizer.step()
        trust = 0.02 * 1.0 / 2.0  # eta · |w| / |g|; of all there is no weight decay
        moved = [float(0.5 - p.detach().flatten()[0]) for p in (bias, kernel)]
        assert moved == pytest.approx([trust if on_all else 2.0, trust], rel=1e-5)


RECORDED = Path(__file__).parents[2] / "recorded" / "preset_steps.json"
STEPS: list[dict[str, Any]] = json.loads(RECORDED.read_text(encoding="utf-8"))["runs"]


@pytest.mark.parametrize("theirs", STEPS, ids=lambda run: f"{run['preset']}-{run['method']}")
def test_the_authors_optimizers_and_schedules_end_at_the_same_weights(
    theirs: dict[str, Any],
) -> None:
    """80 steps in 40 of the epochs: rates, LARS, decay and momentum together."""
    of = preset(theirs["preset"])
    said = of.training(theirs["method"])
    settings = OptimizerSettings(
        said["optimizer"], said["lr"], said["weight_decay"], **said["optimizer_settings"]
    )
    kernel, bias = (
        torch.nn.Parameter(values)
        for values in (
            torch.arange(12, dtype=torch.float64).sin().reshape(3, 4),
            torch.arange(4, dtype=torch.float64).cos(),
        )
    )
    optimizer = settings.optimizer([{"params": [kernel, bias]}])
    scheduler = settings.schedule(optimizer, 2, of.train_epochs)
    assert scheduler is not None
    for t in range(80):
        kernel.grad = 0.1 * (t + 0.7 * torch.arange(12, dtype=torch.float64)).sin().reshape(3, 4)
        bias.grad = 0.1 * (t + 0.3 * torch.arange(4, dtype=torch.float64)).cos()
        optimizer.step()
        scheduler.step()
    assert kernel.detach().flatten().tolist() == pytest.approx(theirs["kernel"], rel=1e-9)
    assert bias.detach().tolist() == pytest.approx(theirs["bias"], rel=1e-9)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(theirs["rate"], rel=1e-9)


# ---- build


def test_build_takes_options_and_settings_from_the_preset_and_given_ones_win() -> None:
    model = made("vicreg", "kaizen/cifar100")
    run = build(
        "kaizen+replay_first_per_class",
        model,
        preset="kaizen/cifar100",
        options={"kaizen": {"hidden": 16}},
        lr=0.7,
        optimizer_settings={"warmup_epochs": 4},
        precision=None,
        evaluator=None,
    )
    (plugin,) = (p for p in run.plugins if isinstance(p, KaizenPlugin))
    assert (plugin.hidden, plugin.classifier_lr, plugin.classifier_hidden) == (16, 0.05, 1000)
    (joined,) = (p for p in run.plugins if "Replay" in type(p).__name__)
    assert joined.batch_size_mem == 32
    settings = run.optimizer_settings
    assert (settings.lr, settings.weight_decay, settings.warmup_epochs) == (0.7, 1e-4, 4)
    assert (settings.schedule_every, settings.warmup_start_lr) == ("epoch", 0.003)
    assert (run.train_epochs, run.train_mb_size, run.precision) == (500, 256, "bf16")
    assert build("fine_tuning", model, preset="kaizen/cifar100", lr=None).optimizer_settings.lr == (
        0.3
    )


def test_build_and_the_method_alone_train_alike() -> None:
    """The settings of one place: bit for bit the same weights after two experiences."""
    ends = []
    for of in (None, "branch_tuning/cifar100"):
        model = made("byol", "branch_tuning/cifar100")
        quick = {**SHORT, "precision": "32", "optimizer_settings": {"warmup_epochs": 1}}
        options = {"branch_tuning": {"verbose": False}}
        if of is None:
            run = SelfSupervised(model, **quick, plugins=[BranchTuningPlugin(verbose=False)])
        else:
            run = build("branch_tuning", model, preset=of, options=options, **quick)
        torch.manual_seed(1)
        for experience in stream(5).train_stream[:2]:
            run.train(experience)
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_build_refuses_a_method_with_other_settings_and_lists_them() -> None:
    with pytest.raises(UnknownOptionError) as error:
        build("cassle", SoloMethod("simclr", backbone(), temperature=0.5), preset="cassle/cifar100")
    said = str(error.value)
    assert "temperature 0.5 instead of 0.2" in said and "(0.247, 0.243, 0.261) in view 2" in said
    assert "SoloMethod.from_preset('simclr', 'cassle/cifar100')" in said
    assert "proj_hidden_dim" not in said, "which is the same"
    byol = made("byol", "cassle/cifar100", tau=(0.9, 1.0), queues="clear")
    with pytest.raises(UnknownOptionError, match=r"tau \(0.9, 1.0\) instead of \(0.99, 1.0\)"):
        build("kaizen", byol, preset="kaizen/cifar100")
    build("cassle", byol, preset="cassle/cifar100", evaluator=None)  # its own overrides
    with pytest.raises(UnknownOptionError, match="1 views instead of 2"):
        views = [replace(VIEW, num_crops=1)]
        build("cassle", method(augmentations=views), preset="cassle/cifar100")
    with pytest.raises(UnknownOptionError, match="'vicreg' was not run there; it has barlow_twins"):
        build("pfr", method("vicreg"), preset="pfr/cifar100")
    with pytest.raises(UnknownOptionError, match="solo-learn's methods; got Bare"):
        build("fine_tuning", Bare(), preset="pfr/cifar100")
    with pytest.raises(UnknownOptionError, match="preset: expected one of"):
        build("pfr", byol, preset="prf/cifar100")


def test_build_takes_a_method_that_has_the_same_settings_without_a_preset() -> None:
    run = preset("cassle/cifar100").method("simclr")
    same = SoloMethod(
        "simclr", backbone(), image_size=8, augmentations=run.augmentations, **run.method_kwargs
    )
    assert same.departures(preset("cassle/cifar100")) == []
    built = build("cassle", same, preset="cassle/cifar100", evaluator=None)
    assert built.optimizer_settings.lr == 0.4 and built.train_epochs == 500
    assert any(isinstance(p, CaSSLePlugin) for p in built.plugins)
    made_elsewhere = SoloMethod.from_preset("simclr", "branch_tuning/cifar100", backbone=backbone())
    elsewhere = build("cassle", made_elsewhere, preset="cassle/cifar100", evaluator=None)
    assert elsewhere.optimizer_settings.weight_decay == 1e-5, "the preset's that is asked for"


# ---- Kaizen


def test_kaizen_is_its_preset() -> None:
    model = made("vicreg", "kaizen/cifar100")
    run = Kaizen(model, replay=True, evaluator=None)
    settings = run.optimizer_settings
    assert (settings.lr, settings.weight_decay, settings.name) == (0.3, 1e-4, "lars")
    assert (settings.schedule_every, settings.warmup_start_lr) == ("epoch", 0.003)
    assert (run.train_epochs, run.train_mb_size, run.precision) == (500, 256, "bf16")
    assert (run.kaizen.classifier_lr, run.kaizen.classifier_hidden) == (0.05, 1000)
    other = Kaizen(
        made("simclr", "kaizen/cifar100"), kaizen={"classifier_lr": 1.0}, lr=0.5, evaluator=None
    )
    assert (other.optimizer_settings.lr, other.kaizen.classifier_lr) == (0.5, 1.0)


def test_kaizen_refuses_what_its_authors_did_not_run() -> None:
    with pytest.raises(UnknownOptionError, match="'barlow_twins' was not run there; it has byol"):
        Kaizen(method("barlow_twins"), evaluator=None)
    with pytest.raises(UnknownOptionError, match=r"from_preset\('byol', 'kaizen/cifar100'\)"):
        Kaizen(method("byol"), evaluator=None)


def test_kaizen_trains() -> None:
    model = made("byol", "kaizen/cifar100")
    before = weights(model)
    quick: dict[str, Any] = {**SHORT, "precision": "32", "train_epochs": 2}
    run = Kaizen(model, kaizen={"hidden": 8}, optimizer_settings={"warmup_epochs": 1}, **quick)
    for experience in stream(5).train_stream[:2]:
        run.train(experience)
    assert torch.isfinite(weights(model)).all() and not torch.equal(weights(model), before)
