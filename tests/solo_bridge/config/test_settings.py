"""solo-learn's configuration files; solo-learn's own reading of them is the oracle."""

from __future__ import annotations

import copy
import logging
import math
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from avalanche.core import SupervisedPlugin
from omegaconf import OmegaConf

from avalanche_branchtune.errors import ConfigError, UnknownOptionError
from solo_bridge import SelfSupervised, SoloMethod, available_methods
from solo_bridge.compat import load
from solo_bridge.config import SoloConfig, settings_from_config
from solo_bridge.defaults import DEFAULTS
from tests.selfsupervised import small, stream
from tests.solo_bridge.config.examples import CONFIG, PIPELINE, VIEW, plain, written

MAIN = load().name == "main branch"
needs_main = pytest.mark.skipif(not MAIN, reason="solo-learn's main branch is not installed")

SOURCE = os.environ.get("SOLO_LEARN_SOURCE")
FILES: list[Any] = sorted(Path(SOURCE).glob("scripts/pretrain/*/*.y*ml")) if SOURCE else []
real_files = pytest.mark.parametrize(
    "file",
    FILES or [pytest.param(None, marks=pytest.mark.skip(reason="SOLO_LEARN_SOURCE is not set"))],
    ids=lambda f: f"{f.parent.name}/{f.name}" if f else "none",
)


def test_a_file_says_everything(tmp_path: Path) -> None:
    assert settings_from_config(written(tmp_path)) == SoloConfig(
        method={
            "name": "byol",
            "backbone": "resnet18",
            "backbone_kwargs": {"zero_init_residual": True},
            "image_size": 8,
            "num_classes": 100,
            "large_views": 2,
            "small_views": 0,
            "cifar_stem": True,
            "augmentations": [PIPELINE],
            "tau": (0.9, 0.95),
            "proj_hidden_dim": 16,
            "proj_output_dim": 8,
            "pred_hidden_dim": 16,
        },
        strategy={
            "train_epochs": 200,
            "train_mb_size": 4,
            "optimizer": "lars",
            "lr": 0.3,
            "weight_decay": 1e-4,
            "optimizer_settings": {
                "momentum": 0.8,
                "eta": 0.02,
                "clip": True,
                "exclude_bias_and_norm": True,
                "scheduler": "warmup_cosine",
                "warmup_epochs": 11,
                "unfinished_warmup": True,
                "warmup_start_lr": 1e-5,
                "min_lr": 0.0006,
            },
            "precision": "16",
            "channels_last": True,
        },
        ignored=(
            *("hydra", "name", "checkpoint", "auto_resume", "sync_batchnorm"),
            *("accelerator", "strategy"),
            *("defaults.wandb", "defaults.hydra/hydra_logging"),
            *("data.train_path", "data.val_path", "data.format", "data.num_workers"),
            *("optimizer.classifier_lr", "devices"),
        ),
    )


def test_it_can_be_built_and_trained(tmp_path: Path) -> None:
    path = written(tmp_path)
    method = SoloMethod.from_config(path)
    assert (method.name, method.num_classes, method.large_views) == ("byol", 100, 2)
    assert method.backbone.conv1.kernel_size == (3, 3)  # type: ignore[union-attr]
    assert method.solo.momentum_updater.base_tau == 0.9
    views = method.default_views()(torch.rand(3, 8, 8))
    assert torch.isfinite(method.loss([v.expand(4, 3, 8, 8) for v in views]))


def asked_for(strategy: SelfSupervised) -> dict[str, Any]:
    names = ("train_epochs", "train_mb_size", "eval_mb_size", "precision", "channels_last")
    optimizer = asdict(strategy.optimizer_settings)
    return {**{name: getattr(strategy, name) for name in names}, **optimizer}


