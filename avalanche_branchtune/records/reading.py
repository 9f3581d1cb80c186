"""Reading the record of a run: every field is checked before it is believed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from avalanche_branchtune.errors import ProbeError, RecordError
from avalanche_branchtune.evaluation.traces import Trace, check_trace
from avalanche_branchtune.records.probe import ProbeRecord
from avalanche_branchtune.records.run import FORMAT, RECORD, VERSION, Run
from avalanche_branchtune.records.sample import FeatureSample, load_sample


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
    return reader.run(load_sample(folder))


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


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
