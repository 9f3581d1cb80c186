"""What runs, what died and what is done: the runs below a folder, as they say themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avalanche_branchtune.checkpoints.lock import holder
from avalanche_branchtune.checkpoints.sidecar import SIDECAR, age, ago, read_sidecar
from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.records import load_run
from avalanche_branchtune.records.run import RECORD
from solo_bridge.comparison.asked import ASKED, FAILED, asked

SILENT = 600.0
"""Seconds after which a run on another host, where it cannot be looked at, is called silent."""
UNITS = ("B", "KiB", "MiB", "GiB")


@dataclass(frozen=True)
class Status:
    """What is known of a run.

    :param folder: of the run.
    :param state: ``training``, ``evaluating``, ``waiting`` (between two calls), ``done``,
        ``interrupted``, ``failed``; ``died`` if its process is no more and did not say so,
        ``stopped`` if it ended between two calls, ``silent`` if another host's was not heard of for
        ten minutes, ``partial`` if there is but a record that is not complete, ``not begun``, or
        ``broken`` if its files cannot be read.
    :param progress: experience and epoch.
    :param heartbeat: seconds since it last said something.
    :param checkpoint: seconds since it was last saved.
    :param checkpoint_bytes: of all checkpoints that are kept.
    :param process: its number.
    :param host: where it runs, or ran.
    :param job: of SLURM's.
    :param note: the error or the signal that ended it, or what is broken.
    """

    folder: str
    state: str
    progress: str = ""
    heartbeat: float | None = None
    checkpoint: float | None = None
    checkpoint_bytes: int | None = None
    process: int | None = None
    host: str = ""
    job: str | None = None
    note: str = ""


def statuses(folder: Path) -> list[Status]:
    """Return what is known of every run at or below a folder, in the order of their names.

    :param folder: of runs.
    :raises RecordError: if there is no such folder.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder}: no such folder")
    found = {path.parent for name in (SIDECAR, ASKED, RECORD) for path in folder.rglob(name)}
    return [status(run) for run in sorted(found)]


def status(folder: Path) -> Status:
    """Return what is known of one run.

    :param folder: of the run.
    """
    try:
        known = asked(folder)
        if not (folder / SIDECAR).exists():
            why = folder / FAILED
            if why.exists():
                return Status(str(folder), "failed", note=why.read_text(encoding="utf-8").strip())
            if known is None:
                return _recorded(folder)
            return Status(str(folder), "done" if known.finished else "not begun")
        said = read_sidecar(folder)
        state = "done" if known and known.finished else _state(folder, said)
        return _status(folder, state, said)
    except RecordError as error:
        return Status(str(folder), "broken", note=" ".join(str(error).split()))
    except (LookupError, TypeError, ValueError) as error:
        return Status(str(folder), "broken", note=f"{folder / SIDECAR} is damaged: {error!r}")


def _recorded(folder: Path) -> Status:
    """Return what is known of a run that has nothing but its record."""
    run = load_run(folder)
    progress = f"{run.finished} of {run.n_experiences} experiences"
    return Status(str(folder), "done" if run.complete else "partial", progress)


def _state(folder: Path, said: dict[str, Any]) -> str:
    """Return the state that a run is in, which it may not have been able to say."""
    state: str = said["state"]
    if state not in ("training", "evaluating", "waiting"):
        return state
    held = holder(folder)
    if held is None:
        return "stopped" if state == "waiting" else "died"
    if held.alive is False:
        return "died"
    silent = said["heartbeat"] is not None and age(said["heartbeat"]) > SILENT
    return "silent" if held.alive is None and silent else state


def _status(folder: Path, state: str, said: dict[str, Any]) -> Status:
    saved, progress = said.get("checkpoint"), []
    for one, all_ in (("experience", "experiences"), ("epoch", "epochs")):
        if said.get(one) is not None:
            length = said.get(all_)
            progress.append(f"{one} {said[one]}" + (f" of {length}" if length else ""))
    return Status(
        str(folder),
        state,
        ", ".join(progress),
        None if said["heartbeat"] is None else age(said["heartbeat"]),
        None if saved is None else age(saved["saved"]),
        None if saved is None else int(saved["bytes"]),
        said.get("process"),
        str(said.get("host") or ""),
        said.get("job"),
        str(said.get("error") or said.get("signal") or ""),
    )


def as_json(found: list[Status]) -> list[dict[str, Any]]:
    """Return what is known as JSON can hold it.

    :param found: see :func:`statuses`.
    """
    return [asdict(one) for one in found]


def as_text(found: list[Status]) -> str:
    """Return what is known as a table.

    :param found: see :func:`statuses`.
    """
    head = ("run", "state", "progress", "heartbeat", "checkpoint", "where", "")
    rows = [head, *(_row(one) for one in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _row(one: Status) -> tuple[str, ...]:
    saved = "" if one.checkpoint is None else f"{ago(one.checkpoint)}, {_size(one)}"
    return (
        one.folder,
        one.state,
        one.progress,
        "" if one.heartbeat is None else ago(one.heartbeat),
        saved,
        _where(one),
        one.note,
    )


def _where(one: Status) -> str:
    if one.process is None:
        return ""
    return f"process {one.process} on {one.host}" + (f", job {one.job}" if one.job else "")


def _size(one: Status) -> str:
    size, unit = float(one.checkpoint_bytes or 0), 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {UNITS[unit]}"
