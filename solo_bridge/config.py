"""solo-learn's configuration files, as its main branch reads them.

What a file leaves out has solo-learn's own default, not the bridge's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from avalanche_branchtune.errors import ConfigError, UnknownOptionError, expected_one_of
from solo_bridge.augmentation import MEAN, STD, Augmentation
from solo_bridge.config_keys import (
    CHANGE_TRAINING,
    IMAGENET,
    KNOWN,
    LEFT_OUT,
    PIPELINE,
    SHARES,
    STALE,
)
from solo_bridge.defaults import DEFAULTS
from solo_bridge.method import SoloMethod
from solo_bridge.optim import OptimizerSettings

logger = logging.getLogger(__name__)

Config: TypeAlias = str | Path | Mapping[str, Any]


@dataclass(frozen=True)
class SoloConfig:
    """What a configuration of solo-learn's says, in this package's terms.

    :param method: arguments of :class:`solo_bridge.SoloMethod`.
    :param strategy: arguments of :class:`solo_bridge.SelfSupervised`:
        ``train_epochs``, ``train_mb_size``, ``optimizer``, ``lr``,
        ``weight_decay``, ``optimizer_settings``; those that the configuration
        does not set are left out.
    :param ignored: keys that solo-learn knows and that have no meaning here,
        with their full path.
    """

    method: Mapping[str, Any]
    strategy: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def augmentations(self) -> list[Augmentation]:
        """The pipelines of the views; empty if the method's own are to be used."""
        return list(self.method.get("augmentations", ()))


def method_from_config(config: Config) -> SoloMethod:
    """Build the method that a configuration describes.

    :param config: see :func:`settings_from_config`.
    :return: the method, newly initialised.
    :raises ConfigError: see :func:`settings_from_config`.
    :raises UnknownOptionError: also for settings that solo-learn refuses.
    """
    return SoloMethod(**settings_from_config(config).method)


def settings_from_config(config: Config) -> SoloConfig:
    """Read a configuration of solo-learn's main branch (``scripts/pretrain/…``).

    ``defaults:`` may name a file of augmentations, which is looked for in the
    folder ``augmentations`` beside the configuration.  Learning rates are for a
    batch of 256, as in solo-learn, and ``optimizer.batch_size`` is that of one
    device.  Without ``scheduler.warmup_epochs`` the warm-up takes 10 epochs, but
    at most a tenth of an experience (solo-learn: 10).

    :param config: path of a yaml file, or what is in one.
    :return: the settings; keys without a meaning here are logged and listed.
    :raises ConfigError: if the file is missing or no valid yaml, a value is of
        the wrong type, or a key is missing that is needed.
    :raises UnknownOptionError: for keys that solo-learn does not know, with
        their full path, and for values that cannot be honoured.
    """
    source = str(config) if isinstance(config, str | Path) else "configuration"
    try:
        settings = _settings(*_loaded(config))
    except (ConfigError, UnknownOptionError) as error:
        raise type(error)(f"{source}: {error}") from error
    logger.info("%s: no meaning here: %s", source, ", ".join(settings.ignored) or "nothing")
    lost = [key for key in settings.ignored if key in CHANGE_TRAINING]
    if lost:
        logger.warning("%s: %s cannot be honoured", source, ", ".join(lost))
    return settings


