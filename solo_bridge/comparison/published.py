"""What a comparison takes from a preset, and what of the preset it does otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from solo_bridge.presets import Preset
from solo_bridge.presets.text import optimizer_text
from solo_bridge.strategy import precision_on


def sizes(of: Preset) -> dict[str, int]:
    """Return the sizes of a preset's comparison, as :class:`Comparison` names them.

    :param of: the preset.
    """
    return {
        "size": of.image_size,
        "experiences": of.experiences,
        "epochs": of.train_epochs,
        "batch": of.train_mb_size,
    }


def warmup(of: Preset, method: str, epochs: int) -> dict[str, Any]:
    """Return the warm-up of an experience that is too short for the preset's, else nothing.

    :param of: the preset.
    :param method: solo-learn's name.
    :param epochs: of each experience.
    """
    said = of.method(method).optimizer_settings.get("warmup_epochs") or 0
    return {"warmup_epochs": None} if 10 * said > epochs else {}


def overridden(of: Preset, method: str, given: Mapping[str, Any], device: str) -> dict[str, str]:
    """Return what of a preset is done otherwise: setting → what, instead of what.

    :param of: the preset.
    :param method: solo-learn's name.
    :param given: at least what :func:`sizes` has; ``per_class`` and ``test_per_class`` count, too.
    :param device: where to train.
    """
    words = {"size": "image size", "batch": "batch size"}
    changed = {
        words.get(name, name): f"{given[name]} instead of {said}"
        for name, said in sizes(of).items()
        if given[name] != said
    }
    parts = {"per_class": "training images", "test_per_class": "test images"}
    changed |= {
        f"{what} of each class": f"{given[name]} instead of all"
        for name, what in parts.items()
        if given.get(name) is not None
    }
    epochs = of.method(method).optimizer_settings.get("warmup_epochs")
    if warmup(of, method, given["epochs"]):
        changed["warm-up"] = f"a tenth of the epochs, at most {epochs}, instead of {epochs}"
    usual = of.method(method).optimizer_settings
    changed |= {
        f"{name} of the optimizer": f"{value} instead of {usual.get(name, 'the usual')}"
        for name, value in given.get("optimizer_settings", {}).items()
        if value != usual.get(name)
    }
    if precision_on(device, of.precision, of.name) != of.precision:
        changed["precision"] = f"bf16 instead of {of.precision}, on a CPU"
    return changed


def facts(of: Preset, method: str, changed: Mapping[str, str]) -> dict[str, str]:
    """Return what a record says of a preset.

    :param of: the preset.
    :param method: solo-learn's name.
    :param changed: see :func:`overridden`.
    """
    return {
        "preset": f"{of.name}: arXiv {of.arxiv}, {of.repository} {of.commit}",
        "overridden": ", ".join(f"{k} {v}" for k, v in changed.items()) or "nothing",
        "backbone": "resnet18",
        "optimizer": optimizer_text(of.method(method)),
        "precision": of.precision,
    }
