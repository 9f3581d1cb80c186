"""The presets beside the authors' code: ``python -m benchmarks.presets`` writes docs/presets.md.

Theirs is recorded in tests/recorded/presets.json; ours is read from what is built: the method of
``SoloMethod.from_preset``, its layers and pipelines, the optimizer and the settings of the strategy
that ``build(…, preset=…)`` makes, and the arguments of its plugins.  A setting that differs needs a
reason in :data:`REASONS`, and a reason needs a setting that differs.
"""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from solo_bridge import SelfSupervised, SoloMethod, build
from solo_bridge.compat import load
from solo_bridge.plugins.distillation.forms import FORM_OF, FORMS
from solo_bridge.presets import PRESETS, Preset, preset
from solo_bridge.registry import ENTRIES

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "tests" / "recorded" / "presets.json"
PAGE = ROOT / "docs" / "presets.md"

SCRIPT_ONLY = "weight_decay_of_the_script"
"""Recorded beside what their code does with it."""

NAMES: Mapping[str, str] = {
    "data": "data set",
    "image_size": "image size",
    "num_classes": "classes",
    "experiences": "experiences",
    "train_epochs": "epochs of each",
    "train_mb_size": "batch",
    "gpus": "GPUs",
    "precision": "precision",
    "stem": "first convolution",
    "projector": "projector",
    "predictor": "predictor",
    "temperature": "temperature",
    "lamb": "λ of the loss",
    "scale_loss": "scale of the loss",
    "sim_loss_weight": "weight of similarity",
    "var_loss_weight": "weight of variance",
    "cov_loss_weight": "weight of covariance",
    "queue_size": "queue",
    "num_prototypes": "prototypes",
    "epoch_queue_starts": "queue used from epoch",
    "freeze_prototypes_epochs": "epochs of still prototypes",
    "sk_iters": "Sinkhorn steps",
    "sk_epsilon": "Sinkhorn ε",
    "tau": "momentum network",
    "crop_min_scale": "crop from",
    "crop_max_scale": "crop to",
    "interpolation": "resized by",
    "jitter_prob": "jitter with",
    "brightness": "brightness",
    "contrast": "contrast",
    "saturation": "saturation",
    "hue": "hue",
    "grayscale_prob": "grey with",
    "blur_prob": "blur with",
    "solarization_prob": "solarisation with",
    "flip_prob": "flip with",
    "mean": "channel means",
    "std": "channel deviations",
    "optimizer": "optimizer",
    "lr": "learning rate, for 256",
    "weight_decay": "weight decay",
    "momentum": "momentum",
    "eta": "LARS η",
    "clip": "LARS clipped",
    "exclude_bias_and_norm": "bias and norms without LARS",
    "optimizer_state": "optimizer and its averages",
    "scheduler": "schedule",
    "schedule_every": "schedule's step",
    "warmup_epochs": "epochs of warm-up",
    "warmup_start_lr": "warm-up from",
    "min_lr": "last learning rate",
}
"""Settings in the order of the tables; those of plugins follow."""

REASONS: Mapping[tuple[str, str | None, str], str] = {
    (
        "branch_tuning/cifar100",
        None,
        "stem",
    ): "their 1×3 network's first kernel is dilated, its branches are not: merged, it computes "
    "another function than it learnt; the same network without branches has no dilation",
    (
        "cassle/imagenet100",
        None,
        "gpus",
    ): "one device here, with as many images; their BatchNorm is synchronised",
    (
        "kaizen/cifar100",
        "mocov2plus",
        "train_epochs",
    ): "presumably a trial; the paper says 500, as their other scripts",
    (
        "lump/cifar10",
        None,
        "stem",
    ): "solo-learn's CIFAR stem has padding 2, as CaSSLe's: a ResNet of theirs can be passed as "
    "`backbone`",
    (
        "lump/cifar10",
        None,
        "projector",
    ): "solo-learn's has three layers; theirs two, with BN at the end",
    ("lump/cifar10", None, "interpolation"): "solo-learn's pipelines resize by bicubic",
    (
        "lump/cifar10",
        None,
        "optimizer_state",
    ): "each experience has a fresh optimizer here: theirs keeps its momentum from the one before",
}
"""Why a setting differs: preset, method (None for all) and setting → why."""


def describe(layers: Iterable[nn.Module]) -> str:
    """Return a projector's layers in words."""
    words = {nn.ReLU: "ReLU"}
    found = []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            found.append(str(layer.out_features))
        elif isinstance(layer, nn.BatchNorm1d):
            found.append("BN" if layer.affine else "BN without affine")
        else:
            found.append(words[type(layer)])  # a new kind of layer needs a word
    return ", ".join(found)