def test_what_a_file_says_of_training_is_done(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = asked_for(SelfSupervised(SoloMethod.from_config(path), evaluator=None))
    assert found == {
        "train_epochs": 200,
        "train_mb_size": 4,
        "eval_mb_size": 4,
        "precision": "bf16",  # of 16-mixed, on a CPU
        "channels_last": True,
        "name": "lars",
        "lr": pytest.approx(0.3 * 4 / 256),
        "weight_decay": 1e-4,
        "momentum": 0.8,
        "betas": (0.9, 0.999),
        "eta": 0.02,
        "trust": "branch",
        "clip": True,
        "exclude_bias_and_norm": True,
        "scheduler": "warmup_cosine",
        "schedule_every": "step",
        "warmup_epochs": 11,
        "unfinished_warmup": True,
        "warmup_start_lr": 1e-5,
        "min_lr": 0.0006,
    }
    settings = settings_from_config(path)
    apart = SelfSupervised(SoloMethod(**settings.method), evaluator=None, **settings.strategy)
    assert asked_for(apart) == {**found, "precision": "16"}


def test_arguments_win_over_the_file(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "train_epochs": 2,
        "train_mb_size": 8,
        "eval_mb_size": 16,
        "precision": "32",
        "channels_last": False,
    }
    strategy = SelfSupervised(
        SoloMethod.from_config(written(tmp_path)),
        optimizer="sgd",
        lr=0.5,
        weight_decay=0.0,
        scale_lr=False,
        optimizer_settings={"momentum": 0.1},
        evaluator=None,
        **given,
    )
    settings = strategy.optimizer_settings
    assert {name: asked_for(strategy)[name] for name in given} == given
    assert (settings.name, settings.lr, settings.weight_decay) == ("sgd", 0.5, 0.0)
    assert (settings.momentum, settings.min_lr) == (0.1, 0.0006), "what is not given stays"


@pytest.mark.parametrize(
    ("said", "meant"),
    [(None, "32"), (32, "32"), ("32-true", "32"), (16, "16"), ("bf16-mixed", "bf16")],
)
def test_lightnings_words_for_precisions(said: Any, meant: str) -> None:
    found = settings_from_config(plain(precision=said)).strategy
    assert found.get("precision", "32") == meant


def test_a_file_is_trained_as_it_says(tmp_path: Path) -> None:
    """Channels last, mixed precision, and the rates of its schedule."""
    short = CONFIG.replace("warmup_epochs: 11", "warmup_epochs: 1").replace("200", "2")
    seen: list[Any] = []

    class Seen(SupervisedPlugin):  # type: ignore[misc]
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            kernel = strategy.model.backbone.layer1[0].conv1.weight
            last = [t.is_contiguous(memory_format=torch.channels_last) for t in strategy.mb_x]
            assert kernel.is_contiguous(memory_format=torch.channels_last) and all(last)
            seen.append(strategy.optimizer.param_groups[0]["lr"])

    method = SoloMethod.from_config(written(tmp_path, short))
    strategy = SelfSupervised(method, evaluator=None, plugins=[Seen()])
    strategy.train(stream(5).train_stream[0])
    steps, base = 5, 0.3 * 4 / 256  # 20 images, minibatches of 4
    rising = [1e-5 + t / (steps - 1) * (base - 1e-5) for t in range(steps)]
    falling = [
        0.0006 + (base - 0.0006) * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)
    ]
    assert seen == pytest.approx(rising + falling)


def test_small_views_are_those_of_another_size() -> None:
    view = yaml.safe_load(VIEW)[0]
    small_view = {**view, "crop_size": 4, "num_crops": 6}
    one = {**view, "num_crops": 1}
    method = settings_from_config(plain(augmentations=[one, one, small_view])).method
    assert (method["large_views"], method["small_views"], method["image_size"]) == (2, 6, 8)
    assert [a.num_crops for a in method["augmentations"]] == [1, 1, 6]
    agreed = plain(augmentations=[one, small_view], data__num_small_crops=6)
    assert settings_from_config(agreed).method["small_views"] == 6
    with pytest.raises(ConfigError, match=r"say \[2, None\], but the augmentations make 1 and 6"):
        settings_from_config(plain(augmentations=[one, small_view], data__num_large_crops=2))


