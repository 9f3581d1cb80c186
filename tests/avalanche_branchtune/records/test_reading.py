"""What a record comes back as, and every way in which it may be damaged."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.records import ProbeRecord, Run, Trace, load_run
from avalanche_branchtune.records.reading import ProbeFields, RunFields, TraceFields
from tests.run_records import full

NAN = math.nan
TRACE = Trace([0, 10, 10, 20], [[0.1, NAN]] * 2 + [[0.5, 0.25]] * 2, [0, 0, 1, 1], "kNN", {"k": 3})
PROBE, ROWS = ("probes", "knn"), ("probes", "knn", "accuracies")
MISSING = object()


def record() -> Run:
    run = full(parameters={"network": 5, "during": 1, "after": 0})
    run.trace = deepcopy(TRACE)
    return run


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    record().save(folder)
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def changed(content: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    content = deepcopy(content)
    target: Any = content
    for step in place[:-1]:
        target = target[step]
    if value is MISSING:
        del target[place[-1]]
    else:
        target[place[-1]] = value
    return content


def load(folder: Path, content: Any) -> Run:
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return load_run(folder)


def refusal(folder: Path, content: Any) -> str:
    with pytest.raises(RecordError) as caught:
        load(folder, content)
    start = f"{folder / 'run.json'}: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


# ---- what is accepted


def test_every_field_comes_back(tmp_path: Path) -> None:
    run = record()
    found = load_run(run.save(tmp_path) / "run.json")
    assert found.trace is not None and found.sample is not None
    np.testing.assert_equal(vars(found.sample), vars(run.sample))
    np.testing.assert_equal(vars(found.trace), vars(TRACE))
    run.sample, run.trace = found.sample, found.trace
    assert found == run


def test_what_is_read_has_the_fields_of_what_is_written() -> None:
    for model, written_by in ((RunFields, Run), (ProbeFields, ProbeRecord), (TraceFields, Trace)):
        names = [field.name for field in fields(written_by) if field.name != "sample"]
        assert list(model.model_fields) == names


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("new",), {"of": "a later version"}),
        ((*PROBE, "new"), 1),
        (("trace", "new"), 1),
        (("seed",), None),
        (("seed",), -5),
        (("peak_memory_mib",), None),
        (("analysis_protocol",), None),
        (("trace",), None),
        (("settings",), {"limit": math.inf, "deep": [{"a": None}]}),
        (("seconds",), [1, 2, 3]),
        (("parameters",), {}),
        ((*ROWS, 0, 1), None),
        ((*ROWS, 0, 1), 1),
        ((*PROBE, "random"), None),
        ((*PROBE, "random", 0), None),
        ((*PROBE, "random_overall"), None),
        (("version",), 0),
    ],
)
def test_what_a_record_may_say(
    tmp_path: Path, written: dict[str, Any], place: tuple[Any, ...], value: Any
) -> None:
    found: Any = load(tmp_path, changed(written, place, value))
    if place[-1] not in ("new", "version"):
        for step in place:
            found = found[step] if isinstance(found, dict | list) else getattr(found, step)
        assert found == value


def test_a_trace_may_be_empty(tmp_path: Path, written: dict[str, Any]) -> None:
    nothing = {"iterations": [], "accuracies": [], "experiences": [], "probe": "", "protocol": {}}
    assert load(tmp_path, {**written, "trace": nothing}).trace == Trace()


# ---- what is refused


NEWER = {"replaced_images": {}, "skipped_steps": 0, "trained": 0, "stream": {}}
"""Fields that were not there from the beginning, and what they are without them."""


def every_field() -> list[tuple[str, ...]]:
    def names(record: Any) -> list[str]:
        optional = ("sample", *NEWER)
        return [field.name for field in fields(record) if field.name not in optional]

    places: list[tuple[str, ...]] = [(name,) for name in ("format", "version", *names(Run))]
    places += [(*PROBE, name) for name in names(ProbeRecord)]
    return [*places, *(("trace", name) for name in names(Trace))]


@pytest.mark.parametrize("place", every_field(), ids=".".join)
def test_missing_fields(tmp_path: Path, written: dict[str, Any], place: tuple[str, ...]) -> None:
    said = refusal(tmp_path, changed(written, place, MISSING))
    assert said == f"field '{'.'.join(place)}' is missing: the record is damaged"


@pytest.mark.parametrize("name", NEWER)
def test_fields_that_older_records_lack(tmp_path: Path, written: dict[str, Any], name: str) -> None:
    assert getattr(load(tmp_path, changed(written, (name,), MISSING)), name) == NEWER[name]


WRONG = {
    "str": [3, None, [], True],
    "int": ["3", 3.0, True, math.nan, [3]],
    "float": ["0.5", True, [0.5]],
    "a finite number": [math.nan, math.inf, -math.inf],
    "an accuracy in [0, 1]": [1.5, -0.1, 2],
    "list": [{}, "abc", 0.5],
    "dict": [[], "abc", 3],
}
KINDS: dict[str, list[tuple[Any, ...]]] = {
    "str": [("format",), ("name",), ("trace", "probe")],
    "int": [
        ("version",),
        ("n_experiences",),
        ("seed",),
        ("parameters", "during"),
        ("trace", "iterations", 1),
        ("trace", "experiences", 1),
    ],
    "float": [
        ("seconds", 1),
        ("evaluation_seconds", 1),
        ("peak_memory_mib",),
        ("stability", 1, "conv1"),
        ("plasticity", 1, "conv1"),
        ("branch_norms", 1, "conv1"),
    ],
    "list": [
        ("seconds",),
        ("evaluation_seconds",),
        ("stability",),
        ("plasticity",),
        ("branch_norms",),
        ROWS,
        (*ROWS, 1),
        (*PROBE, "overall"),
        (*PROBE, "random"),
        ("trace", "iterations"),
        ("trace", "accuracies"),
        ("trace", "accuracies", 1),
        ("trace", "experiences"),
    ],
    "dict": [
        ("settings",),
        ("environment",),
        ("parameters",),
        ("stability", 1),
        ("plasticity", 1),
        ("branch_norms", 1),
        ("probes",),
        PROBE,
        (*PROBE, "protocol"),
        ("trace",),
        ("trace", "protocol"),
    ],
}
KINDS["a finite number"] = list(KINDS["float"])
KINDS["an accuracy in [0, 1]"] = [
    (*ROWS, 0, 1),
    (*PROBE, "overall", 1),
    (*PROBE, "random", 1),
    (*PROBE, "random_overall"),
    ("trace", "accuracies", 2, 1),
]
for kind in ("float", "a finite number"):
    KINDS[kind] += KINDS["an accuracy in [0, 1]"]
OPTIONAL = [("seed",), ("peak_memory_mib",), ("trace",), (*PROBE, "random")]
OPTIONAL += KINDS["an accuracy in [0, 1]"]


def dotted(place: tuple[Any, ...]) -> str:
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in place)[1:]


@pytest.mark.parametrize(
    ("expected", "place"),
    [(expected, place) for expected, places in KINDS.items() for place in places],
    ids=lambda value: dotted(value) if isinstance(value, tuple) else value,
)
def test_wrong_kinds(
    tmp_path: Path, written: dict[str, Any], expected: str, place: tuple[Any, ...]
) -> None:
    null = [] if place in OPTIONAL or expected[0] == "a" else [None]
    for value in [*WRONG[expected], *null]:
        said = refusal(tmp_path, changed(written, place, value))
        assert said == (
            f"field '{dotted(place)}': expected {expected}, got {type(value).__name__} "
            f"{str(value)!r}: the record is damaged"
        )


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("format",), "csv", "'format': expected 'avalanche-branchtune run', got 'csv'"),
        (("version",), 99, "'version': 99 is newer than this package reads (1): update"),
        (("n_experiences",), 0, "'n_experiences': expected at least 1, got int '0'"),
        (("analysis_protocol",), 1, "'analysis_protocol': expected str, got int '1'"),
        (("stability",), [{"layer.0": "x"}], "'stability[0].layer.0': expected float"),
        (("probes",), {"a.b": {}}, "'probes.a.b.protocol' is missing"),
        (ROWS, [[0.1, 0.2, 0.3]] * 4, ".accuracies': expected at most 3 rows, got str '4 rows'"),
        ((*ROWS, 1), [0.5], ".accuracies': expected rows of one length, got list '[1, 3]'"),
        ((*PROBE, "random"), [0.1], ".accuracies': expected rows of one length, got list '[1, 3]'"),
        ((*PROBE, "overall"), [0.5], ".overall': expected 3 accuracies, got list '[0.5]'"),
        ((*PROBE, "overall", 1), None, ".overall': expected 3 accuracies, got list"),
        (("trace", "iterations"), [0, 10], "'trace': expected lists of one length"),
        (("trace", "iterations", 3), 5, "'trace': trace: measurement 3 is of iteration 5"),
        (("trace", "iterations", 1), 0, "'trace': trace: measurement 1 is of iteration 0"),
        (("trace", "experiences", 0), -1, "'trace': trace: experience -1: experiences are counted"),
        (("trace", "experiences", 2), 2, "'trace': trace: measurement 3 is of experience 1"),
        (("trace", "accuracies", 1), [0.1], "'trace': trace: measurement 1 has 1 accuracies"),
        (("trace", "accuracies"), [[]] * 4, "'trace': trace: measurement 0 has 0 accuracies"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, written: dict[str, Any], place: tuple[Any, ...], value: Any, message: str
) -> None:
    assert message in refusal(tmp_path, changed(written, place, value))


def test_a_newer_record_need_not_have_the_same_fields(
    tmp_path: Path, written: dict[str, Any]
) -> None:
    newer = {"format": written["format"], "version": 2, "probes": []}
    assert "newer than this package reads" in refusal(tmp_path, newer)


def test_no_record_and_half_a_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no record of a run: expected a file run\.json"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text('{"format": "avalanche-')
    with pytest.raises(RecordError, match=r"run\.json: cannot be read"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(RecordError, match=r"run\.json: cannot be read"):
        load_run(tmp_path)
    assert refusal(tmp_path, []) == "expected a mapping of fields, got list '[]'"
