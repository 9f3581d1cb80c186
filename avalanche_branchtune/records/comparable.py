"""What may be averaged, and what may stand in one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from avalanche_branchtune.errors import ProbeError, RecordError
from avalanche_branchtune.records.run import Run

ABSENT = "absent"
Member = tuple[str, Run]
"""A run, and before it where it came from."""


def check_run(origin: str, run: Run) -> None:
    """Refuse a run whose numbers do not go with one another.

    :param origin: where it came from.
    :param run: the run.
    :raises RecordError: naming the probe and the field.
    """
    for name, probe in run.probes.items():
        field = f"{origin}: field 'probes.{name}.accuracies'"
        widths = {len(row) for row in probe.accuracies}
        if run.n_experiences > 1 and not widths <= {1, run.n_experiences}:
            raise RecordError(
                f"{field}: expected a column for each of {run.n_experiences} experiences, or one "
                f"for a common test set, got {sorted(widths)}"
            )
        if any(all(a is None for a in row) for row in probe.accuracies):
            raise RecordError(f"{field}: a row has no accuracy: the record is damaged")
        try:
            probe.summary(run.n_experiences)
        except ProbeError as error:
            raise RecordError(f"{field}: {error}") from error


def check_same(members: Sequence[Member]) -> None:
    """Refuse to average runs that differ in more than the seed.

    :param members: runs of one name, each with its origin.
    :raises RecordError: naming what differs, both values and both runs.
    """
    origin, first = members[0]
    what = f"{first.name}: runs that differ are not averaged"
    advice = "give them different names, or make two reports"
    for other, run in members[1:]:
        pairs = {
            "n_experiences": (first.n_experiences, run.n_experiences),
            "settings": (first.settings, run.settings),
            "probes": (sorted(first.probes), sorted(run.probes)),
        }
        for name in first.probes.keys() & run.probes.keys():
            mine, theirs = first.probes[name], run.probes[name]
            pairs[f"probes.{name}.protocol"] = (mine.protocol, theirs.protocol)
            if mine.accuracies and theirs.accuracies:
                columns = len(mine.accuracies[0]), len(theirs.accuracies[0])
                pairs[f"number of test experiences of probes.{name}"] = columns
        for where, (one, two) in pairs.items():
            _same(where, (origin, one), (other, two), what, advice)
    _same_analysis(members, what, advice)
    _check_seeds(members)


def check_comparable(members: Sequence[Member]) -> None:
    """Refuse to show numbers side by side that were made in different ways.

    :param members: all runs of a page, each with its origin.
    :raises RecordError: naming what differs, both values and both runs.
    """
    what, advice = "numbers of different protocols are not compared", "make two reports"
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for origin, run in members:
        for name, probe in run.probes.items():
            known = first.setdefault(name, (origin, probe.protocol))
            _same(f"probes.{name}.protocol", known, (origin, probe.protocol), what, advice)
    _same_analysis(members, what, advice)


def flat(content: Any, prefix: str = "") -> dict[str, str]:
    """Return nested settings as lines.

    :param content: mappings, lists and plain values.
    :param prefix: name of the whole.
    :return: dotted name → value as it is shown.
    """
    content = _plain(content)
    if isinstance(content, dict) and (content or not prefix):
        lines: dict[str, str] = {}
        for key, value in content.items():
            lines |= flat(value, f"{prefix}.{key}" if prefix else key)
        return lines
    if content is None:
        return {prefix: "none"}
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return {prefix: text}


def _check_seeds(members: Sequence[Member]) -> None:
    for i, (origin, run) in enumerate(members):
        for earlier, other in members[:i]:
            if run.seed != other.seed:
                continue
            if run.seed is not None or (run.probes, run.seconds) == (other.probes, other.seconds):
                seed = "the same run" if run.seed is None else f"seed {run.seed}"
                raise RecordError(
                    f"{run.name}: {seed} is there twice, in {earlier} and in {origin}: it would "
                    "count double"
                )


def _same_analysis(members: Sequence[Member], what: str, advice: str) -> None:
    measured = [(o, run.analysis_protocol) for o, run in members if run.analysis_protocol]
    for one in measured[1:]:
        _same("analysis_protocol", measured[0], one, what, advice)


def _same(where: str, one: tuple[str, Any], other: tuple[str, Any], what: str, advice: str) -> None:
    found = _difference(_plain(one[1]), _plain(other[1]), where)
    if found is not None:
        where, mine, theirs = found
        raise RecordError(
            f"{what}: {where} is {mine} in {one[0]}, but {theirs} in {other[0]}; {advice}"
        )


def _difference(one: Any, other: Any, where: str) -> tuple[str, str, str] | None:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            found = _difference(one.get(key, _Absent), other.get(key, _Absent), f"{where}.{key}")
            if found is not None:
                return found
        return None
    return None if one == other else (where, *_shortened(_text(one), _text(other)))


class _Absent:
    """The value of a setting that is not there."""


def _text(value: Any) -> str:
    return ABSENT if value is _Absent else json.dumps(value, ensure_ascii=False)


def _shortened(one: str, other: str, width: int = 60) -> tuple[str, str]:
    """Cut long values down to where they differ."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    begin = max(0, same - width // 2) if max(len(one), len(other)) > width else 0

    def cut(text: str) -> str:
        tail = "…" if len(text) > begin + width else ""
        return ("…" if begin else "") + text[begin : begin + width] + tail

    return cut(one), cut(other)


def _plain(content: Any) -> Any:
    """Return settings as they come back from a file, so that lists and tuples are alike."""
    return json.loads(json.dumps(content, default=str))
