"""The record of one run: one strategy over one stream with one seed, as a folder of files."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from avalanche_branchtune.evaluation.traces import Trace
from avalanche_branchtune.records.environment import environment
from avalanche_branchtune.records.probe import ProbeRecord
from avalanche_branchtune.records.sample import FeatureSample

FORMAT = "avalanche-branchtune run"
VERSION = 1
RECORD = "run.json"


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
            self.sample.save(folder)
        return folder
