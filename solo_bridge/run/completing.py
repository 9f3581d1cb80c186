"""From a composed configuration to one that says every setting, and to what is trained by it.

A setting that is null is what the preset says of the method, or solo-learn's own configuration
(``method=from_yaml``), else what the method starts from (:mod:`solo_bridge.defaults`).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from avalanche_branchtune.errors import ConfigError, UnknownOptionError, did_you_mean
from avalanche_branchtune.metrics import LOGGERS
from avalanche_branchtune.options import at_least, at_least_one, one_of, positive
from avalanche_branchtune.streams import DIVISIONS, STREAMS
from solo_bridge.augmentation import Augmentation, resized
from solo_bridge.comparison.configured import SMALL, Configured, tuples
from solo_bridge.comparison.measured import PROBES
from solo_bridge.comparison.weights import described, file_of
from solo_bridge.config import settings_from_config
from solo_bridge.defaults import DEFAULTS
from solo_bridge.feeding import VIEWS
from solo_bridge.method import SoloMethod
from solo_bridge.optim import OptimizerSettings
from solo_bridge.presets import preset
from solo_bridge.run import groups
from solo_bridge.run.fitting import arguments, fits, known, mapping
from solo_bridge.specification import entries
from solo_bridge.strategy import SelfSupervised

SECTIONS = ("method", "backbone", "stream", "augmentation", "options", "training", "hardware")
NAMES = ("preset", "weights", "strategy", "probe", "logger", "seed", "out", "name", "imports")
PLAIN: Mapping[str, Any] = {
    **{"preset": str | None, "weights": str | None, "strategy": str, "probe": str},
    **{"logger": str | None, "seed": int, "out": str, "name": str | None, "imports": list[str]},
}
HARDWARE: Mapping[str, Any] = {
    **{"device": str, "workers": int, "threads": int, "jobs": int | None, "processes": int},
    **{"checkpoint_minutes": float | None, "keep_checkpoints": bool},
}
APART = frozenset({"strategy", "options", "seed", "out", "name", "hardware", "imports", "logger"})
"""What may differ between the runs of one folder, which are compared."""
SCHEDULE = frozenset(
    {
        *("scheduler", "schedule_every", "warmup_epochs", "unfinished_warmup"),
        *("warmup_start_lr", "min_lr"),
    }
)
"""Settings of an optimizer that another one keeps."""
SIZE, BATCH = 32, 256
"""Of images in pixels and of a minibatch, where nothing says them."""
NAME = re.compile(r"\w[\w.+=,-]*")
UNSAFE = re.compile(r"[^\w.+=,-]")


@dataclass(frozen=True)
class Base:
    """Where a configuration starts from.

    :param name: of the method.
    :param method: arguments of :class:`~solo_bridge.SoloMethod`, augmentations among them.
    :param training: arguments of :class:`~solo_bridge.SelfSupervised`.
    :param experiences: of the stream, if that is said.
    :param views: how views are made, if that is said.
    """

    name: str
    method: dict[str, Any]
    training: dict[str, Any]
    experiences: int | None = None
    views: str | None = None


# ---- all settings


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with every setting said; one that is complete stays as it is.

    :param config: what was composed, or is in a file.
    :raises UnknownOptionError: for names that there are not, with the nearest one.
    :raises ConfigError: for values of the wrong type, and for what is needed and missing.
    """
    known("", config, [*NAMES, *SECTIONS])
    for name in ("method", "backbone", "stream", "augmentation", "training", "hardware"):
        if not isinstance(config.get(name), Mapping):
            raise ConfigError(
                f"{name}: expected settings, as {name}.NAME=…; got {config.get(name)}"
            )
    found = {name: fits(name, config.get(name), hint) for name, hint in PLAIN.items()}
    sections = {name: mapping(name, config.get(name)) for name in SECTIONS}
    _missing(sections)
    if found["name"] is not None and not NAME.fullmatch(found["name"]):
        raise ConfigError(
            f"name: expected that of one folder, letters, digits and _ . + -; got {found['name']!r}"
        )
    base = _base(found["preset"], sections["method"])
    at_least(0, "seed", found["seed"])
    if found["logger"] is not None:
        one_of("logger", found["logger"], LOGGERS)
    probes = [one_of("probe", part.strip(), PROBES) for part in found["probe"].split("+")]
    stream = _stream(sections["stream"], base)
    return {
        **found,
        "weights": None if found["weights"] is None else file_of(found["weights"]),
        "strategy": found["strategy"].replace(" ", ""),
        "probe": "+".join(probes),
        "method": _method(sections["method"], base),
        "backbone": _backbone(sections["backbone"], base),
        "stream": stream,
        "augmentation": _augmentation(sections["augmentation"], base, stream["size"]),
        "options": _options(found["strategy"], sections["options"]),
        "training": _training(sections["training"], base),
        "hardware": _hardware(sections["hardware"]),
    }


