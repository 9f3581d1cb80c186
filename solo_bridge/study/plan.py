"""A study as one list of jobs: streams × methods × epochs × seeds × arms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from avalanche_branchtune.errors import BranchTuneError, UnknownOptionError, did_you_mean
from avalanche_branchtune.options import at_least
from solo_bridge.comparison.settings import Comparison
from solo_bridge.specification import entries

SETTINGS = frozenset(f.name for f in fields(Comparison)) - {
    *("seed", "epochs", "method", "options", "probes", "device", "variant", "command", "logger"),
}
"""Settings of a :class:`~solo_bridge.comparison.Comparison` that a stream may have."""
OWN = frozenset({"optimizer", "lr", "optimizer_settings", "batch", "views", "workers"})
"""Those that an arm may have: what leaves stream, network and probes the same."""
PARTS = {
    *("question", "streams", "methods", "epochs", "seeds", "probes", "device", "arms", "reference"),
}
NAME = re.compile(r"[a-z0-9][a-z0-9_.+×-]*")


@dataclass(frozen=True)
class Arm:
    """What is compared: a strategy, with its options and settings.

    :param name: in tables, and of its folders.
    :param strategy: its specification, see :func:`solo_bridge.specification.build`.
    :param options: name → arguments of its plugin.
    :param settings: those of :data:`OWN`, over the stream's.
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
    :param reference: name of the arm that the others are compared with.
    :param logger: name of one, see :data:`avalanche_branchtune.metrics.LOGGERS`; not of the file.
    """

    question: str
    streams: Mapping[str, Mapping[str, Any]]
    arms: tuple[Arm, ...]
    methods: tuple[str, ...] = ("simclr",)
    epochs: tuple[int, ...] = (15,)
    seeds: tuple[int, ...] = (0, 1, 2)
    probes: tuple[str, ...] = ("knn", "linear")
    device: str = "cpu"
    reference: str = "fine_tuning"
    logger: str | None = None

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
            logger=self.logger,
            variant=None if arm.name == arm.strategy else arm.name,
        )
        return Job(f"{stream}-{method}-{epochs}", arm.name, arm.strategy, comparison)

    def check(self) -> None:
        """Refuse what cannot work, before anything is trained: every strategy is built once.

        :raises BranchTuneError: for what is not there, numbers that cannot be, and arms that cannot
            be told from others.
        """
        for arm in self.arms:
            parts = {entry.name for entry in entries(arm.strategy)}
            _known(f"plugin of arms.{arm.name}", arm.options, parts)
            if (arm.name == "joint") != (arm.strategy == "joint"):
                raise UnknownOptionError(
                    f"arms.{arm.name}: joint training has the name 'joint', and nothing else has: "
                    "plasticity is measured against it"
                )
        if self.reference not in {arm.name for arm in self.arms}:
            raise UnknownOptionError(
                f"reference: there is no arm {self.reference!r}: name the one that the others are "
                "compared with (reference: NAME)"
            )
        for seed in self.seeds:
            at_least(0, "seeds", seed)
        groups: dict[str, list[Job]] = {}
        for job in self.jobs():
            if job.comparison.seed == self.seeds[0]:
                groups.setdefault(job.group, []).append(job)
        for jobs in groups.values():
            jobs[0].comparison.check()
            stream = jobs[0].comparison.stream()
            for job in jobs:
                try:
                    job.comparison.strategy(job.strategy, stream, None)
                except BranchTuneError as error:
                    error.args = (f"{job.name}: {error}",)
                    raise


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
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Unambiguous)
        return plan_of(content)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UnknownOptionError(f"{path}: cannot be read as YAML: {error}") from error
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
    texts = {part: content.get(part) for part in ("question", "device", "reference")}
    return Plan(
        str(texts["question"] or ""),
        streams,
        tuple(_arm(name, given or {}) for name, given in content["arms"].items()),
        **plain,
        device=str(texts["device"] or "cpu"),
        reference=str(texts["reference"] or "fine_tuning"),
    )


class _Unambiguous(yaml.SafeLoader):
    """YAML in which no name of a mapping is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise UnknownOptionError(f"{name!r} is given twice")
        return super().construct_mapping(node, deep)


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
    settings = _settings(f"{where}.settings", given.get("settings"), OWN)
    return Arm(name, str(given.get("strategy", name)), options, settings)


def _settings(where: str, given: Any, known: frozenset[str] = SETTINGS) -> dict[str, Any]:
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise UnknownOptionError(f"{where}: expected settings; got {given!r}")
    _known(f"setting of {where}", given, known)
    return given


def _known(what: str, given: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
    for name in given:
        if name not in known:
            raise UnknownOptionError(
                f"{name!r} is no {what}: expected {', '.join(sorted(known))}"
                f"{did_you_mean(str(name), sorted(known))}"
            )