@dataclass(frozen=True)
class _Dataset:
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_DATASETS: Mapping[str, _Dataset] = {
    "cifar10": _Dataset(10, MEAN, STD),
    "cifar100": _Dataset(100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": _Dataset(10, (0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
    "imagenet": _Dataset(1000, **IMAGENET),
    "imagenet100": _Dataset(100, **IMAGENET),
}


# ---- files


def _loaded(config: Config) -> tuple[DictConfig, Path | None]:
    """Return a configuration and the folder that its ``defaults`` refer to."""
    if isinstance(config, Mapping):
        return OmegaConf.create(dict(config)), None
    path = Path(config)
    content = _yaml(path)
    if not isinstance(content, DictConfig):
        raise ConfigError("expected a mapping with method, optimizer …, got a list")
    return content, path.parent


def _yaml(path: Path) -> DictConfig | ListConfig:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        return OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is no valid yaml: {error}") from error


def _plain(config: DictConfig, ignored: list[str]) -> dict[str, Any]:
    """Resolve interpolations, but for whole sections that are not read."""
    plain: dict[str, Any] = {}
    for key in map(str, config):
        if KNOWN.get(key) is False:
            ignored.append(key)
        elif not OmegaConf.is_missing(config, key):
            try:
                value = config[key]
                whole = OmegaConf.is_config(value)
                plain[key] = OmegaConf.to_container(value, resolve=True) if whole else value
            except OmegaConfBaseException as error:
                raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    return plain


def _with_defaults(
    config: dict[str, Any], folder: Path | None, ignored: list[str]
) -> dict[str, Any]:
    """Put the augmentations that ``defaults`` names in their place, in Hydra's order."""
    own_first = False
    for entry in config.pop("defaults", None) or ():
        if entry == "_self_":
            own_first = True
            continue
        if not isinstance(entry, Mapping):
            raise UnknownOptionError(f"defaults: {entry!r}: only augmentations can be elsewhere")
        for key, name in entry.items():
            group = str(key).removeprefix("override ").removeprefix("optional ")
            if group.partition("/")[0] in ("hydra", "wandb"):
                ignored.append(f"defaults.{group}")
            elif group != "augmentations":
                raise UnknownOptionError(f"unknown defaults.{group}: expected augmentations")
            elif "augmentations" in config and not own_first:
                ignored.append("defaults.augmentations")
            else:
                ignored += ["augmentations"] if "augmentations" in config else []
                config["augmentations"] = _pipelines(folder, str(name))
    return config


def _pipelines(folder: Path | None, name: str) -> Any:
    if folder is None:
        raise ConfigError(
            f"defaults.augmentations: {name}: pass the path of the file, or the pipelines "
            "themselves as `augmentations`"
        )
    file = folder / "augmentations" / name
    if file.suffix not in (".yaml", ".yml"):
        file = file.with_name(f"{name}.yaml")
    return OmegaConf.to_container(_yaml(file), resolve=True)


# ---- keys


@dataclass
class _Values:
    """Values of a configuration by full path; keys that are not read; keys that nobody knows."""

    read: dict[str, Any] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def sort(self, section: Any, known: Mapping[str, Any], path: str = "") -> None:
        """Take up a section of a configuration.

        :param section: the section.
        :param known: what solo-learn knows in it.
        :param path: its full path, ending with a dot.
        """
        if not isinstance(section, Mapping):
            names = ", ".join(known)
            raise ConfigError(f"{path.rstrip('.')}: expected a mapping of {names}; got {section!r}")
        for key, value in section.items():
            status = known.get(key, "unknown")
            if status == "unknown":
                self.unknown.append(path + str(key) + _suggestion(str(key), known, path))
            elif status is False:
                self.ignored.append(f"{path}{key}")
            elif value is None or value == "???":
                continue
            elif isinstance(status, Mapping):
                self.sort(value, status, f"{path}{key}.")
            else:
                self.read[f"{path}{key}"] = value

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """Return a value of a type, or the default.

        :param key: its full path.
        :param kind: bool, dict, float, int, list or str; a number may be a text:
            yaml takes ``1e-4`` for one.
        :param default: what to return if the key is not there.
        """
        value = self.read.get(key)
        if value is None:
            return default
        number = kind in (float, int) and not isinstance(value, bool)
        with suppress(TypeError, ValueError, OverflowError):
            if number and kind(float(value)) == float(value):
                return kind(float(value))
        if number or not isinstance(value, kind):
            raise ConfigError(f"{key}: expected {_KINDS[kind]}, got {value!r}")
        return value

    def need(self, key: str, kind: type) -> Any:
        """Return a value that must be there."""
        value = self.get(key, kind)
        if value is None:
            raise ConfigError(f"{key} is missing")
        return value


_KINDS = {
    bool: "true or false",
    dict: "a mapping",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "a name",
}


def _suggestion(key: str, known: Mapping[str, Any], path: str) -> str:
    """Return `` (did you mean …?)`` if there is a likely key in or outside a section."""
    near = [path + k for k in get_close_matches(key, known, 1)]
    elsewhere = [p for p in _paths(KNOWN) if p.rpartition(".")[2] == key]
    return f" (did you mean {(near or elsewhere)[0]}?)" if near or elsewhere else ""


def _paths(known: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, status in known.items():
        yield path + key
        if isinstance(status, Mapping):
            yield from _paths(status, f"{path}{key}.")


# ---- settings


def _settings(config: DictConfig, folder: Path | None) -> SoloConfig:
    values = _Values()
    plain = _with_defaults(_plain(config, values.ignored), folder, values.ignored)
    values.sort(plain, KNOWN)
    pipelines = values.get("augmentations", list, [])
    for i, pipeline in enumerate(pipelines):
        values.sort(pipeline, PIPELINE, f"augmentations[{i}].")
    name = values.get("method", str)
    options = _method_kwargs(name, values) if name in DEFAULTS else {}
    if values.unknown:
        raise UnknownOptionError(f"unknown {', '.join(values.unknown)}")
    if name not in DEFAULTS:
        raise expected_one_of("method", values.need("method", str), list(DEFAULTS))
    dataset = values.get("data.dataset", str)
    if dataset not in (None, "custom", *_DATASETS):
        raise expected_one_of("data.dataset", dataset, [*_DATASETS, "custom"])
    data = _DATASETS.get(dataset)
    augmentations = [_augmentation(values, i, data) for i in range(len(pipelines))]
    method = {
        "name": name,
        "backbone": values.get("backbone.name", str),
        "backbone_kwargs": values.get("backbone.kwargs", dict),
        "cifar_stem": None if dataset is None else dataset.startswith("cifar"),
        "num_classes": values.get("data.num_classes", int, data.classes if data else None),
        "tau": (
            values.get("momentum.base_tau", float, 0.99),
            values.get("momentum.final_tau", float, 1.0),
        ),
        **_views(values, augmentations),
        **options,
    }
    return SoloConfig(_given(method), _given(_strategy(values)), tuple(values.ignored))


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _method_kwargs(name: str, values: _Values) -> dict[str, Any]:
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
            values.unknown.append(path + key + _suggestion(key, known, path))
    return options


def _augmentation(values: _Values, index: int, data: _Dataset | None) -> Augmentation:
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
    values: _Values, key: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    given = values.get(key, list)
    if given is None:
        return default
    with suppress(TypeError, ValueError):
        red, green, blue = map(float, given)
        return red, green, blue
    raise ConfigError(f"{key}: expected three numbers, got {given!r}")


def _views(values: _Values, augmentations: list[Augmentation]) -> dict[str, Any]:
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


def _strategy(values: _Values) -> dict[str, Any]:
    optimizer = _given(
        {
            "name": values.get("optimizer.name", str),
            "lr": values.get("optimizer.lr", float),
            "weight_decay": values.get("optimizer.weight_decay", float),
        }
    )
    lars = optimizer.get("name") == "lars"
    kwargs = "optimizer.kwargs."
    settings = _given(
        {
            "momentum": values.get(f"{kwargs}momentum", float),
            "betas": _betas(values.get(f"{kwargs}betas", list)),
            # As solo-learn has them, if they are left out.
            "eta": values.get(f"{kwargs}eta", float, 1e-3 if lars else None),
            "clip": values.get(f"{kwargs}clip_lr", bool, False if lars else None),
            "exclude_bias_and_norm": values.get(
                f"{kwargs}exclude_bias_n_norm", bool, False if lars else None
            ),
            "scheduler": values.get("scheduler.name", str),
            "warmup_epochs": values.get("scheduler.warmup_epochs", float),
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
    }
