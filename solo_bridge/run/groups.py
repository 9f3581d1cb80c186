"""The groups of a configuration that the registries give: nothing of them stands in a file.

``method=…``, ``backbone=…``, ``stream=…`` and ``augmentation=…`` choose among the methods,
backbones, streams and pipelines that there are.  A setting that is null is what the preset says,
else the method's own, see :mod:`solo_bridge.run.completing`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from avalanche_branchtune.errors import UnknownOptionError, did_you_mean
from avalanche_branchtune.options import one_of
from avalanche_branchtune.streams import STREAMS
from solo_bridge.augmentation import Augmentation
from solo_bridge.backbones import known_names
from solo_bridge.comparison import digits
from solo_bridge.comparison.configured import SMALL
from solo_bridge.defaults import DEFAULTS
from solo_bridge.optim import OptimizerSettings
from solo_bridge.presets import PRESETS, common
from solo_bridge.strategy import SelfSupervised

SCHEME = "branchtune"
PRIMARY = "config"
FILES = "pkg://solo_bridge.run.conf"
"""Where the groups stand that are files."""

METHOD = ("tau", "large_views", "small_views", "queues", "prototypes")
"""Arguments of :class:`~solo_bridge.SoloMethod` beside solo-learn's settings of a method."""
UNSET = frozenset({"crop_size", "num_crops"})
"""Fields of an :class:`Augmentation` that size and number of the views decide."""
OUTSIDE = frozenset(
    {
        *("self", "model", "views", "plugins", "evaluator", "eval_every", "peval_mode", "device"),
        *("processes", "checkpoints", "reproducible_views", "train_epochs", "train_mb_size"),
    }
)
"""Arguments of :class:`~solo_bridge.SelfSupervised` that are said elsewhere, or are code."""
TRAINING = {
    name: parameter.default
    for name, parameter in inspect.signature(SelfSupervised).parameters.items()
    if name not in OUTSIDE
}
OPTIMIZER = tuple(f.name for f in fields(OptimizerSettings))[3:]
"""Settings beside name, rate and weight decay, which are arguments of their own."""
FROM_YAML = "from_yaml"
"""The method of a configuration of solo-learn's."""

PIPELINES: Mapping[str, tuple[Augmentation, ...]] = {
    "asymmetric": common.asymmetric(Augmentation()),
    "strong": common.strong(Augmentation()),
    "close": common.close(Augmentation()),
    "saturated": common.saturated(Augmentation()),
    "digits": (digits.views(16),),
}
"""Views that can be chosen instead of the method's own, at 32 pixels."""


def primary() -> dict[str, Any]:
    """Return what a configuration has beside its groups."""
    silent = ("job_logging", "hydra_logging")
    return {
        "defaults": [
            "_self_",
            {"method": "simclr"},
            {"backbone": "own"},
            {"stream": "digits"},
            {"augmentation": "own"},
            {"hardware": "cpu"},
            {"preset": None},
            *({f"override hydra/{one}": "none"} for one in silent),
        ],
        "strategy": "fine_tuning",
        "options": {},
        "probe": "knn",
        "logger": None,
        "training": {
            "epochs": None,
            "batch": None,
            **dict.fromkeys(TRAINING),
            "optimizer_settings": dict.fromkeys(OPTIMIZER),
        },
        "weights": None,
        "seed": 0,
        "out": "runs",
        "name": None,
        "imports": [],
        "preset": None,
        "hydra": {
            "output_subdir": None,
            "job": {"chdir": False},
            "sweep": {"dir": "${out}/.jobs/${now:%Y%m%d-%H%M%S}", "subdir": "${hydra.job.num}"},
        },
    }


def method(name: str) -> dict[str, Any]:
    """Return the settings of a method, each null.

    :param name: solo-learn's, or :data:`FROM_YAML`.
    """
    if name == FROM_YAML:
        return {"name": None, "file": "???", **dict.fromkeys(METHOD)}
    one_of("method", name, [*DEFAULTS, FROM_YAML])
    return {"name": name, **dict.fromkeys(DEFAULTS[name].method_kwargs), **dict.fromkeys(METHOD)}


def backbone(name: str) -> dict[str, Any]:
    """Return the settings of a backbone.

    :param name: see :func:`solo_bridge.backbones.known_names`; ``own`` is the method's.
    """
    names = ["own", SMALL]
    if name not in names and name not in (names := [*names, *known_names()]):
        raise UnknownOptionError(
            f"backbone: there is no {name!r}{did_you_mean(name, names)}; branchtune list backbones "
            "says what there is"
        )
    return {"name": None if name == "own" else name, "cifar_stem": None, "options": {}}


