"""Reading a configuration: yaml, interpolations, and the augmentations that it names."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from avalanche_branchtune.errors import ConfigError, UnknownOptionError
from solo_bridge.compat.config_keys import CHANGE_TRAINING, KNOWN
from solo_bridge.config.bounds import MOST_BYTES, check_interpolations, check_yaml

Config: TypeAlias = str | Path | Mapping[str, Any]
"""Path of a yaml file, or what is in one."""


def content(config: Config, ignored: list[str]) -> dict[str, Any]:
    """Return what a configuration says, with the augmentations that ``defaults`` names.

    :param config: path of a yaml file, or what is in one.
    :param ignored: takes up the keys that are not read.
    :return: sections by name, interpolations resolved.
    :raises ConfigError: for files that are missing or no valid yaml, and for
        interpolations that lead nowhere.
    :raises UnknownOptionError: for ``defaults`` of anything but augmentations.
    """
    loaded, folder = _loaded(config)
    return _with_defaults(_plain(loaded, ignored), folder, ignored)


def _loaded(config: Config) -> tuple[DictConfig, Path | None]:
    """Return a configuration and the folder that its ``defaults`` refer to."""
    if isinstance(config, Mapping):
        try:
            return OmegaConf.create(dict(config)), None
        except (OmegaConfBaseException, RecursionError) as error:
            raise ConfigError(f"no configuration: {str(error).splitlines()[0]}") from error
    path = Path(config)
    loaded = _yaml(path)
    if not isinstance(loaded, DictConfig):
        raise ConfigError("expected a mapping with method, optimizer …, got a list")
    return loaded, path.parent


def _yaml(path: Path) -> DictConfig | ListConfig:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    if path.stat().st_size > MOST_BYTES:
        raise ConfigError(f"{path.name} has more than {MOST_BYTES} bytes: is it a configuration?")
    try:
        text = path.read_text(encoding="utf-8")
        check_yaml(text)
        return OmegaConf.load(io.StringIO(text))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise ConfigError(f"{path.name}: {error}") from error
        raise ConfigError(f"{path.name} is no valid yaml: {error}") from error


def _plain(config: DictConfig, ignored: list[str]) -> dict[str, Any]:
    """Resolve interpolations, but for what is not looked at."""
    named = [k for k in map(str, config) if KNOWN.get(k) is not False or k in CHANGE_TRAINING]
    ignored += [k for k in map(str, config) if k not in named]
    read = [k for k in named if not OmegaConf.is_missing(config, k)]
    check_interpolations(OmegaConf.to_container(config), [(key,) for key in read])
    return {key: _resolved(partial(config.__getitem__, key), key) for key in read}


def _resolved(get: Callable[[], Any], what: str) -> Any:
    """Return a part of a configuration with what its interpolations stand for."""
    try:
        value = get()
        whole = OmegaConf.is_config(value)
        return OmegaConf.to_container(value, resolve=True) if whole else value
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"{what}: {str(error).splitlines()[0]}") from error


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
    if not file.is_file():
        raise ConfigError(
            f"defaults.augmentations: there is no file {file}: the folder augmentations belongs "
            "beside the configuration"
        )
    loaded = _yaml(file)
    check_interpolations(OmegaConf.to_container(loaded))
    return _resolved(lambda: loaded, name)
