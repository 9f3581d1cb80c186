"""The record of a run that goes on: what changed is added to it, so that it is not written anew."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.records.run import RECORD, Run, as_text
from avalanche_branchtune.records.sample import FeatureSample
from avalanche_branchtune.writing import append, write_text

JOURNAL = "run.changes.jsonl"
"""Beside ``run.json`` while a run is not complete: a line for each save."""
FIELD = "changes"
"""Field of ``run.json`` that says that there is a journal, and which."""


class Journal:
    """Saves a run again and again, in as many bytes as its last record has, or little more.

    ``run.json`` has the run as it began; each save adds a line with what
    changed since to :data:`JOURNAL`.  When the run is complete, ``run.json``
    has all of it and the journal goes.

    :param folder: of the run; it exists.
    """

    def __init__(self, folder: Path) -> None:
        """See the class."""
        self.folder = folder
        self._saved: dict[str, Any] = {}  # as JSON has it
        self._sample: FeatureSample | None = None
        self._key = ""

    def save(self, run: Run) -> None:
        """Save a run; an interrupted save leaves what was saved before.

        :param run: the same at each save, with more in it.
        """
        content = run.content()
        text = json.dumps(
            list(differences(self._saved, content)), ensure_ascii=False, allow_nan=False
        )
        changes = json.loads(text)
        if changes and (run.complete or not self._key):
            self._whole(content, run.complete)
        elif changes:
            append(self.folder / JOURNAL, f"{text}\n")
        for place, begin, value in changes:
            _put(self._saved, place, begin, value)
        if run.sample is not None and run.sample is not self._sample:
            run.sample.save(self.folder)
            self._sample = run.sample

    def _whole(self, content: dict[str, Any], complete: bool) -> None:
        """Write ``run.json``, which has no journal until there is a new one."""
        write_text(self.folder / RECORD, as_text(content))
        if complete:
            self._key = ""
            (self.folder / JOURNAL).unlink(missing_ok=True)
        else:
            self._key = secrets.token_hex(8)
            write_text(self.folder / JOURNAL, json.dumps({FIELD: self._key}) + "\n")
            write_text(self.folder / RECORD, as_text({**content, FIELD: self._key}))


def differences(old: Any, new: Any, place: tuple[str | int, ...] = ()) -> Iterator[list[Any]]:
    """Yield what makes one record of another: places, from which item on, and what stands there.

    :param old: as JSON has it.
    :param new: as JSON can have it.
    :param place: of both in the record.
    :return: ``[place, None, value]`` for a value, ``[place, n, items]`` for a list whose items
        differ from the n-th on.
    """
    if isinstance(new, tuple):
        new = list(new)
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() <= set(map(str, new)):
        for name, value in new.items():
            key = str(name)
            if key in old:
                yield from differences(old[key], value, (*place, key))
            else:
                yield [[*place, key], None, value]
    elif isinstance(old, list) and isinstance(new, list):
        same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), None)
        same = min(len(old), len(new)) if same is None else same
        if same < max(len(old), len(new)):
            yield [list(place), same, new[same:]]
    elif old != new:
        yield [list(place), None, new]


def continued(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a record with what its journal added.

    :param content: of ``run.json``; it is changed.
    :param folder: of the run.
    :raises RecordError: for a journal that is missing or damaged; a line that
        was being written when the run was interrupted is left out.
    """
    path = folder / JOURNAL
    key = content.pop(FIELD, None)
    if key is None:
        return content
    if not path.is_file():
        raise RecordError(f"{path} is missing: it has what came after {RECORD}")
    try:
        head, *lines = path.read_bytes().split(b"\n")[:-1]
        if json.loads(head) != {FIELD: key}:
            raise RecordError(f"{path} belongs to another {RECORD}: the record is damaged")
        for number, line in enumerate(lines, 2):
            try:
                for place, begin, value in json.loads(line):
                    _put(content, place, begin, value)
            except (ValueError, TypeError, LookupError, RecursionError) as error:
                raise RecordError(f"{path}: line {number} is damaged: {error}") from error
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}: cannot be read: {error}") from error
    return content


def _put(content: dict[str, Any], place: list[Any], begin: int | None, value: Any) -> None:
    *steps, last = place
    target: Any = content
    for step in steps:
        target = target[step]
    if begin is None:
        if not isinstance(target, dict):
            raise TypeError(f"no field {last!r}")
        target[last] = value
        return
    items = target[last]
    if not isinstance(items, list) or not isinstance(value, list) or not 0 <= begin <= len(items):
        raise TypeError(f"{last!r} has no item {begin}")
    items[begin:] = value
