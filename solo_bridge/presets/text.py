"""Presets in words, for the command ``branchtune presets`` and for records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from solo_bridge.augmentation import Augmentation
from solo_bridge.presets import PRESETS, MethodPreset, Preset


def listing() -> str:
    """Return a line for each preset: name, methods, paper."""
    width = max(map(len, PRESETS))
    return "\n".join(
        f"{name:<{width}}  {found.title}, arXiv {found.arxiv}: {', '.join(sorted(found.methods))}"
        for name, found in PRESETS.items()
    )


def description(found: Preset) -> str:
    """Return all that a preset sets.

    :param found: the preset.
    """
    lines = [
        f"{found.name}: {found.title}, arXiv {found.arxiv}",
        f"  code: {found.repository} {found.commit}",
        f"  stream: {found.data}, {found.image_size} pixels, {found.num_classes} classes in "
        f"{found.experiences} experiences",
        f"  training: {found.train_epochs} epochs an experience, batch {found.train_mb_size}, "
        f"precision {found.precision}",
        f"  strategies: {', '.join(found.strategies)}",
        *(f"  plugin {name}: {_pairs(said)}" for name, said in found.plugins.items()),
    ]
    for name, run in sorted(found.methods.items()):
        lines += [
            "",
            f"{name} ({run.script})",
            f"  method: {_pairs(run.method_kwargs)}",
            *(["  tau: {:g} to {:g}".format(*run.tau)] if run.tau else []),
            f"  optimizer: {optimizer_text(run)}",
            *(f"  view {i}: {view_text(view)}" for i, view in enumerate(each_view(run), 1)),
            *(f"  plugin {plugin}: {_pairs(said)}" for plugin, said in run.plugins.items()),
        ]
    return "\n".join([*lines, "", *(f"Note: {note}" for note in found.notes)])


def optimizer_text(run: MethodPreset) -> str:
    """Return optimizer, rates and schedule in a line.

    :param run: a method's settings.
    """
    said = run.optimizer_settings
    words = [
        f"{'LARS' if run.optimizer == 'lars' else 'SGD'}, lr {run.lr:g} · batch/256",
        f"momentum {said['momentum']:g}, weight decay {run.weight_decay:g}",
    ]
    if run.optimizer == "lars":
        excluded = "not on" if said["exclude_bias_and_norm"] else "on"
        clipped = ", clipped" if said["clip"] else ""
        words.append(f"η {said['eta']:g}{clipped}, {excluded} bias and norms")
    if said["scheduler"] == "none":
        return "; ".join([*words, "constant"])
    last = f"to {said['min_lr']:g} by half a cosine, a step each {said['schedule_every']}"
    if said["scheduler"] == "warmup_cosine":
        start = f"{said['warmup_epochs']} epochs of warm-up from {said['warmup_start_lr']:g}"
        words.append(start)
    return "; ".join([*words, last])


def each_view(run: MethodPreset) -> list[Augmentation]:
    """Return a pipeline for each view.

    :param run: a method's settings.
    """
    return [a for a in run.augmentations for _ in range(a.num_crops)]


def view_text(view: Augmentation) -> str:
    """Return a pipeline in a line.

    :param view: its settings.
    """
    jitter = (view.brightness, view.contrast, view.saturation, view.hue)
    return ", ".join(
        [
            f"crop {view.crop_min_scale:g} to {view.crop_max_scale:g} at {view.crop_size}",
            f"jitter {_numbers(jitter)} with {view.jitter_prob:g}",
            f"grey {view.grayscale_prob:g}",
            f"blur {view.blur_prob:g}",
            f"solarisation {view.solarization_prob:g}",
            f"flip {view.flip_prob:g}",
            f"mean {_numbers(view.mean)}",
            f"deviation {_numbers(view.std)}",
        ]
    )


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _pairs(said: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in said.items())
