"""A study as one list of jobs: streams × methods × epochs × seeds × arms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from avalanche_branchtune.errors import UnknownOptionError, did_you_mean
from solo_bridge.comparison.settings import Comparison
from solo_bridge.specification import title

SETTINGS = frozenset(f.name for f in fields(Comparison)) - {
    *("seed", "epochs", "method", "options", "variant", "command"),
}
"""Settings of a :class:`~solo_bridge.comparison.Comparison` that a stream or an arm may have."""
PARTS = {"question", "streams", "methods", "epochs", "seeds", "probes", "device", "arms"}
NAME = re.compile(r"[a-z0-9][a-z0-9_.+×-]*")


@dataclass(frozen=True)
class Arm:
    """What is compared: a strategy, with its options and settings.

    :param name: in tables, and of its folders.
    :param strategy: its specification, see :func:`solo_bridge.specification.build`.
    :param options: name → arguments of its plugin.
    :param settings: of the :class:`~solo_bridge.comparison.Comparison`, over those of the stream.
    """

    name: str
    strategy: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One run of a study.

    :param group: what its results are compared with: the folder of those.
    :param arm: what is trained.
    :param comparison: on what.
    """

    group: str
    arm: str
    strategy: str
    comparison: Comparison

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.group}/{self.arm}-{self.comparison.seed}"


@dataclass(frozen=True)
class Plan:
    """What is run, and why.

    :param question: that the study answers.
    :param streams: name → settings of the :class:`~solo_bridge.comparison.Comparison`; ``epochs``
        of its own are instead of the plan's.
    :param arms: what is compared, in the order of the tables.
    :param methods: names of solo-learn methods.
    :param epochs: schedules: epochs of each experience; joint training has as many on all data.
    :param seeds: of stream, network and training.
    :param probes: see :data:`solo_bridge.comparison.measured.PROBES`.
    :param device: where to train.
    """

    question: str
    streams: Mapping[str, Mapping[str, Any]]
    arms: tuple[Arm, ...]
    methods: tuple[str, ...] = ("simclr",)
    epochs: tuple[int, ...] = (15,)
    seeds: tuple[int, ...] = (0, 1, 2)
    probes: tuple[str, ...] = ("knn", "linear")
    device: str = "cpu"

    def jobs(self) -> list[Job]:
        """Return all jobs: all of the first seed first, the shortest first, joint training first.

        What time cuts off are then whole seeds, or long schedules, of all arms alike.
        """
        every = {e for stream in self.streams for e in self.epochs_of(stream)}
        return [
            self._job(stream, method, epochs, seed, arm)
            for seed in self.seeds
            for epochs in sorted(every)
            for stream in self.streams
            if epochs in self.epochs_of(stream)
            for method in self.methods
            for arm in sorted(self.arms, key=lambda arm: arm.name != "joint")
        ]

    def epochs_of(self, stream: str) -> tuple[int, ...]:
        """Return the schedules of a stream: its own, if it says so, else the plan's.

        :param stream: its name.
        """
        return tuple(self.streams[stream].get("epochs", self.epochs))

    def _job(self, stream: str, method: str, epochs: int, seed: int, arm: Arm) -> Job:
        settings = {**self.streams[stream], **arm.settings}
        settings.pop("epochs", None)
        comparison = Comparison(
            **{"probes": list(self.probes), "device": self.device, **settings},
            method=method,
            epochs=epochs,
            seed=seed,
            options={name: dict(given) for name, given in arm.options.items()},
            variant=None if arm.name == arm.strategy else arm.name,
        )
        return Job(f"{stream}-{method}-{epochs}", arm.name, arm.strategy, comparison)

    def check(self) -> None:
        """Refuse what cannot work, before anything is trained.

        :raises BranchTuneError: for what is not there, and numbers that cannot be.
        """
        for job in {(job.group, job.arm): job for job in self.jobs()}.values():
            title(job.strategy)
            job.comparison.check()


