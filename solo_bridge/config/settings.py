"""What a configuration of solo-learn's means in this package's terms.

What it leaves out has solo-learn's own default, not the bridge's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avalanche_branchtune.errors import ConfigError, UnknownOptionError, expected_one_of
from avalanche_branchtune.options import one_of
from solo_bridge.augmentation import Augmentation
from solo_bridge.compat.config_keys import (
    CHANGE_TRAINING,
    DATASETS,
    IMAGENET,
    KNOWN,
    LEFT_OUT,
    LEFT_OUT_OF_OPTIMIZERS,
    PIPELINE,
    PRECISIONS,
    SCHEDULERS,
    SHARES,
    STALE,
    TAU,
    WARMUP_EPOCHS,
    Dataset,
)
from solo_bridge.config.sources import Config, content
from solo_bridge.config.values import Values, suggestion
from solo_bridge.defaults import DEFAULTS
from solo_bridge.optim import EVERY, OptimizerSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SoloConfig:
    """What a configuration of solo-learn's says, in this package's terms.

    :param method: arguments of :class:`solo_bridge.SoloMethod`.
    :param strategy: arguments of :class:`solo_bridge.SelfSupervised`:
        ``train_epochs``, ``train_mb_size``, ``optimizer``, ``lr``,
        ``weight_decay``, ``optimizer_settings``, ``precision``,
        ``channels_last``; those that neither the configuration nor solo-learn's
        defaults set are left out.
    :param ignored: keys that solo-learn knows and that have no meaning here,
        with their full path.
    :param lost: those of them that would change training, and their values.
    """

    method: Mapping[str, Any]
    strategy: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    lost: Mapping[str, Any] = field(default_factory=dict)

    @property
    def augmentations(self) -> list[Augmentation]:
        """The pipelines of the views; empty if the method's own are to be used."""
        return list(self.method.get("augmentations", ()))


def settings_from_config(config: Config) -> SoloConfig:
    """Read a configuration of solo-learn's main branch (``scripts/pretrain/…``).

    ``defaults:`` may name a file of augmentations, which is looked for in the
    folder ``augmentations`` beside the configuration.  Learning rates are for a
    batch of 256, as in solo-learn, and ``optimizer.batch_size`` is that of one
    device.

    :param config: path of a yaml file, or what is in one.
    :return: the settings; keys without a meaning here are logged and listed, and
        warned of if they would change training.
    :raises ConfigError: if the file is missing or no valid yaml, a value is of
        the wrong type, or a key is missing that is needed.
    :raises UnknownOptionError: for keys that solo-learn does not know, with
        their full path, and for values that cannot be honoured.
    """
    source = str(config) if isinstance(config, str | Path) else "configuration"
    try:
        settings = _settings(config)
    except (ConfigError, UnknownOptionError) as error:
        raise type(error)(f"{source}: {error}") from error
    logger.info("%s: no meaning here: %s", source, ", ".join(settings.ignored) or "nothing")
    for key, value in settings.lost.items():
        advice = CHANGE_TRAINING[key][1]
        logger.warning("%s: %s: %s cannot be honoured; %s", source, key, value, advice)
    return settings


def _settings(config: Config) -> SoloConfig:
    values = Values()
    values.sort(content(config, values.ignored), KNOWN)
    pipelines = values.get("augmentations", list, [])
    for i, pipeline in enumerate(pipelines):
        values.sort(pipeline, PIPELINE, f"augmentations[{i}].")
    name = values.get("method", str)
    options = _method_kwargs(name, values) if name in DEFAULTS else {}
    if any(key.startswith("pretrained_feature_extractor") for key in values.unknown):
        raise ConfigError("a configuration of main_linear.py's: give one of main_pretrain.py's")
    if values.unknown:
        raise UnknownOptionError(f"unknown {', '.join(values.unknown)}")
    if values.needed:
        raise ConfigError(f"{', '.join(values.needed)}: ??? says that a value is to be given")
    if "cifar" in values.get("backbone.kwargs", dict, {}):
        raise UnknownOptionError(
            "backbone.kwargs.cifar: solo-learn sets it itself by data.dataset, cifar10 or cifar100"
        )
    if name not in DEFAULTS:
        raise expected_one_of("method", values.need("method", str), list(DEFAULTS))
    dataset = values.get("data.dataset", str)
    if dataset not in (None, "custom", *DATASETS):
        raise expected_one_of("data.dataset", dataset, [*DATASETS, "custom"])
    data = DATASETS.get(dataset)
    augmentations = [_augmentation(values, i, data) for i in range(len(pipelines))]
    method = {
        "name": name,
        "backbone": values.get("backbone.name", str),
        "backbone_kwargs": values.get("backbone.kwargs", dict),
        "cifar_stem": None if dataset is None else dataset.startswith("cifar"),
        "num_classes": values.get("data.num_classes", int, data.classes if data else None),
        "tau": tuple(values.get(f"momentum.{key}", float, default) for key, default in TAU.items()),
        **_views(values, augmentations),
        **options,
    }
    strategy = _given(_strategy(values))
    return SoloConfig(_given(method), strategy, tuple(values.ignored), values.lost)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _method_kwargs(name: str, values: Values) -> dict[str, Any]:
    """Return solo-learn's settings of a method, its own defaults for those left out."""
    path = "method_kwargs."
    known = DEFAULTS[name].method_kwargs
    anywhere = {key for defaults in DEFAULTS.values() for key in defaults.method_kwargs}
    options = dict(LEFT_OUT.get(name, {}))
    for key, value in values.get("method_kwargs", dict, {}).items():
        if key in known:
            options[key] = value
        elif key in anywhere | STALE:
            values.ignored.append(path + key)
        else:
            values.unknown.append(path + key + suggestion(key, known, path))
    return options