def _missing(sections: Mapping[str, Mapping[str, Any]]) -> None:
    for section, settings in sections.items():
        for name, value in settings.items():
            if value == "???" and name != "n_experiences":
                raise ConfigError(f"{section}.{name}=… is needed")


def _base(named: str | None, method: Mapping[str, Any]) -> Base:
    if method.get("file") is not None:
        if named is not None:
            raise ConfigError("method.file and preset both say how it is trained: keep one")
        said = settings_from_config(fits("method.file", method["file"], str))
        how, training = dict(said.method), dict(said.strategy)
        if method.get("name") not in (None, how["name"]):
            raise ConfigError(
                f"method: {method['file']} is of {how['name']}: leave method={method['name']} out, "
                "or give the file of that method"
            )
        usual = DEFAULTS[how["name"]].optimizer_settings
        training["optimizer_settings"] = {**usual, **training.get("optimizer_settings", {})}
        return Base(how["name"], how, training, views="solo_learn")
    name: Any = one_of("method", method.get("name"), DEFAULTS)
    if named is not None:
        published = preset(named)
        run = published.method(name)
        how = {**run.method_kwargs, "augmentations": run.augmentations, "tau": run.tau}
        how["image_size"] = published.image_size
        return Base(name, how, published.training(name), published.experiences)
    own = DEFAULTS[name]
    training = {"optimizer": own.optimizer, "lr": own.lr, "weight_decay": own.weight_decay}
    return Base(name, {}, {**training, "optimizer_settings": dict(own.optimizer_settings)})


def _method(given: dict[str, Any], base: Base) -> dict[str, Any]:
    own = DEFAULTS[base.name]
    known("method", given, ["name", "file", *own.method_kwargs, *groups.METHOD])
    for name, usual in own.method_kwargs.items():
        if given.get(name) is not None:
            kind = int | float if type(usual) in (int, float) else type(usual)
            fits(f"method.{name}", given[name], kind)
    usual = {"tau": own.tau, "large_views": own.large_views, "small_views": 0}
    usual |= {"queues": "keep", "prototypes": "keep"}
    extra = {name: given[name] for name in groups.METHOD if given.get(name) is not None}
    arguments("method", extra, SoloMethod)
    names = (*own.method_kwargs, *groups.METHOD)
    said = {name: base.method[name] for name in names if base.method.get(name) is not None}
    return _plain({"name": base.name, **usual, **own.method_kwargs, **said, **_given(given, names)})


def _backbone(given: dict[str, Any], base: Base) -> dict[str, Any]:
    known("backbone", given, ["name", "cifar_stem", "options"])
    said = base.method.get("backbone_kwargs") or {}
    name = given.get("name") or base.method.get("backbone") or DEFAULTS[base.name].backbone
    fits("backbone.cifar_stem", given.get("cifar_stem"), bool | None)
    stem = given.get("cifar_stem")
    options = mapping("backbone.options", given.get("options"))
    groups.backbone(fits("backbone.name", name, str))
    if name == SMALL:
        known("backbone.options", options, ["width"])
        options = {"width": at_least_one("backbone.options.width", options.get("width", 32))}
    elif given.get("name") is None:
        options = {**said, **options}
    return _plain(
        {
            "name": name,
            "cifar_stem": base.method.get("cifar_stem") if stem is None else stem,
            "options": options,
        }
    )