def read_plan(path: str | Path) -> Plan:
    """Read a plan from a YAML file.

    For example::

        question: Do branches forget less?
        streams:
          digits: {experiences: 5}
        epochs: [15, 60]
        seeds: [0, 1, 2]
        arms:
          fine_tuning:
          joint:
          branch_tuning:
          branches-1x1: {strategy: branch_tuning, options: {branch_tuning: {branch: 1x1}}}
          fine_tuning-adam: {strategy: fine_tuning, settings: {optimizer: adam, lr: 0.001}}

    An arm is a strategy of its name, unless it says which.

    :param path: of the file.
    :raises UnknownOptionError: for a file that is no plan; says what is wrong with it.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UnknownOptionError(f"{path}: cannot be read as YAML: {error}") from error
    try:
        return plan_of(content)
    except UnknownOptionError as error:
        raise UnknownOptionError(f"{path}: {error}") from error


def plan_of(content: Any) -> Plan:
    """Make a plan of what a file says.

    :param content: see :func:`read_plan`.
    :raises UnknownOptionError: naming the part that is not as it should be.
    """
    if not isinstance(content, dict):
        raise UnknownOptionError(f"expected parts such as streams and arms; got {content!r}")
    _known("part", content, PARTS)
    for part in ("streams", "arms"):
        if not isinstance(content.get(part), dict) or not content[part]:
            raise UnknownOptionError(f"{part}: expected names, each with its settings")
        for name in content[part]:
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise UnknownOptionError(
                    f"{part}: the name {name!r} is one of folders too: expected lower case "
                    "letters, digits and _ . + -"
                )
    streams = {name: _stream(f"streams.{name}", s) for name, s in content["streams"].items()}
    plain: dict[str, Any] = {
        part: tuple(_listed(part, content[part], kind))
        for part, kind in LISTS.items()
        if part in content
    }
    return Plan(
        str(content.get("question", "")),
        streams,
        tuple(_arm(name, given or {}) for name, given in content["arms"].items()),
        **plain,
        device=str(content.get("device", "cpu")),
    )


LISTS: Mapping[str, type] = {"methods": str, "epochs": int, "seeds": int, "probes": str}


def _listed(part: str, given: Any, kind: type) -> list[Any]:
    listed = given if isinstance(given, list) else [given]
    wrong = [one for one in listed if type(one) is not kind]
    if wrong or not listed or len(set(listed)) < len(listed):
        raise UnknownOptionError(
            f"{part}: expected different {'numbers' if kind is int else 'names'}; got {given!r}"
        )
    return listed


def _stream(where: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or "epochs" not in given:
        return _settings(where, given)
    rest = _settings(where, {name: value for name, value in given.items() if name != "epochs"})
    return {**rest, "epochs": _listed(f"{where}.epochs", given["epochs"], int)}


def _arm(name: str, given: Any) -> Arm:
    where = f"arms.{name}"
    if not isinstance(given, dict):
        raise UnknownOptionError(f"{where}: expected strategy, options, settings; got {given!r}")
    _known(f"part of {where}", given, {"strategy", "options", "settings"})
    options = given.get("options") or {}
    if not isinstance(options, dict) or not all(isinstance(o, dict) for o in options.values()):
        raise UnknownOptionError(f"{where}.options: expected plugin → arguments; got {options!r}")
    settings = _settings(f"{where}.settings", given.get("settings"))
    return Arm(name, str(given.get("strategy", name)), options, settings)


def _settings(where: str, given: Any) -> dict[str, Any]:
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise UnknownOptionError(f"{where}: expected settings; got {given!r}")
    _known(f"setting of {where}", given, SETTINGS)
    return given


def _known(what: str, given: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
    for name in given:
        if name not in known:
            raise UnknownOptionError(
                f"{name!r} is no {what}: expected {', '.join(sorted(known))}"
                f"{did_you_mean(str(name), sorted(known))}"
            )
