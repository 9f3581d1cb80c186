"""A record that is saved again and again while its run goes on."""

from __future__ import annotations

import json
import math
import os
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.records import ProbeRecord, Run, Trace, load_run
from avalanche_branchtune.records import journal as journal_module
from avalanche_branchtune.records.journal import JOURNAL, Journal, differences
from avalanche_branchtune.writing import write_text
from tests.run_records import full


def growing(experiences: int, measurements: int, tests: int) -> Any:
    """Yield a run as it is at each save: three of them for an experience."""
    rng = np.random.default_rng(0)
    run = Run("a", experiences, 0, {"sizes": (1, 2)}, {"kNN": ProbeRecord({"k": 3})}, trace=Trace())
    trace, probe = run.trace, run.probes["kNN"]
    assert trace is not None
    yield run
    for t in range(experiences):
        for _ in range(measurements):
            trace.iterations.append(len(trace.iterations))
            trace.accuracies.append([math.nan, *rng.random(tests - 1).tolist()])
            trace.experiences.append(t)
        run.seconds.append(1.5 * t)
        run.stability.append({f"layer{i}": 0.5 for i in range(10)} if t else {})
        yield run
        probe.accuracies.append(rng.random(experiences).tolist())
        probe.overall.append(float(rng.random()))
        yield run
        run.evaluation_seconds[:] = [0.5] * (t + 1)
        run.peak_memory_mib = 100.0 + t
        yield run


def written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar")))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts as Linux does")
def test_what_is_written_in_all_is_little_more_than_the_record(tmp_path: Path) -> None:
    journal, before = Journal(tmp_path), written()
    for run in growing(50, 200, 5):
        journal.save(run)
    total, size = written() - before, (tmp_path / "run.json").stat().st_size
    assert os.listdir(tmp_path) == ["run.json"], "a complete run is one file"
    assert size > 10**6
    # The journal once, and run.json at the last two saves, when all experiences are there.
    assert total < 3.5 * size, f"{total / size:.1f} times"


def same(one: Run, other: Run) -> None:
    np.testing.assert_equal(one.content(), json.loads(json.dumps(other.content())))


def test_every_save_can_be_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for i, run in enumerate(growing(4, 3, 2)):
        journal.save(run)
        same(load_run(tmp_path), run)
        if i == 0:
            begin = (tmp_path / "run.json").read_bytes()
        if not run.complete:
            assert (tmp_path / "run.json").read_bytes() == begin
    assert run.complete and not (tmp_path / JOURNAL).exists()
    alone = run.save(tmp_path / "alone") / "run.json"
    assert alone.read_bytes() == (tmp_path / "run.json").read_bytes()


def test_a_measurement_that_is_replaced(tmp_path: Path) -> None:
    run, journal = Run("a", 3, trace=Trace([0, 10], [[0.5]] * 2, [0, 0])), Journal(tmp_path)
    journal.save(run)
    assert run.trace is not None
    run.trace.iterations[-1:] = [10, 20]
    run.trace.accuracies[-1:] = [[0.25], [0.75]]
    run.trace.experiences[-1:] = [0, 0]
    journal.save(run)
    same(load_run(tmp_path), run)


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    run = full()
    for length in (3, 5):  # complete, and not
        run.n_experiences = length
        folder = tmp_path / str(length)
        folder.mkdir()
        journal = Journal(folder)
        journal.save(run)
        before = {p.name: (p.stat().st_ino, p.stat().st_size) for p in folder.iterdir()}
        journal.save(run)
        assert before == {p.name: (p.stat().st_ino, p.stat().st_size) for p in folder.iterdir()}


@pytest.mark.parametrize("lost", [1, 5, 40])
def test_a_save_that_was_interrupted(tmp_path: Path, lost: int) -> None:
    """The last line is not whole: the record is that of the save before."""
    journal, states = Journal(tmp_path), []
    for run in growing(4, 3, 2):
        if len(states) == 8:
            break
        journal.save(run)
        states.append(deepcopy(run))
    content = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(content[:-lost])
    same(load_run(tmp_path), states[-2])


def test_a_run_that_goes_on_can_be_read_between_any_two_writings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial(tmp_path)
    run, found = load_run(tmp_path), []

    def write(path: Path, text: str) -> None:
        write_text(path, text)
        found.append(load_run(tmp_path))

    monkeypatch.setattr(journal_module, "write_text", write)
    Journal(tmp_path).save(run)
    assert (tmp_path / JOURNAL).exists() and len(found) > 1
    for each in found:
        same(each, run)


def partial(folder: Path) -> list[bytes]:
    journal = Journal(folder)
    for i, run in enumerate(growing(4, 3, 2)):
        if i < 6:
            journal.save(run)
    return (folder / JOURNAL).read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{\n", "line 3 is damaged"),
        (b"[1]\n", "line 3 is damaged"),
        (b'[[["no such", 3], null, 1]]\n', "line 3 is damaged"),
        (b'[[["seconds"], 99, [1]]]\n', "line 3 is damaged: 'seconds' has no item 99"),
        (b'[[["seconds"], 0, 7]]\n', "line 3 is damaged"),
        (b"[[[], null, 7]]\n", "line 3 is damaged"),
        (b"[" * 100_000 + b"\n", "line 3 is damaged"),
        (b'[[["seconds"], null, "x"]]\n', "field 'seconds': expected list"),
        (b'[[["settings", "a"], null, ' + b"[" * 60 + b"]" * 60 + b"]]\n", "more than 50 levels"),
    ],
)
def test_damaged_journals(tmp_path: Path, line: bytes, message: str) -> None:
    lines = partial(tmp_path)
    (tmp_path / JOURNAL).write_bytes(b"".join([*lines[:2], line]))
    with pytest.raises(RecordError, match="run") as error:
        load_run(tmp_path)
    assert message in str(error.value)


def test_journals_that_are_missing_or_another_runs(tmp_path: Path) -> None:
    lines = partial(tmp_path)
    (tmp_path / JOURNAL).write_bytes(b'{"changes": "0123"}\n' + b"".join(lines[1:]))
    with pytest.raises(RecordError, match=r"belongs to another run\.json"):
        load_run(tmp_path)
    (tmp_path / JOURNAL).write_bytes(b"")
    with pytest.raises(RecordError, match="cannot be read"):
        load_run(tmp_path)
    (tmp_path / JOURNAL).unlink()
    with pytest.raises(RecordError, match="is missing"):
        load_run(tmp_path)


def test_differences() -> None:
    old = {"a": [1, [2]], "b": {"c": 1}, "d": 1}
    new = {"a": (1, [2], 3), "b": {"c": 1, "e": [{}]}, "d": None}
    assert list(differences(old, new)) == [
        [["a"], 2, [3]],
        [["b", "e"], None, [{}]],
        [["d"], None, None],
    ]
    assert list(differences(old, {"a": [1], "d": 1})) == [[[], None, {"a": [1], "d": 1}]]
