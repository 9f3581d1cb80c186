"""Reading the record of a run: every field is checked before it is believed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic_core import PydanticCustomError

from avalanche_branchtune.errors import ProbeError, RecordError
from avalanche_branchtune.evaluation.traces import Trace, check_trace
from avalanche_branchtune.records.journal import continued
from avalanche_branchtune.records.probe import ProbeRecord
from avalanche_branchtune.records.run import FORMAT, RECORD, VERSION, Run, check_limits
from avalanche_branchtune.records.sample import load_sample

MOST_NESTED = 50
"""Levels of a record inside one another; settings are the deepest part."""


def _at_most(bits: int) -> AfterValidator:
    def check(value: int) -> int:
        if abs(value) >= 2**bits:
            raise PydanticCustomError("too_large", f"an integer of {bits} bits")
        return value

    return AfterValidator(check)


Text = Annotated[str, Field(strict=True)]
Seed = Annotated[int, Field(strict=True), _at_most(64)]
Whole = Annotated[int, Field(strict=True), _at_most(53)]  # a float has as many
Positive = Annotated[int, Field(strict=True, gt=0), _at_most(53)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]  # a whole one too
Accuracy = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
Layers = list[dict[str, Number]]

EXPECTED = {
    "dict_type": "dict",
    "finite_number": "a finite number",
    "float_type": "float",
    "greater_than": "at least 1",
    "greater_than_equal": "an accuracy in [0, 1]",
    "int_type": "int",
    "less_than_equal": "an accuracy in [0, 1]",
    "list_type": "list",
    "model_type": "dict",
    "string_type": "str",
}
"""What a field should have been, for each kind of pydantic's errors that the types above raise."""


class HeadFields(BaseModel):
    """What says whether the rest can be read."""

    format: Text
    version: Whole


class ProbeFields(BaseModel):
    """The fields of a :class:`ProbeRecord`."""

    protocol: dict[str, Any]
    accuracies: list[list[Accuracy | None]]
    overall: list[Accuracy | None]
    random: list[Accuracy | None] | None
    random_overall: Accuracy | None


class TraceFields(BaseModel):
    """The fields of a :class:`Trace`; what was not measured is None here."""

    iterations: list[Whole]
    accuracies: list[list[Accuracy | None]]
    experiences: list[Whole]
    probe: Text
    protocol: dict[str, Any]


class RunFields(BaseModel):
    """The fields of a :class:`Run` but for the sample; others may be there.

    All are, but for those with a value here, which records of older versions lack.
    """

    name: Text
    n_experiences: Positive
    seed: Seed | None
    settings: dict[str, Any]
    probes: dict[str, ProbeFields]
    seconds: list[Number]
    evaluation_seconds: list[Number]
    peak_memory_mib: Number | None
    parameters: dict[str, Whole]
    stability: Layers
    plasticity: Layers
    analysis_protocol: Text | None
    branch_norms: Layers
    trace: TraceFields | None
    replaced_images: dict[str, Positive] = {}
    skipped_steps: Whole = 0
    trained: Whole = 0
    stream: dict[str, Any] = {}
    environment: dict[str, Any]


Fields = TypeVar("Fields", bound=BaseModel)


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
    content = read_json(path)
    if not isinstance(content, dict):
        raise RecordError(f"{path}: expected a mapping of fields, got {_kind(content)}")
    head = _checked(HeadFields, content, path)
    if head.format != FORMAT:
        raise RecordError(f"{path}: field 'format': expected {FORMAT!r}, got {head.format!r}")
    if head.version > VERSION:
        raise RecordError(
            f"{path}: field 'version': {head.version} is newer than this package reads "
            f"({VERSION}): update avalanche-branchtune"
        )
    content = continued(content, folder)
    _refuse_deep(content, path)
    found = _checked(RunFields, content, path)
    parts: dict[str, Any] = {
        **dict(found),
        "probes": {
            name: _probe(f"probes.{name}", fields, found.n_experiences, path)
            for name, fields in found.probes.items()
        },
        "trace": None if found.trace is None else _trace(found.trace, path),
    }
    run = Run(**parts, sample=load_sample(folder))
    try:
        check_limits(run)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    return run


def read_json(path: Path) -> Any:
    """Read a file of JSON.

    :param path: a file, no pipe.
    :raises RecordError: if it cannot be read, or is nested too deep.
    """
    if not path.is_file():
        raise RecordError(f"{path} is no file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from error
    _refuse_deep(content, path)
    return content


def _refuse_deep(content: Any, path: Path) -> None:
    level, depth = [content], 0
    while level := [
        below
        for part in level
        if isinstance(part, dict | list)
        for below in (part.values() if isinstance(part, dict) else part)
    ]:
        depth += 1
        if depth > MOST_NESTED:
            raise RecordError(f"{path}: more than {MOST_NESTED} levels inside one another")


def _checked(kind: type[Fields], content: dict[str, Any], path: Path) -> Fields:
    """Return the fields of a record, each of its kind, whatever they say of one another."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        field = "".join(steps).removeprefix(".")
        if first["type"] == "missing":
            message = f"{path}: field {field!r} is missing: the record is damaged"
            raise RecordError(message) from error
        expected = EXPECTED.get(first["type"], first["msg"])
        raise _wrong(path, field, expected, first["input"]) from error


def _probe(name: str, found: ProbeFields, n_experiences: int, path: Path) -> ProbeRecord:
    """Return what a probe found, if its accuracies go with one another."""
    rows, overall = found.accuracies, [a for a in found.overall if a is not None]
    if len(rows) > n_experiences:
        expected = f"at most {n_experiences} rows"
        raise _wrong(path, f"{name}.accuracies", expected, f"{len(rows)} rows")
    widths = {len(row) for row in [*rows, *([] if found.random is None else [found.random])]}
    if len(widths) > 1:
        raise _wrong(path, f"{name}.accuracies", "rows of one length", sorted(widths))
    if not len(overall) == len(found.overall) == len(rows):
        raise _wrong(path, f"{name}.overall", f"{len(rows)} accuracies", found.overall)
    return ProbeRecord(**{**dict(found), "overall": overall})


def _trace(found: TraceFields, path: Path) -> Trace:
    """Return the accuracies during training, if they are a trace."""
    lengths = {len(part) for part in (found.iterations, found.accuracies, found.experiences)}
    if len(lengths) > 1:
        raise _wrong(path, "trace", "lists of one length", sorted(lengths))
    rows = [[math.nan if a is None else a for a in row] for row in found.accuracies]
    trace = Trace(**{**dict(found), "accuracies": rows})
    try:
        if trace.iterations:
            check_trace(trace)
    except ProbeError as error:
        raise RecordError(f"{path}: field 'trace': {error}") from error
    return trace


def _wrong(path: Path, field: str, expected: str, value: Any) -> RecordError:
    return RecordError(
        f"{path}: field {field!r}: expected {expected}, got {_kind(value)}: the record is damaged"
    )


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