def _stream(given: dict[str, Any], base: Base) -> dict[str, Any]:
    name: Any = one_of("stream.name", given.get("name"), STREAMS)
    entry = STREAMS[name]
    division = given.get("division")
    if division is not None:
        one_of("stream.division", division, entry.divisions)
    options = entry.options(division)
    known("stream", given, ["name", "division", "size", *options])
    found = dict(given)
    if found.get("n_experiences") == "???":
        if base.experiences is None:
            raise ConfigError("stream.n_experiences=… is needed: how many experiences there are")
        found["n_experiences"] = base.experiences
    if found.get("size") is None:
        found["size"] = base.method.get("image_size") or SIZE
    rest = {n: v for n, v in found.items() if n in options and v is not None}
    for function in (entry.load, DIVISIONS[division or entry.divisions[0]]):
        own = {name: value for name, value in rest.items() if name in _parameters(function)}
        arguments("stream", own, function)
    at_least_one("stream.size", fits("stream.size", found["size"], int))
    return _plain(found)


def _augmentation(given: dict[str, Any], base: Base, size: int) -> dict[str, Any]:
    names = [name for name in groups.augmentation("own") if name not in ("views", "pipelines")]
    known("augmentation", given, ["views", "pipelines", *names])
    views = given.get("views") or base.views
    if views is not None:
        one_of("augmentation.views", views, VIEWS)
    changes = _given(given, names)
    arguments("augmentation", changes, Augmentation)
    pipelines = given.get("pipelines")
    if pipelines is None:
        own = base.method.get("augmentations") or DEFAULTS[base.name].augmentations
    else:
        listed = fits("augmentation.pipelines", pipelines, list[dict[str, Any]])
        for i, one in enumerate(listed):
            arguments(f"augmentation.pipelines[{i}]", one, Augmentation)
        own = [Augmentation(**tuples(one)) for one in listed]
    made = [replace(one, **tuples(changes)) for one in _sized(own, size)]
    return _plain({"views": views, "pipelines": [asdict(one) for one in made]})


def _sized(own: Any, size: int) -> list[Augmentation]:
    """Return pipelines with the large views at a size; smaller views keep their share of it."""
    largest = max(one.crop_size for one in own)
    alike = all(one.crop_size == largest for one in own)
    if alike:
        return resized(own, size)
    return [replace(one, crop_size=max(1, round(one.crop_size * size / largest))) for one in own]


def _options(strategy: str, given: dict[str, Any]) -> dict[str, Any]:
    parts = entries(strategy)
    for name, one in given.items():
        if name not in (part.name for part in parts):
            raise UnknownOptionError(
                f"options.{name}: not a part of strategy {strategy!r}"
                f"{did_you_mean(name, [part.name for part in parts])}"
            )
        mapping(f"options.{name}", one)
    for part in parts:
        arguments(f"options.{part.name}", mapping("", given.get(part.name)), part.maker)
    return _plain({name: one for name, one in given.items() if one})


def _training(given: dict[str, Any], base: Base) -> dict[str, Any]:
    known("training", given, ["epochs", "batch", *groups.TRAINING])
    counts = {"epochs": "train_epochs", "batch": "train_mb_size"}
    settings = mapping("training.optimizer_settings", given.get("optimizer_settings"))
    known("training.optimizer_settings", settings, groups.OPTIMIZER)
    settings = {name: value for name, value in settings.items() if value is not None}
    arguments("training.optimizer_settings", settings, OptimizerSettings)
    plain = _given(given, [name for name in groups.TRAINING if name != "optimizer_settings"])
    arguments("training", plain, SelfSupervised)
    said = {name: base.training[name] for name in groups.TRAINING if name in base.training}
    usual = dict(base.training.get("optimizer_settings") or {})
    if plain.get("optimizer", said.get("optimizer")) != said.get("optimizer"):
        usual = {name: value for name, value in usual.items() if name in SCHEDULE}
    found = {**groups.TRAINING, **said, **plain, "optimizer_settings": {**usual, **settings}}
    sizes: dict[str, Any] = {}
    for name, called in counts.items():
        value = base.training.get(called) if given.get(name) is None else given[name]
        sizes[name] = BATCH if value is None and name == "batch" else value
    if sizes["epochs"] is None:
        raise ConfigError(
            "training.epochs=… is needed: how many epochs each experience has (or a preset)"
        )
    sizes = {name: at_least_one(f"training.{name}", value) for name, value in sizes.items()}
    return _plain({**sizes, **found})