def stem(network: Any) -> str:
    conv = network.conv1
    sides = "×".join(map(str, conv.kernel_size))
    pool = "no max-pool" if isinstance(network.maxpool, nn.Identity) else "max-pool"
    return f"{sides}, stride {conv.stride[0]}, padding {conv.padding[0]}, {pool}"


def views(method: SoloMethod) -> dict[str, Any]:
    """Return what the built pipelines do, each setting once for all views or for each."""
    found = [steps(load().pipeline(a)) for a in method.augmentations for _ in range(a.num_crops)]
    return {
        key: found[0][key]
        if all(v[key] == found[0][key] for v in found)
        else [v[key] for v in found]
        for key in found[0]
    }


def steps(pipeline: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"blur_prob": 0.0, "solarization_prob": 0.0}
    for step in getattr(pipeline, "transform", pipeline).transforms:
        kind = type(step).__name__
        if kind == "RandomResizedCrop":
            found.update(
                image_size=step.size[0],
                crop_min_scale=step.scale[0],
                crop_max_scale=step.scale[1],
                interpolation=step.interpolation.value,
            )
        elif kind == "RandomApply":
            inner = step.transforms[0]
            name = {"GaussianBlur": "blur_prob", "Solarization": "solarization_prob"}
            found[name.get(type(inner).__name__, "jitter_prob")] = step.p
            if type(inner).__name__ == "ColorJitter":
                for part in ("brightness", "contrast", "saturation"):
                    found[part] = round(getattr(inner, part)[1] - 1, 6)
                found["hue"] = inner.hue[1]
        elif kind == "RandomGrayscale":
            found["grayscale_prob"] = step.p
        elif kind == "RandomHorizontalFlip":
            found["flip_prob"] = step.p
        elif kind == "Normalize":
            for part in ("mean", "std"):
                found[part] = " ".join(map(str, getattr(step, part)))
        elif kind != "ToTensor":
            raise AssertionError(f"{kind}: a step that the tables do not know")
    return found


def ours(found: Preset, name: str, parts: Iterable[str]) -> dict[str, Any]:
    """Return the settings of what is built: keys as recorded.

    :param found: the preset.
    :param name: the method.
    :param parts: names of plugins.
    """
    method = SoloMethod.from_preset(name, found.name)
    run = build("+".join(parts), method, preset=found.name, evaluator=None)
    solo, settings = method.solo, run.optimizer_settings
    said: dict[str, Any] = {
        "data": found.data,
        "num_classes": method.num_classes,
        "experiences": found.experiences,
        "train_epochs": run.train_epochs,
        "train_mb_size": run.train_mb_size,
        "gpus": 1,
        "precision": method.precision,
        "stem": stem(method.backbone),
        "projector": describe(solo.projector),
        **views(method),
        "optimizer_state": "new in each experience",
        **optimizer(run),
        "scheduler": settings.scheduler,
    }
    if isinstance(getattr(solo, "predictor", None), nn.Sequential):
        said["predictor"] = describe(solo.predictor)
    for key, value in method.settings.method_kwargs.items():
        if not key.endswith("_dim"):
            said[key] = getattr(solo, key, value)
    if hasattr(solo, "momentum_updater"):
        said["tau"] = [solo.momentum_updater.base_tau, solo.momentum_updater.final_tau]
    if settings.scheduler != "none":
        said.update(schedule_every=settings.schedule_every, min_lr=settings.min_lr)
    if settings.scheduler == "warmup_cosine":
        said["warmup_epochs"] = settings.warmup_epochs
        said["warmup_start_lr"] = settings.warmup_start_lr
    for part in parts:
        for key, value in arguments(part, found.options(name)[part]).items():
            said[f"{part}: {key}"] = value
    form = FORM_OF[name]
    for part in ("cassle", "kaizen"):
        if said.get(f"{part}: form", form) is None:
            said[f"{part}: form"], said[f"{part}: weight"] = form, FORMS[form].weight
    return said


def optimizer(run: SelfSupervised) -> dict[str, Any]:
    """Return the settings of the built optimizer, which all its groups share."""
    settings, groups = run.optimizer_settings, run.optimizer.param_groups
    found: dict[str, Any] = {"optimizer": settings.name}
    for key in ("lr", "weight_decay", "momentum"):
        (found[key],) = {group[key] for group in groups}
    if settings.name == "lars":
        found.update(
            eta=settings.eta,
            clip=settings.clip,
            exclude_bias_and_norm=settings.exclude_bias_and_norm,
        )
    return found