def test_a_jitter_that_never_happens_needs_no_strength() -> None:
    view = yaml.safe_load(VIEW)[0]
    view["color_jitter"] = {"prob": 0}
    del view["equalization"]
    (augmentation,) = settings_from_config(plain(augmentations=[view])).augmentations
    none = {"jitter_prob": 0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
    assert augmentation == replace(PIPELINE, **none)
    load().pipeline(augmentation)


@pytest.mark.parametrize(
    ("dataset", "classes", "stem", "mean"),
    [
        ("cifar10", 10, True, 0.4914),
        ("cifar100", 100, True, 0.5071),
        ("stl10", 10, False, 0.4914),
        ("imagenet100", 100, False, 0.485),
        ("custom", None, False, 0.485),
    ],
)
def test_what_a_data_set_implies(
    dataset: str, classes: int | None, stem: bool, mean: float
) -> None:
    config = settings_from_config(plain(data={"dataset": dataset}))
    assert config.method.get("num_classes") == classes
    assert config.method["cifar_stem"] is stem
    assert config.augmentations[0].mean[0] == mean
    more = settings_from_config(plain(data={"dataset": dataset, "num_classes": 7}))
    assert more.method["num_classes"] == 7
    view = {**yaml.safe_load(VIEW)[0], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    own = settings_from_config(plain(data={"dataset": dataset}, augmentations=[view]))
    taken = dataset == "custom"
    assert (own.augmentations[0].mean == (0.1, 0.2, 0.3)) is taken
    assert (own.augmentations[0].std == (0.4, 0.5, 0.6)) is taken
    assert ("augmentations[0].mean" in own.ignored) is not taken


def test_little_is_needed() -> None:
    config = settings_from_config({"method": "dino"})
    assert config.method == {
        "name": "dino",
        "tau": (0.99, 1.0),  # solo-learn's, not the bridge's
        "warmup_teacher_temperature_epochs": 0,
    }
    assert config.strategy == {"optimizer_settings": {}, "channels_last": True}
    assert config.augmentations == [] and config.ignored == ()


def test_lars_has_solo_learns_defaults() -> None:
    config = settings_from_config({"method": "simclr", "optimizer": {"name": "lars"}})
    assert config.strategy["optimizer_settings"] == {
        "eta": 1e-3,
        "clip": False,
        "exclude_bias_and_norm": False,
    }
    sgd = settings_from_config({"method": "simclr", "optimizer": {"name": "sgd"}})
    assert sgd.strategy == {
        "optimizer": "sgd",
        "optimizer_settings": {},
        "channels_last": True,
    }


# ---- solo-learn's own reading


def composed(file: Path) -> Any:
    """What Hydra gives solo-learn: the file, and the augmentations that it names."""
    cfg = OmegaConf.load(file)
    for entry in cfg.pop("defaults", []):
        if entry != "_self_" and "augmentations" in entry:
            cfg.augmentations = OmegaConf.load(file.parent / "augmentations" / entry.augmentations)
    return cfg


def agrees_with_solo_learn(config: SoloConfig, cfg: Any) -> None:
    """Compare with the configuration that solo-learn's command and methods complete."""
    from solo.args.pretrain import parse_cfg
    from solo.data.pretrain_dataloader import build_transform_pipeline

    cfg = parse_cfg(OmegaConf.merge({"momentum": {}}, cfg))  # one of its own files lacks it
    cfg = load().classes[cfg.method].add_and_assert_specific_cfg(cfg)  # type: ignore[attr-defined]
    method, strategy = config.method, config.strategy
    options = DEFAULTS[cfg.method].method_kwargs
    mine = {**options, **{k: v for k, v in method.items() if k in options}}
    theirs = OmegaConf.to_container(cfg.method_kwargs)
    assert isinstance(theirs, dict)
    assert mine == {k: v for k, v in theirs.items() if k in options}
    assert method["backbone"] == cfg.backbone.name
    assert method.get("backbone_kwargs", {}) == OmegaConf.to_container(cfg.backbone.kwargs)
    assert method["num_classes"] == cfg.data.num_classes
    assert method["cifar_stem"] == (cfg.data.dataset in ("cifar10", "cifar100"))
    views = (method["large_views"], method["small_views"])
    assert views == (cfg.data.num_large_crops, cfg.data.num_small_crops)
    if "base_tau" in cfg.get("momentum", {}):
        assert method["tau"] == (cfg.momentum.base_tau, cfg.momentum.final_tau)
    for mine, theirs in zip(config.augmentations, cfg.augmentations, strict=True):
        pipelines = load().pipeline(mine), build_transform_pipeline(cfg.data.dataset, theirs)
        ours, oracle = (re.sub(r" at 0x[0-9a-f]+|[()\[\]]", "", repr(p)) for p in pipelines)
        assert ours == oracle
        assert mine.num_crops == theirs.num_crops
    built = SelfSupervised(torch_method(cfg.method), evaluator=None, **strategy)
    settings, optimizer = built.optimizer_settings, cfg.optimizer
    # lr: solo-learn multiplies by the number of devices too
    assert settings.lr == pytest.approx(optimizer.lr / len(cfg.devices))
    assert (settings.name, settings.weight_decay) == (optimizer.name, optimizer.weight_decay)
    if optimizer.name in ("sgd", "lars"):
        assert settings.momentum == optimizer.kwargs.momentum
    if optimizer.name == "lars":
        assert settings.eta == optimizer.kwargs.eta
        assert settings.clip == optimizer.kwargs.clip_lr
        assert settings.exclude_bias_and_norm == optimizer.kwargs.exclude_bias_n_norm
    scheduler = cfg.scheduler
    assert settings.scheduler == scheduler.name
    assert settings.warmup_start_lr == scheduler.warmup_start_lr
    assert settings.min_lr == scheduler.min_lr
    if scheduler.name != "none":
        assert settings.warmup_epochs == scheduler.warmup_epochs
    if optimizer.name.startswith("adam"):
        assert settings.betas == tuple(optimizer.kwargs.get("betas", (0.9, 0.999)))
    assert strategy["train_epochs"] == cfg.max_epochs
    assert strategy["channels_last"] is not cfg.performance.disable_channel_last
    assert strategy["precision"] == cfg.precision.removesuffix("-mixed")


def torch_method(name: str) -> Any:
    from solo_bridge import SelfSupervisedMethod

    method = SelfSupervisedMethod()
    method.optimizer_settings = DEFAULTS[name].optimizer_settings
    method.weight = torch.nn.Parameter(torch.zeros(1))
    return method


@needs_main
@pytest.mark.parametrize("name", list(DEFAULTS))
def test_what_is_left_out_is_solo_learns_default(name: str) -> None:
    needed = {k: v for k, v in small(name).items() if k.endswith("dim") or k.startswith("decoder")}
    config = plain(method=name, method_kwargs=needed, momentum=None, scheduler={"name": "none"})
    config["optimizer"].pop("kwargs")
    if name in ("simclr", "supcon", "swav", "nnclr", "mocov2plus", "mocov3", "all4one"):
        config["method_kwargs"]["temperature"] = 0.3
    if name == "ressl":
        config["method_kwargs"].update(temperature_q=0.2, temperature_k=0.1)
    if name == "dino":
        config["method_kwargs"]["num_prototypes"] = 7
    agrees_with_solo_learn(settings_from_config(config), OmegaConf.create(copy.deepcopy(config)))


@real_files
def test_solo_learns_own_files(file: Path) -> None:
    config = settings_from_config(file)
    assert config.method["name"] == composed(file).method
    assert config.augmentations and config.strategy["optimizer_settings"]
    if MAIN and config.method["name"] in available_methods() and file.parent.name != "custom":
        agrees_with_solo_learn(config, composed(file))


# ---- what cannot be meant


def test_settings_of_other_methods_are_listed() -> None:
    """solo-learn's own files hold some; it does not look at them."""
    config = plain(method_kwargs__temperature=0.2, method_kwargs__momentum_classifier=None)
    found = settings_from_config(config)
    assert "temperature" not in found.method
    assert {"method_kwargs.temperature", "method_kwargs.momentum_classifier"} <= set(found.ignored)


def test_keys_that_change_training_and_cannot_be_honoured_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        settings_from_config(plain())
        assert caplog.text == ""
        settings_from_config(plain(accumulate_grad_batches=4, optimizer__kwargs__nesterov=True))
    assert "accumulate_grad_batches: 4 cannot be honoured" in caplog.text
    assert "optimizer.kwargs.nesterov: True cannot be honoured; pass a function" in caplog.text


@pytest.mark.parametrize(
    ("key", "value", "harmless", "advice"),
    [
        ("devices", "2", "1", "multiply the batch by it"),
        ("devices", [0, 1], [3], "multiply the batch by it"),
        ("devices", -1, 1, "multiply the batch by it"),
        ("num_nodes", 2, 1, "multiply the batch by it"),
        ("max_steps", 100, -1, "training.epochs=…"),
        ("max_time", "00:01:00:00", None, "training.epochs=…"),
        ("min_epochs", 3, 0, "training.epochs=…"),
        ("seed", 5, None, "give it as seed=…"),
        ("resume_from_checkpoint", "a.ckpt", None, "weights are not loaded by this"),
        ("fast_dev_run", 3, False, "training.epochs=…"),
        ("limit_train_batches", 1, 1.0, "all data is trained on"),
        ("data__fraction", 0.1, -1, "all data is trained on"),
    ],
)
def test_each_has_a_warning_of_its_own(
    key: str, value: Any, harmless: Any, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = key.replace("__", ".")
    assert settings_from_config(plain(**{key: harmless})).lost == {} and not caplog.text
    assert settings_from_config(plain(**{key: value})).lost == {path: value}
    (record,) = (r for r in caplog.records if r.levelname == "WARNING")
    assert f"{path}: {value} cannot be honoured" in record.message and advice in record.message


def test_a_warmup_that_is_left_out_takes_ten_epochs() -> None:
    named: dict[str, Any] = {"method": "simclr", "scheduler": {"name": "warmup_cosine"}}
    assert settings_from_config(named).strategy["optimizer_settings"]["warmup_epochs"] == 10
    none = {"method": "simclr", "scheduler": {"name": "none"}}
    assert "warmup_epochs" not in settings_from_config(none).strategy["optimizer_settings"]


def test_a_schedule_by_the_epoch_is_one() -> None:
    """solo-learn steps it after each epoch, and counts the warm-up in epochs."""
    config = plain(scheduler__interval="epoch", max_epochs=30)
    found = settings_from_config(config)
    settings = SelfSupervised(SoloMethod.from_config(config), evaluator=None).optimizer_settings
    assert settings.schedule_every == "epoch" and found.lost == {}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=settings.lr)
    scheduler = settings.schedule(optimizer, 2, 30)
    assert scheduler is not None
    rates = []
    for _ in range(24):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    rise = (settings.lr - 1e-5) / 10
    assert rates[:22:2] == rates[1:22:2] == pytest.approx([1e-5 + t * rise for t in range(11)])


def test_a_short_trial_of_a_file_trains_as_in_solo_learn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of eleven epochs of warm-up, and a word about it."""
    settings = SelfSupervised(
        SoloMethod.from_config(written(tmp_path)), train_epochs=2, evaluator=None
    ).optimizer_settings
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=settings.lr)
    scheduler = settings.schedule(optimizer, 5, 2)
    assert scheduler is not None
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1e-5 + t / 54 * (settings.lr - 1e-5) for t in range(10)])
    assert "warm-up of 11 epochs takes all of the experience's 2" in caplog.text


@pytest.mark.parametrize("name", ["mae", "simclr"])
def test_adamw_without_betas_has_solo_learns(name: str) -> None:
    config = {"method": name, "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05}}
    said = settings_from_config(config).strategy
    strategy = SelfSupervised(torch_method(name), evaluator=None, **said)
    assert strategy.optimizer_settings.betas == (0.9, 0.999)
    config["optimizer"]["kwargs"] = {"betas": [0.8, 0.9]}  # type: ignore[index]
    assert settings_from_config(config).strategy["optimizer_settings"]["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": None}, "method is missing"),
        ({"method": "simclrr"}, "method: expected one of all4one"),
        ({"method": 3}, "method: expected a name, got 3"),
        ({"data__dataset": "cifar"}, "data.dataset: expected one of cifar10"),
        ({"data__num_classes": 2.5}, "data.num_classes: expected a whole number, got 2.5"),
        ({"optimizer": "lars"}, "optimizer: expected a mapping of name, batch_size"),
        ({"optimizer__lr": "fast"}, "optimizer.lr: expected a number, got 'fast'"),
        ({"optimizer__lr": True}, "optimizer.lr: expected a number, got True"),
        ({"optimizer__lr": float("nan")}, "optimizer.lr: expected a number, got nan"),
        ({"optimizer__name": "lamb"}, "expected one of lars, sgd, adam, adamw; got 'lamb'"),
        ({"optimizer__kwargs__clip_lr": 1}, "clip_lr: expected true or false, got 1"),
        ({"scheduler__name": "step"}, "expected one of warmup_cosine, none; got 'step'"),
        ({"scheduler__name": "cosine"}, "scheduler.name: .* warmup_cosine, none; got 'cosine'"),
        ({"scheduler__interval": "day"}, "scheduler.interval: .* step, epoch; got 'day'"),
        ({"max_epochs": float("inf")}, "max_epochs: expected a whole number, got inf"),
        ({"precision": "64-true"}, "precision: expected one of 32, .*; got '64-true'"),
        ({"performance": {"disable_channel_last": 1}}, "disable_channel_last: expected true"),
        ({"backbone__kwargs": 3}, "backbone.kwargs: expected a mapping, got 3"),
        ({"augmentations": {"rrc": 1}}, "augmentations: expected a list"),
        ({"augmentations": [3]}, r"augmentations\[0\]: expected a mapping of rrc"),
        ({"augmentations": [{"num_crops": 2}]}, r"augmentations\[0\].crop_size is missing"),
        ({"augmentations": [{"crop_size": 8}]}, r"augmentations\[0\].num_crops is missing"),
        (
            {"augmentations": [{"rrc": {"enabled": False}, "crop_size": 8, "num_crops": 2}]},
            r"augmentations\[0\].rrc.enabled: views without a random crop",
        ),
        (
            {"data__dataset": "custom", "augmentations": [{"mean": [1, 2]}]},
            r"augmentations\[0\].mean: expected three numbers, got \[1, 2\]",
        ),
        ({"defaults": [{"augmentations": "a.yaml"}], "augmentations": None}, "pass the path"),
        ({"defaults": ["base"]}, "defaults: 'base': only augmentations can be elsewhere"),
        ({"defaults": [{"augmentation": "a"}]}, "unknown defaults.augmentation"),
        ({"max_epochs": "${epochs}"}, "max_epochs: Interpolation key 'epochs' not found"),
        ({"method": "???"}, "method is missing"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UnknownOptionError), match=message):
        settings_from_config(plain(**changes))
