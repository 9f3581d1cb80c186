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

from avalanche_branchtune.errors import BranchTuneError, UnknownOptionError, expected_one_of
from solo_bridge.augmentation import MEAN, STD, Augmentation
from solo_bridge.defaults import DEFAULTS
from solo_bridge.method import SoloMethod
from solo_bridge.optim import OptimizerSettings

logger = logging.getLogger(__name__)

Config: TypeAlias = str | Path | Mapping[str, Any]


class ConfigError(BranchTuneError, ValueError):
    """A configuration cannot be read, or lacks what is needed."""


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
    lost = [key for key in settings.ignored if key in _CHANGE_TRAINING]
    if lost:
        logger.warning("%s: %s cannot be honoured", source, ", ".join(lost))
    return settings


# ---- what solo-learn knows: True is read here, False has no meaning here

_PROBABLE = ("grayscale", "gaussian_blur", "solarization", "equalization", "horizontal_flip")

_PIPELINE: Mapping[str, Any] = {
    "rrc": dict.fromkeys(("enabled", "crop_min_scale", "crop_max_scale"), True),
    "color_jitter": {
        **dict.fromkeys(("prob", "brightness", "contrast", "saturation", "hue"), True),
        "enabled": False,  # solo-learn itself looks at the probabilities only
    },
    **{name: {"prob": True, "enabled": False} for name in _PROBABLE},
    **dict.fromkeys(("crop_size", "num_crops", "mean", "std"), True),
}

_TRAINER = (  # noqa: SIM905
    "accelerator accumulate_grad_batches barebones benchmark callbacks check_val_every_n_epoch "
    "default_root_dir detect_anomaly deterministic devices enable_checkpointing "
    "enable_model_summary enable_progress_bar fast_dev_run gradient_clip_algorithm "
    "gradient_clip_val inference_mode limit_predict_batches limit_test_batches "
    "limit_train_batches limit_val_batches log_every_n_steps logger max_steps max_time min_epochs "
    "min_steps num_nodes num_sanity_val_steps overfit_batches plugins precision profiler "
    "reload_dataloaders_every_n_epochs strategy sync_batchnorm use_distributed_sampler "
    "val_check_interval"
).split()

_KNOWN: Mapping[str, Any] = {
    "method": True,
    "method_kwargs": True,
    "backbone": {"name": True, "kwargs": True},
    "momentum": {"base_tau": True, "final_tau": True, "classifier": False},
    "data": {
        **dict.fromkeys(("dataset", "num_classes", "num_large_crops", "num_small_crops"), True),
        **dict.fromkeys(("train_path", "val_path", "format", "num_workers", "no_labels"), False),
        "fraction": False,
    },
    "augmentations": True,
    "optimizer": {
        **dict.fromkeys(("name", "batch_size", "lr", "weight_decay"), True),
        **dict.fromkeys(("classifier_lr", "exclude_bias_n_norm_wd"), False),
        "kwargs": {
            **dict.fromkeys(("momentum", "eta", "clip_lr", "exclude_bias_n_norm"), True),
            **dict.fromkeys(("betas", "eps", "amsgrad", "nesterov", "dampening"), False),
        },
    },
    "scheduler": {
        **dict.fromkeys(("name", "warmup_epochs", "warmup_start_lr", "min_lr"), True),
        **dict.fromkeys(("lr_decay_steps", "interval"), False),
    },
    "max_epochs": True,
    **dict.fromkeys(("name", "seed", "resume_from_checkpoint", "checkpoint", "auto_resume"), False),
    **dict.fromkeys(("wandb", "auto_umap", "dali", "hydra", "knn_eval", "performance"), False),
    **dict.fromkeys(("debug_augmentations", *_TRAINER), False),
    **dict.fromkeys(("augmentations_cfg", "wandb_cfg"), False),  # left over in its own files
}

_CHANGE_TRAINING = frozenset(
    ["accumulate_grad_batches", "gradient_clip_val", "limit_train_batches", "overfit_batches"]
    + ["data.fraction", "optimizer.exclude_bias_n_norm_wd", "scheduler.interval"]
    + [f"optimizer.kwargs.{name}" for name in ("betas", "eps", "amsgrad", "nesterov", "dampening")]
)

_STALE = frozenset({"base_tau_momentum", "final_tau_momentum", "momentum_classifier"})
"""Settings of release 1.0.2's that solo-learn's own files still carry under ``method_kwargs``."""

LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "all4one": {"queue_size": 65536},
    "barlow_twins": {"lamb": 0.0051, "scale_loss": 0.024},
    "dino": {"warmup_teacher_temperature_epochs": 0},
    "mae": {"norm_pix_loss": False},
    "mocov2plus": {"queue_size": 65536},
    "swav": {"queue_size": 65536, "freeze_prototypes_epochs": 1, "epoch_queue_starts": 15},
    "vibcreg": {"iternorm": False},
    "wmse": {"whitening_size": 256},
}
"""solo-learn's defaults of ``method_kwargs``, where the bridge's own differ."""

_SHARES: Mapping[str, tuple[str, float]] = {
    "crop_min_scale": ("rrc.crop_min_scale", 0.08),
    "crop_max_scale": ("rrc.crop_max_scale", 1.0),
    "jitter_prob": ("color_jitter.prob", 0.0),
    "brightness": ("color_jitter.brightness", 0.0),
    "contrast": ("color_jitter.contrast", 0.0),
    "saturation": ("color_jitter.saturation", 0.0),
    "hue": ("color_jitter.hue", 0.0),
    "grayscale_prob": ("grayscale.prob", 0.0),
    "blur_prob": ("gaussian_blur.prob", 0.0),
    "solarization_prob": ("solarization.prob", 0.0),
    "equalization_prob": ("equalization.prob", 0.0),
    "flip_prob": ("horizontal_flip.prob", 0.0),
}
"""Fields of :class:`Augmentation`: solo-learn's key, and the value if it is left out."""

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class _Dataset:
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_DATASETS: Mapping[str, _Dataset] = {
    "cifar10": _Dataset(10, MEAN, STD),
    "cifar100": _Dataset(100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": _Dataset(10, (0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
    "imagenet": _Dataset(1000, **_IMAGENET),
    "imagenet100": _Dataset(100, **_IMAGENET),
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
        if _KNOWN.get(key) is False:
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
    elsewhere = [p for p in _paths(_KNOWN) if p.rpartition(".")[2] == key]
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
    values.sort(plain, _KNOWN)
    pipelines = values.get("augmentations", list, [])
    for i, pipeline in enumerate(pipelines):
        values.sort(pipeline, _PIPELINE, f"augmentations[{i}].")
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
        elif key in anywhere | _STALE:
            values.ignored.append(path + key)
        else:
            values.unknown.append(path + key + _suggestion(key, known, path))
    return options


def _augmentation(values: _Values, index: int, data: _Dataset | None) -> Augmentation:
    """Read one pipeline; what it does not name is not done."""
    path = f"augmentations[{index}]."
    if not values.get(f"{path}rrc.enabled", bool, True):
        raise UnknownOptionError(f"{path}rrc.enabled: views without a random crop are not bridged")
    mean, std = (_channels(values, path + key, default) for key, default in _IMAGENET.items())
    if data is not None:  # solo-learn takes the data set's own, whatever is said
        values.ignored += [key for key in (f"{path}mean", f"{path}std") if key in values.read]
        mean, std = data.mean, data.std
    return Augmentation(
        crop_size=values.need(f"{path}crop_size", int),
        num_crops=values.need(f"{path}num_crops", int),
        **{n: values.get(path + key, float, default) for n, (key, default) in _SHARES.items()},
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