def stream(name: str) -> dict[str, Any]:
    """Return the options of a stream, those that are needed as ``???``.

    :param name: of the data, and of another division than the usual one behind a ``/``.
    """
    data, _, division = name.partition("/")
    entry = STREAMS[one_of("stream", data, STREAMS)]
    if division:
        one_of(f"stream={data}/…", division, entry.divisions)
    empty = inspect.Parameter.empty
    options = entry.options(division or None)
    plain = {option: "???" if value is empty else value for option, value in options.items()}
    plain = {"size": None, **plain, **({"seed": None} if "seed" in plain else {})}
    return {"name": data, "division": division or None, **_listed(plain)}


def augmentation(name: str) -> dict[str, Any]:
    """Return the settings of the views.

    :param name: of :data:`PIPELINES`; ``own`` is the method's.
    """
    one_of("augmentation", name, ["own", *PIPELINES])
    every = [f.name for f in fields(Augmentation) if f.name not in UNSET]
    pipelines = [asdict(one) for one in PIPELINES[name]] if name in PIPELINES else None
    return {"views": None, "pipelines": _listed(pipelines), **dict.fromkeys(every)}


def preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset of :data:`~solo_bridge.presets.PRESETS`.

    :param name: of it.
    """
    return {"preset": one_of("preset", name, [*PRESETS, *files("preset")])}


def files(group: str) -> list[str]:
    """Return the names of a group that are files.

    :param group: a folder of ``conf``.
    """
    folder = Path(__file__).parent / "conf" / group
    found = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
    return sorted(path.as_posix() for path in found)


GROUPS: Mapping[str, tuple[Callable[[str], dict[str, Any]], Callable[[], list[str]]]] = {
    "method": (method, lambda: [*DEFAULTS, FROM_YAML]),
    "backbone": (backbone, lambda: ["own", SMALL, *known_names()]),
    "stream": (
        stream,
        lambda: [*STREAMS, *(f"{n}/{d}" for n, found in STREAMS.items() for d in found.divisions)],
    ),
    "augmentation": (augmentation, lambda: ["own", *PIPELINES]),
    "preset": (preset, lambda: list(PRESETS)),
}
"""Group → its settings by name, and the names."""


class Registries(ConfigSource):
    """The groups above, as Hydra reads them."""

    @staticmethod
    def scheme() -> str:
        """Return what addresses of them begin with."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Return a configuration.

        :param config_path: ``group/name``.
        :raises UnknownOptionError: for a name that the group does not have.
        """
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        content = GROUPS[group][0](name) if name else primary()
        config = OmegaConf.create(content)
        for section, value in content.items():  # what they may hold is checked when all is composed
            if isinstance(value, dict) and section != "hydra":
                OmegaConf.set_struct(config[section], False)
        whole = group in ("preset",) or not name
        if not whole:
            OmegaConf.set_struct(config, False)
        header = {"package": "_global_" if whole else None}
        return ConfigResult(SCHEME, f"{SCHEME}://", config, header)

    def available(self) -> bool:
        """Tell that they are there."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Tell whether a path is of a group.

        :param config_path: without an ending.
        """
        return config_path.strip("/") in ("", *GROUPS)

    def is_config(self, config_path: str) -> bool:
        """Tell whether a path is of a configuration.

        :param config_path: ``group/name``; files have been looked for before.
        :raises UnknownOptionError: for a name that a group does not have.
        """
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        if not name:
            return group == PRIMARY
        if group not in GROUPS or config_path == "preset/None":
            return False
        return bool(GROUPS[group][0](name))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return what a path has.

        :param config_path: of a group, or ``""``.
        :param results_filter: what is asked for, groups or configurations.
        """
        path = config_path.strip("/")
        groups = list(GROUPS) if path == "" and results_filter != ObjectType.CONFIG else []
        names = GROUPS[path][1]() if path in GROUPS else [PRIMARY] if path == "" else []
        return sorted([*groups, *(names if results_filter != ObjectType.GROUP else [])])


def search_path() -> ConfigSearchPath:
    """Return where Hydra looks: the groups above, then the files, then its own."""
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    Plugins.instance()  # has Hydra's own sources
    SourcesRegistry.instance().register(Registries)
    found = ConfigSearchPathImpl()
    found.append("hydra", "pkg://hydra.conf")
    found.append("branchtune files", FILES)
    found.append("branchtune", f"{SCHEME}://")
    found.append("schema", "structured://")
    return found


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _listed(one) for name, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value