def _hardware(given: dict[str, Any]) -> dict[str, Any]:
    known("hardware", given, HARDWARE)
    found = {name: fits(f"hardware.{name}", given.get(name), h) for name, h in HARDWARE.items()}
    at_least(0, "hardware.workers", found["workers"])
    for name in ("threads", "processes"):
        at_least_one(f"hardware.{name}", found[name])
    if found["jobs"] is not None:
        at_least_one("hardware.jobs", found["jobs"])
    if found["checkpoint_minutes"] is not None:
        positive("hardware.checkpoint_minutes", found["checkpoint_minutes"])
    return found


def _given(given: Mapping[str, Any], names: Any) -> dict[str, Any]:
    return {name: given[name] for name in names if given.get(name) is not None}


def _parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Return settings as JSON and YAML have them."""
    plain: dict[str, Any] = json.loads(json.dumps(content, default=dict))
    return plain


# ---- what is trained


def experiment(config: Mapping[str, Any], begun: Mapping[str, str] | None = None) -> Configured:
    """Return what a complete configuration trains on.

    :param config: see :func:`completed`.
    :param begun: see :func:`~solo_bridge.comparison.weights.described`.
    """
    stream = dict(config["stream"])
    named, division, size = (stream.pop(name) for name in ("name", "division", "size"))
    method = {n: v for n, v in config["method"].items() if n != "name" and v is not None}
    training = dict(config["training"])
    epochs, batch = training.pop("epochs"), training.pop("batch")
    return Configured(
        seed=config["seed"],
        size=size,
        method=config["method"]["name"],
        epochs=epochs,
        batch=batch,
        device=config["hardware"]["device"],
        workers=config["hardware"]["workers"],
        views=config["augmentation"]["views"],
        options=config["options"],
        probes=config["probe"].split("+"),
        logger=config["logger"],
        variant=_variant(config),
        named=named,
        division=division,
        stream_options={n: v for n, v in stream.items() if v is not None},
        backbone=config["backbone"]["name"],
        backbone_options=config["backbone"]["options"],
        method_options={"cifar_stem": config["backbone"]["cifar_stem"], **method},
        augmentations=config["augmentation"]["pipelines"],
        training=training,
        preset=config["preset"],
        weights=None if config["weights"] is None else described(config["weights"], begun),
    )


def folder(config: Mapping[str, Any]) -> Path:
    """Return the folder of the runs that are compared with this one; its own lies in it.

    Its name ends with a digest of all settings but those that such runs differ in.

    :param config: see :func:`completed`.
    """
    name = config["name"]
    if name is None:
        shared = {key: value for key, value in config.items() if key not in APART}
        if shared.pop("weights") is not None:  # there were none in earlier versions
            shared["weights"] = described(config["weights"])["sha256"]
        digest = hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:6]
        parts = (config["stream"]["name"], config["method"]["name"], digest)
        name = "-".join(parts)
    return Path(config["out"]) / name


def _variant(config: Mapping[str, Any]) -> str | None:
    """Return what tells a run with options of its own from others of its strategy."""
    own = [
        f"{part}.{name}={value}"
        for part, options in config["options"].items()
        for name, value in options.items()
    ]
    if not own:
        return None
    text = ",".join(own)
    safe = UNSAFE.sub("-", f"{config['strategy']},{text}")
    if len(safe) > 120 or safe != f"{config['strategy']},{text}":
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        safe = f"{safe[:100]}-{digest}"
    return safe