def arguments(part: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a plugin is made with, its own defaults included."""
    entry = ENTRIES[part]
    bound = inspect.signature(entry.maker).bind(**{**entry.fixed, **options})
    bound.apply_defaults()
    return dict(bound.arguments)


@dataclass(frozen=True)
class Row:
    """A line of a table.

    :param setting: its name as recorded.
    :param methods: for which it holds.
    :param theirs: as the tables write it.
    :param ours: the same.
    :param why: ``"same"``, or why not.
    """

    setting: str
    methods: tuple[str, ...]
    theirs: str
    ours: str
    why: str


def rows(name: str, recorded: Mapping[str, Any] | None = None) -> list[Row]:
    """Return the lines of a preset's table.

    :param name: of the preset.
    :param recorded: of all presets, by default what is recorded.
    :raises AssertionError: for a setting that differs without a reason, a reason for one that does
        not, and a setting that only one side has.
    """
    found = preset(name)
    theirs = (recorded or json.loads(RECORDED.read_text(encoding="utf-8")))[name]["methods"]
    assert set(theirs) == set(found.methods), f"{name}: other methods than recorded"
    used, lines = set(), {}
    for method in sorted(theirs):
        said = dict(theirs[method]["settings"])
        assert theirs[method]["script"] == found.method(method).script, f"{name}, {method}: script"
        script = said.pop(SCRIPT_ONLY)
        parts = list(dict.fromkeys(key.split(":")[0] for key in said if ":" in key))
        here = ours(found, method, parts)
        lacking = sorted(set(said) - set(here))
        unrecorded = {key for key in set(here) - set(said) if ":" not in key}
        assert not lacking and not unrecorded, f"{name}, {method}: {lacking}, {unrecorded}"
        for key, value in said.items():
            keys = [k for k in ((name, method, key), (name, None, key)) if REASONS.get(k)]
            if same(value, here[key]):
                why = "same"
            else:
                assert keys, f"{name}, {method}, {key}: {value} is {here[key]} here: why?"
                used.add(keys[0])
                why = REASONS[keys[0]]
            there = written(value)
            if key == "weight_decay" and script != value:
                there += f" (the script says {written(script)})"
            lines.setdefault((key, there, written(here[key]), why), []).append(method)
    idle = {key for key in REASONS if key[0] == name and REASONS[key]} - used
    assert not idle, f"a reason for what is the same: {sorted(idle, key=str)}"
    order = {key: i for i, key in enumerate(NAMES)}
    return [
        Row(key, tuple(methods), there, here, why)
        for (key, there, here, why), methods in sorted(
            lines.items(), key=lambda line: (order.get(line[0][0], len(order)), line[0][0])
        )
    ]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    if isinstance(one, list) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " / ".join(map(written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(name: str) -> list[str]:
    found = preset(name)
    lines = [
        f"## {name}",
        "",
        f"{found.title}, [arXiv {found.arxiv}](https://arxiv.org/abs/{found.arxiv}); code: "
        f"`{found.repository}` {found.commit}.",
        "",
        *(f"- {method}: `{run.script}`" for method, run in sorted(found.methods.items())),
        "",
        "| setting | methods | theirs | ours | same, or why not |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows(name):
        methods = "all" if len(row.methods) == len(found.methods) else ", ".join(row.methods)
        setting = NAMES.get(row.setting, row.setting)
        lines.append(f"| {setting} | {methods} | {row.theirs} | {row.ours} | {row.why} |")
    return [*lines, "", *(f"- {note}" for note in found.notes), ""]


def page() -> str:
    """Return docs/presets.md."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = [line for name in PRESETS for line in table(name)]
    return "\n".join(
        [
            "# The papers' settings",
            "",
            "Made by `python -m benchmarks.presets`. *Theirs* is what the authors' code makes of",
            "its scripts: their argument parser was given the words of each script, their method,",
            "its views and its optimizer were built and read; `tests/recorded/presets.json` says",
            "how, for each. *Ours* is read from what `SoloMethod.from_preset` and",
            "`build(…, preset=…)` make. Two values with a slash are those of the two views, or the",
            "first and the last decay of the momentum network. What the plugins compute differs",
            "where their docstrings say so.",
            "",
            *tables,
        ]
    )


def main() -> None:
    logging.disable(logging.WARNING)  # that 16-bit is bfloat16 on a CPU
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
