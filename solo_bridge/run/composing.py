"""Configurations composed by Hydra: from groups and overrides, or from a file and overrides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from avalanche_branchtune.errors import BranchTuneError, ConfigError, did_you_mean
from solo_bridge.config.bounds import check_yaml
from solo_bridge.run.groups import FROM_YAML, GROUPS, PRIMARY, search_path

CONFIG = "config.yaml"
"""Name of the file in a run's folder."""
SOLO_LEARN = frozenset({"optimizer", "scheduler", "max_epochs", "augmentations", "method_kwargs"})
"""Keys of which solo-learn's configurations have one, and this package's none."""
HERE = {
    "max_epochs": "training.epochs, of each experience",
    "optimizer": "training.optimizer, training.lr, training.batch and training.weight_decay",
    "scheduler": "training.optimizer_settings.scheduler",
    "method_kwargs": "method.NAME",
    "momentum": "method.tau",
    "augmentations": "augmentation=NAME and augmentation.NAME",
    "data": "stream=NAME and stream.NAME",
    "precision": "training.precision",
    "devices": "hardware=NAME and hardware.NAME",
    "resume_from_checkpoint": "weights=FILE, which the first experience begins with",
}
"""Sections of solo-learn's configurations → what says it here."""
NOISE = ("See https", "full_key:", "object_type=", "reference_type=")
"""Beginnings of lines of their errors that say nothing to a user."""


def hydra() -> Hydra:
    """Return Hydra with the groups of this package."""
    GlobalHydra.instance().clear()
    return Hydra.create_main_hydra2("branchtune", search_path())


def composed(overrides: Sequence[str], file: Path | None = None) -> dict[str, Any]:
    """Return a configuration.

    :param overrides: as Hydra has them: ``group=name``, ``path.to.a.setting=value``.
    :param file: of a configuration instead of the groups' defaults: a run's, or solo-learn's.
    :raises ConfigError: for what cannot be composed.
    :raises UnknownOptionError: for names that there are not.
    """
    with refused():
        if file is None:
            config = hydra().compose_config(PRIMARY, list(overrides), RunMode.RUN, False, False)
            return plain(config)
        content = read(file)
        if content.keys() & SOLO_LEARN:
            return composed([f"method={FROM_YAML}", f"method.file='{file}'", *overrides])
        return _changed(content, overrides)


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration as plain data, without what is Hydra's.

    :param config: as Hydra composes it.
    """
    found: dict[str, Any] = {
        key: OmegaConf.to_container(config[key], resolve=True)
        if OmegaConf.is_config(config[key])
        else config[key]
        for key in config
        if key != "hydra"
    }
    return found


def read(file: Path) -> dict[str, Any]:
    """Return what a file of YAML says.

    :param file: its path.
    :raises ConfigError: unless it holds a mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
        check_yaml(text)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{file}: no valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a configuration; got {type(content).__name__}")
    return content


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job of a sweep: all combinations of ``a,b`` and ranges.

    :param overrides: as they were given.
    :raises ConfigError: for what cannot be read, or is no list of values.
    """
    with refused():
        jobs: list[list[str]] = BasicSweeper.split_arguments(parse(overrides), None)[0]
        return jobs


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return Hydra's own overrides, as ``hydra.launcher.partition=gpu``, and the configuration's.

    :param overrides: as they were given.
    """
    with refused():
        named = [(one.key_or_group, str(one.input_line)) for one in parse(overrides)]
    hydras = [line for key, line in named if key.startswith(("hydra.", "hydra/"))]
    for line in hydras:
        if not line.lstrip("+~").startswith(("hydra.launcher.", "hydra/launcher=")):
            raise ConfigError(
                f"{line}: of Hydra's own settings only its launcher's can be said; out=… and "
                "name=… say where runs lie"
            )
    return hydras, [line for _, line in named if line not in hydras]


def quoted(override: str) -> str:
    """Return an override with a file's name in quotes: solo-learn's has ``ep=`` in it.

    :param override: as it was given.
    """
    name, _, value = override.partition("=")
    if name == "weights" and not value.startswith(("'", '"')) and Path(value).exists():
        return f"{name}='{value}'" if "'" not in value else override
    return override


def parse(overrides: Sequence[str]) -> list[Override]:
    """Return overrides as Hydra understands them.

    :param overrides: as they were given.
    """
    parsed: list[Override] = OverridesParser.create().parse_overrides(list(overrides))
    return parsed


def only_one(overrides: Sequence[str]) -> None:
    """Refuse several values where one run is asked for.

    :param overrides: as they were given.
    :raises ConfigError: naming the override.
    """
    with refused():
        for one in parse(overrides):
            if one.is_sweep_override():
                raise ConfigError(
                    f"{one.input_line}: several values: add --multirun for a run of each, or "
                    "brackets, NAME=[a,b], for a list"
                )


def _changed(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a file's configuration with overrides; a group's name replaces its section."""
    config = OmegaConf.create(content)
    for one in parse(overrides):
        if one.is_delete() or one.package is not None:
            raise ConfigError(f"{one.input_line}: beside a file only NAME=VALUE can be said")
        key, value = one.key_or_group, one.value()
        if key in GROUPS and key != "preset":
            OmegaConf.update(config, key, GROUPS[key][0](str(value)), merge=False)
        elif key in ("preset", "hardware"):
            raise ConfigError(f"{one.input_line}: the file says each setting of it: give those")
        else:
            OmegaConf.update(config, key, value, merge=True, force_add=True)
    return plain(config)


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Say what Hydra and OmegaConf refuse in this package's errors, in one line."""
    try:
        yield
    except BranchTuneError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_said(error)) from error


def _said(error: BaseException) -> str:
    """Return what is wrong, and the nearest name if one is unknown."""
    cause: BaseException | None = error
    while cause is not None:
        parent = getattr(cause, "parent_node", None)
        key = getattr(cause, "full_key", None)
        if isinstance(parent, Mapping) and key and str(cause).startswith(("Key", "'")):
            names = [str(name) for name in parent if name != "hydra"]
            last = str(getattr(cause, "key", key))
            if last not in names and str(key) in HERE:
                return f"unknown {key}: solo-learn's name; here it is {HERE[str(key)]}"
            if last not in names:
                return f"unknown {key}{did_you_mean(last, names)}; there are {', '.join(names)}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = str(error.missing_cfg_file).partition("/")
        meant = did_you_mean(name, error.options)
        return f"{group}: there is no {name!r}{meant}; there are {', '.join(error.options)}"
    told = error if str(error) else (error.__cause__ or error)
    lines = [line.strip() for line in str(told).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(NOISE))
