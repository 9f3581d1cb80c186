"""The record of one run: one strategy over one stream with one seed, as a folder of files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from avalanche_branchtune.errors import ProbeError, RecordError
from avalanche_branchtune.evaluation.matrix import AccuracyMatrix
from avalanche_branchtune.evaluation.traces import Trace as Trace
from avalanche_branchtune.evaluation.traces import check_trace
from avalanche_branchtune.report.environment import environment

FORMAT = "avalanche-branchtune run"
VERSION = 1
RECORD, SAMPLE = "run.json", "features.npz"


@dataclass
class ProbeRecord:
    """What one probe found in a run.

    :param protocol: how the accuracies were made; runs are averaged or
        compared only where all of it agrees.
    :param accuracies: A[t, i] in [0, 1], a row per finished training
        experience, a column per test experience; None where the protocol
        does not measure it (classes not seen yet).
    :param overall: after each experience, the accuracy on the test samples of
        all measured experiences together.
    :param random: R[i] of the network before any training.
    :param random_overall: the same on all test samples together.
    """

    protocol: dict[str, Any]
    accuracies: list[list[float | None]] = field(default_factory=list)
    overall: list[float] = field(default_factory=list)
    random: list[float | None] | None = None
    random_overall: float | None = None

    def matrix(self, n_experiences: int) -> AccuracyMatrix:
        """Return the accuracy matrix.

        :param n_experiences: T, the number of training experiences; a stream
            with one common test set (data-incremental) gets equal columns.
        :raises ProbeError: if neither is one and they differ.
        """
        rows = [_columns(row, n_experiences) for row in self.accuracies]
        known = self.random is not None and None not in self.random
        random = _columns(self.random or [], n_experiences) if known else None
        matrix = AccuracyMatrix(n_experiences, random)
        for row in rows:
            matrix.add(row)
        return matrix

    def summary(self, n_experiences: int) -> dict[str, float]:
        """Return the numbers of the matrix that this run has and its stream gives a meaning.

        :param n_experiences: T, the number of training experiences.
        :return: of ``final_accuracy``, ``continual_accuracy``, ``forgetting``,
            ``backward_transfer`` and ``forward_transfer`` those that are
            defined: none but ``continual_accuracy`` on a partial run, only the
            first two where all experiences share one test set, only the first
            where everything was learnt at once.
        """
        if not self.accuracies:
            return {}
        tests = len(self.accuracies[0])
        if tests not in (1, n_experiences):  # joint training, or another stream's experiences
            complete = len(self.accuracies) == n_experiences
            return {"final_accuracy": _mean(self.accuracies[-1])} if complete else {}
        matrix, found = self.matrix(n_experiences), {}
        names = ["continual_accuracy"]
        if matrix.complete:
            names.insert(0, "final_accuracy")
            if tests > 1:
                names += ["forgetting", "backward_transfer"]
                unseen = float(matrix.values[0, -1])
                if matrix.random is not None and not math.isnan(unseen):
                    names.append("forward_transfer")
        for name in names:
            found[name] = float(getattr(matrix, name))
        return found


@dataclass
class FeatureSample:
    """Features of some test samples after the last finished experience.

    :param features: ``(N, D)``.
    :param labels: ``(N,)``.
    :param experiences: test experience of each, ``(N,)``.
    """

    features: np.ndarray
    labels: np.ndarray
    experiences: np.ndarray


@dataclass
class Run:
    """One strategy over one stream with one seed.

    :param name: the strategy, as it is shown; runs of one name that differ in
        nothing but the seed are averaged.
    :param n_experiences: training experiences of the whole stream; 1 for joint
        training, which is drawn as a level line.
    :param seed: of everything random.
    :param settings: data, method, schedule: what is not the seed.
    :param probes: name of a probe → what it found.
    :param seconds: training time of each finished experience, without evaluation.
    :param evaluation_seconds: evaluation time of each, in and after training.
    :param peak_memory_mib: largest memory of the process (of the GPU, if one
        was used) so far, in MiB.
    :param parameters: numbers in the plain ``network``, and how many more were
        held ``during`` training and are needed ``after`` it; empty if not counted.
    :param stability: for each finished experience layer → CKA, empty where it
        is not defined (the first one); no entries if it was not measured.
    :param plasticity: the same.
    :param analysis_protocol: how stability and plasticity were measured.
    :param branch_norms: for each finished experience layer → Frobenius norm of
        what its branches added to the kernel; empty if nothing was branched.
    :param trace: accuracies during training, if they were measured.
    :param environment: hardware and versions.
    :param sample: features for the embedding, kept in a file of their own.
    """

    name: str
    n_experiences: int
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    probes: dict[str, ProbeRecord] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    evaluation_seconds: list[float] = field(default_factory=list)
    peak_memory_mib: float | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    stability: list[dict[str, float]] = field(default_factory=list)
    plasticity: list[dict[str, float]] = field(default_factory=list)
    analysis_protocol: str | None = None
    branch_norms: list[dict[str, float]] = field(default_factory=list)
    trace: Trace | None = None
    environment: dict[str, Any] = field(default_factory=lambda: environment())
    sample: FeatureSample | None = field(default=None, repr=False)

    @property
    def finished(self) -> int:
        """Number of experiences that were trained and measured."""
        return max((len(p.accuracies) for p in self.probes.values()), default=len(self.seconds))

    @property
    def complete(self) -> bool:
        """Whether all experiences of the stream are there."""
        return self.finished >= self.n_experiences

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``run.json`` (and ``features.npz``), each as a whole or not at all.

        :param folder: made if it does not exist.
        :return: the folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "sample"}
        content["probes"] = {name: asdict(p) for name, p in self.probes.items()}
        if self.trace is not None:  # JSON has no NaN
            rows = [[None if math.isnan(a) else a for a in r] for r in self.trace.accuracies]
            content["trace"] = {**asdict(self.trace), "accuracies": rows}
        text = json.dumps(
            {"format": FORMAT, "version": VERSION, **content},
            indent=1,
            ensure_ascii=False,
            allow_nan=False,
        )
        part = folder / f".{RECORD}.part"
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(folder / RECORD)
        if self.sample is not None:
            part = folder / f".{SAMPLE}.part.npz"
            np.savez_compressed(part, **vars(self.sample))
            part.replace(folder / SAMPLE)
        return folder


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Read the record of a run.

    :param folder: where :meth:`Run.save` wrote it, or the file ``run.json`` in it.
    :return: the run; partial ones have ``complete`` False.
    :raises RecordError: if there is no record or it is damaged; names the file
        and the field.
    """
    folder = Path(folder)
    folder = folder.parent if folder.name == RECORD else folder
    path = folder / RECORD
    if not path.is_file():
        raise RecordError(
            f"{folder}: no record of a run: expected a file {RECORD}, as RunRecorder writes it"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from error
    reader = _Reader(path, content)
    if reader.get("format", str) != FORMAT:
        raise RecordError(f"{path}: field 'format': expected {FORMAT!r}, got {content['format']!r}")
    if reader.get("version", int) > VERSION:
        raise RecordError(
            f"{path}: field 'version': {content['version']} is newer than this package reads "
            f"({VERSION}): update avalanche-branchtune"
        )
    return reader.run(_read_sample(folder / SAMPLE))


class _Reader:
    """Checks every field of a record before it is believed.

    :param path: the file, for the errors.
    :param content: what it holds.
    """

    def __init__(self, path: Path, content: Any) -> None:
        self.path = path
        if not isinstance(content, dict):
            raise RecordError(f"{path}: expected a mapping of fields, got {_kind(content)}")
        self.content: dict[str, Any] = content

    def run(self, sample: FeatureSample | None) -> Run:
        n = self.get("n_experiences", int)
        if n < 1:
            raise self.wrong("n_experiences", "at least 1", n)
        probes = {
            name: self.probe(f"probes.{name}", p, n) for name, p in self.get("probes", dict).items()
        }
        trace = self.get("trace", dict, None)
        return Run(
            name=self.get("name", str),
            n_experiences=n,
            seed=self.get("seed", int, None),
            settings=self.get("settings", dict),
            probes=probes,
            seconds=self.numbers("seconds"),
            evaluation_seconds=self.numbers("evaluation_seconds"),
            peak_memory_mib=self.get("peak_memory_mib", float, None),
            parameters={
                name: self.checked(f"parameters.{name}", n, int)
                for name, n in self.get("parameters", dict).items()
            },
            stability=self.layers("stability"),
            plasticity=self.layers("plasticity"),
            analysis_protocol=self.get("analysis_protocol", str, None),
            branch_norms=self.layers("branch_norms"),
            trace=None if trace is None else self.trace(trace),
            environment=self.get("environment", dict),
            sample=sample,
        )

    def get(self, name: str, kind: type, *default: Any) -> Any:
        if name not in self.content:
            raise RecordError(f"{self.path}: field {name!r} is missing: the record is damaged")
        value = self.content[name]
        return value if default and value is None else self.checked(name, value, kind)

    def checked(self, name: str, value: Any, kind: type) -> Any:
        kinds = (int, float) if kind is float else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(name, kind.__name__, value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.wrong(name, "a finite number", value)
        return value

    def wrong(self, name: str, expected: str, value: Any) -> RecordError:
        return RecordError(
            f"{self.path}: field {name!r}: expected {expected}, got {_kind(value)}: the record is "
            "damaged"
        )

    def numbers(self, name: str) -> list[float]:
        values = self.get(name, list)
        return [self.checked(f"{name}[{i}]", v, float) for i, v in enumerate(values)]

    def layers(self, name: str) -> list[dict[str, float]]:
        entries = []
        for i, entry in enumerate(self.get(name, list)):
            self.checked(f"{name}[{i}]", entry, dict)
            entries.append(
                {k: self.checked(f"{name}[{i}].{k}", v, float) for k, v in entry.items()}
            )
        return entries

    def shares(self, name: str, values: Any) -> list[float | None]:
        row = []
        for i, value in enumerate(self.checked(name, values, list)):
            here = f"{name}[{i}]"
            if value is not None and not 0 <= self.checked(here, value, float) <= 1:
                raise self.wrong(here, "an accuracy in [0, 1]", value)
            row.append(value)
        return row

    def probe(self, name: str, content: Any, n_experiences: int) -> ProbeRecord:
        self.checked(name, content, dict)
        missing = [f.name for f in fields(ProbeRecord) if f.name not in content]
        if missing:
            raise RecordError(f"{self.path}: field '{name}.{missing[0]}' is missing")
        rows = [
            self.shares(f"{name}.accuracies[{t}]", row)
            for t, row in enumerate(self.checked(f"{name}.accuracies", content["accuracies"], list))
        ]
        if len(rows) > n_experiences:
            raise self.wrong(
                f"{name}.accuracies", f"at most {n_experiences} rows", f"{len(rows)} rows"
            )
        random = content["random"]
        random = None if random is None else self.shares(f"{name}.random", random)
        widths = {len(row) for row in [*rows, *([] if random is None else [random])]}
        if len(widths) > 1:
            raise self.wrong(f"{name}.accuracies", "rows of one length", sorted(widths))
        overall = self.shares(f"{name}.overall", content["overall"])
        if len(overall) != len(rows) or None in overall:
            raise self.wrong(f"{name}.overall", f"{len(rows)} accuracies", overall)
        at_random = content["random_overall"]
        if at_random is not None:
            self.shares(f"{name}.random_overall", [at_random])
        return ProbeRecord(
            protocol=self.checked(f"{name}.protocol", content["protocol"], dict),
            accuracies=rows,
            overall=[float(a) for a in overall if a is not None],
            random=random,
            random_overall=at_random,
        )

    def trace(self, content: Mapping[str, Any]) -> Trace:
        for part in ("iterations", "accuracies", "experiences"):
            self.checked(f"trace.{part}", content.get(part), list)
        lengths = {len(content[p]) for p in ("iterations", "accuracies", "experiences")}
        if len(lengths) > 1:
            raise self.wrong("trace", "lists of one length", sorted(lengths))
        rows = [
            self.shares(f"trace.accuracies[{i}]", row)
            for i, row in enumerate(content["accuracies"])
        ]
        found = Trace(
            [
                self.checked(f"trace.iterations[{i}]", v, int)
                for i, v in enumerate(content["iterations"])
            ],
            [[float("nan") if a is None else a for a in row] for row in rows],
            [
                self.checked(f"trace.experiences[{i}]", v, int)
                for i, v in enumerate(content["experiences"])
            ],
            self.checked("trace.probe", content.get("probe"), str),
            self.checked("trace.protocol", content.get("protocol"), dict),
        )
        try:
            if found.iterations:
                check_trace(found)
        except ProbeError as error:
            raise RecordError(f"{self.path}: field 'trace': {error}") from error
        return found


def _read_sample(path: Path) -> FeatureSample | None:
    if not path.is_file():
        return None
    names = [f.name for f in fields(FeatureSample)]
    try:
        with np.load(path, allow_pickle=False) as archive:
            parts = {name: archive[name] for name in names}
    except Exception as error:  # zip, numpy and key errors of many kinds
        raise RecordError(f"{path}: cannot be read: {error}") from error
    features = parts["features"]
    if features.ndim != 2 or any(len(parts[n]) != len(features) for n in names):
        shapes = {n: parts[n].shape for n in names}
        raise RecordError(f"{path}: fields do not fit together: {shapes}")
    if not np.isfinite(features).all():
        raise RecordError(f"{path}: field 'features' has values that are not finite")
    return FeatureSample(**parts)


def _columns(row: Sequence[float | None], n_experiences: int) -> list[float]:
    values = [math.nan if a is None else a for a in row]
    return values * n_experiences if len(values) == 1 else values


def _mean(row: Sequence[float | None]) -> float:
    values = [a for a in row if a is not None]
    return sum(values) / len(values)


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
