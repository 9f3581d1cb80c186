"""The record of one run: one strategy over one stream with one seed, as a folder of files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.evaluation.traces import Trace
from avalanche_branchtune.records.environment import environment
from avalanche_branchtune.records.probe import ProbeRecord
from avalanche_branchtune.records.sample import FeatureSample
from avalanche_branchtune.writing import write_text

FORMAT = "avalanche-branchtune run"
VERSION = 1
RECORD = "run.json"
LONGEST_NAME = 200
"""Letters of the name of a run or a probe."""
MOST_EXPERIENCES = 1000
"""Of a run: an accuracy matrix has a row and a column for each."""


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
    :param parameters: how many the plain ``network`` has, and how many more were
        held ``during`` training and are needed ``after`` it; empty if not counted.
    :param stability: for each finished experience layer → CKA, empty where it
        is not defined (the first one); no entries if it was not measured.
    :param plasticity: the same.
    :param analysis_protocol: how stability and plasticity were measured.
    :param branch_norms: for each finished experience layer → Frobenius norm of
        what its branches added to the kernel; empty if nothing was branched.
    :param trace: accuracies during training, if they were measured.
    :param replaced_images: file of an image that could not be read → how often another one took
        its place in training.
    :param trained: number of experiences that have ended, also of a run without probes; 0 in
        records of older versions.
    :param skipped_steps: training steps that were left out since a loss or gradient was not finite.
    :param stream: how the stream was made, with the order of its classes, if it says so: what
        :func:`avalanche_branchtune.streams.remade` takes.
    :param environment: hardware and versions, and the number of processes that trained together; a
        list of all, if a run went on with others.
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
    replaced_images: dict[str, int] = field(default_factory=dict)
    skipped_steps: int = 0
    trained: int = 0
    stream: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=lambda: environment())
    sample: FeatureSample | None = field(default=None, repr=False)

    @property
    def finished(self) -> int:
        """Number of experiences that were trained and, if there are probes, measured."""
        trained = max(self.trained, len(self.seconds))
        return max((len(p.accuracies) for p in self.probes.values()), default=trained)

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
        write_text(folder / RECORD, as_text(self.content()))
        if self.sample is not None:
            self.sample.save(folder)
        return folder

    def content(self) -> dict[str, Any]:
        """Return what ``run.json`` says.

        :raises RecordError: for names and numbers that no page could show.
        """
        check_limits(self)
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "sample"}
        content["probes"] = {name: vars(p) for name, p in self.probes.items()}
        if self.trace is not None:  # JSON has no NaN
            rows = [[a if a == a else None for a in r] for r in self.trace.accuracies]
            content["trace"] = {**vars(self.trace), "accuracies": rows}
        return {"format": FORMAT, "version": VERSION, **content}


def as_text(content: dict[str, Any]) -> str:
    """Return a record as it is written.

    :param content: see :meth:`Run.content`.
    :raises ValueError: for what JSON cannot hold.
    """
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def check_limits(run: Run) -> None:
    """Refuse what no page could show.

    :param run: of any origin.
    :raises RecordError: naming the field.
    """
    named = [("name", run.name), *(("probes", name) for name in run.probes)]
    for what, text in named:
        if len(text) > LONGEST_NAME:
            raise RecordError(
                f"field {what!r}: {text[:40]!r}… has {len(text)} letters: expected at most "
                f"{LONGEST_NAME}"
            )
    rows: list[tuple[str, Sequence[Sequence[Any]]]]
    rows = [(f"probes.{name}", probe.accuracies) for name, probe in run.probes.items()]
    rows += [("trace", run.trace.accuracies)] if run.trace else []
    counted = [("n_experiences", run.n_experiences), *((n, len(r[0])) for n, r in rows if r)]
    for what, number in counted:
        if number > MOST_EXPERIENCES:
            raise RecordError(
                f"field {what!r}: {number} experiences: expected at most {MOST_EXPERIENCES}"
            )