def _augmentation(values: Values, index: int, data: Dataset | None) -> Augmentation:
    """Read one pipeline; what it does not name is not done."""
    path = f"augmentations[{index}]."
    if not values.get(f"{path}rrc.enabled", bool, True):
        raise UnknownOptionError(f"{path}rrc.enabled: views without a random crop are not bridged")
    mean, std = (_channels(values, path + key, default) for key, default in IMAGENET.items())
    if data is not None:  # solo-learn takes the data set's own, whatever is said
        values.ignored += [key for key in (f"{path}mean", f"{path}std") if key in values.read]
        mean, std = data.mean, data.std
    return Augmentation(
        crop_size=values.need(f"{path}crop_size", int),
        num_crops=values.need(f"{path}num_crops", int),
        **{n: values.get(path + key, float, default) for n, (key, default) in SHARES.items()},
        mean=mean,
        std=std,
    )


def _channels(
    values: Values, key: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    given = values.get(key, list)
    if given is None:
        return default
    with suppress(TypeError, ValueError):
        red, green, blue = map(float, given)
        return red, green, blue
    raise ConfigError(f"{key}: expected three numbers, got {given!r}")


def _views(values: Values, augmentations: list[Augmentation]) -> dict[str, Any]:
    """Count the views: those of the first pipeline's size are the large ones."""
    said = [values.get(f"data.num_{kind}_crops", int) for kind in ("large", "small")]
    if not augmentations:
        return {"large_views": said[0], "small_views": said[1]}
    size = augmentations[0].crop_size
    large = sum(a.num_crops for a in augmentations if a.crop_size == size)
    small = sum(a.num_crops for a in augmentations) - large
    if any(n not in (None, made) for n, made in zip(said, (large, small), strict=True)):
        raise ConfigError(
            f"data.num_large_crops and data.num_small_crops say {said}, but the augmentations "
            f"make {large} and {small}"
        )
    views = {"large_views": large, "small_views": small}
    return {"image_size": size, "augmentations": augmentations, **views}


def _betas(given: list[Any] | None) -> tuple[float, float] | None:
    if given is None:
        return None
    numbers = [b for b in given if isinstance(b, int | float) and 0 <= b < 1]
    if len(numbers) != 2 or len(given) != 2:
        raise ConfigError(f"optimizer.kwargs.betas: expected two numbers in [0, 1), got {given}")
    return float(numbers[0]), float(numbers[1])


def _strategy(values: Values) -> dict[str, Any]:
    optimizer = _given(
        {
            "name": values.get("optimizer.name", str),
            "lr": values.get("optimizer.lr", float),
            "weight_decay": values.get("optimizer.weight_decay", float),
        }
    )
    left_out = LEFT_OUT_OF_OPTIMIZERS.get(optimizer.get("name", ""), {})
    scheduler, interval = (values.get(f"scheduler.{key}", str) for key in ("name", "interval"))
    for key, value, known in (("name", scheduler, SCHEDULERS), ("interval", interval, EVERY)):
        if value is not None:
            one_of(f"scheduler.{key}", value, known)
    warmup = WARMUP_EPOCHS if scheduler == "warmup_cosine" else None
    kwargs = "optimizer.kwargs."
    settings = _given(
        {
            "momentum": values.get(f"{kwargs}momentum", float),
            "betas": _betas(values.get(f"{kwargs}betas", list, left_out.get("betas"))),
            "eta": values.get(f"{kwargs}eta", float, left_out.get("eta")),
            "clip": values.get(f"{kwargs}clip_lr", bool, left_out.get("clip_lr")),
            "exclude_bias_and_norm": values.get(
                f"{kwargs}exclude_bias_n_norm", bool, left_out.get("exclude_bias_n_norm")
            ),
            "scheduler": scheduler,
            "schedule_every": interval,
            "warmup_epochs": values.get("scheduler.warmup_epochs", float, warmup),
            "unfinished_warmup": True if scheduler == "warmup_cosine" else None,
            "warmup_start_lr": values.get("scheduler.warmup_start_lr", float),
            "min_lr": values.get("scheduler.min_lr", float),
        }
    )
    OptimizerSettings(**optimizer, **settings)  # refuses unknown names
    return {
        "train_epochs": values.get("max_epochs", int),
        "train_mb_size": values.get("optimizer.batch_size", int),
        "optimizer": optimizer.pop("name", None),
        **optimizer,
        "optimizer_settings": settings,
        "precision": _precision(values),
        "channels_last": not values.get("performance.disable_channel_last", bool, False),
    }


def _precision(values: Values) -> str | None:
    given = values.read.get("precision")
    if given is None:
        return None
    if str(given) not in PRECISIONS:
        raise expected_one_of("precision", given, list(PRECISIONS))
    return PRECISIONS[str(given)]
