"""The files of checkpoints: whole or not there, checked by a sum, read without running anything."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import re
import secrets
import shutil
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avalanche_branchtune.errors import CheckpointError
from avalanche_branchtune.writing import Summed, remove_unfinished, write_whole

INDEX = "checkpoints.json"
FORMAT = 2
"""Raised whenever older files can no longer be read."""

OWN = re.compile(r"(state|between|midway)-(\d{6,})-[0-9a-f]{8}\.pt")
"""Names of its files: whatever else lies in the folder stays."""

_OF_STATE: dict[str, type] = {
    **{"calls": list, "clock": float, "modules": dict, "optimizer": dict, "plugins": list},
    **{"random": dict, "run": str, "shapes": dict, "strategy": dict},
}
_OF_BETWEEN: dict[str, type] = {"of": dict, "run": str, "state": dict, "within": int}
_OF_MIDWAY = {**_OF_BETWEEN, "epoch_random": dict, "epochs": int, "iterations": int}
_NOTHING: dict[str, Any] = {"between": None, "midway": None}

logger = logging.getLogger(__name__)


class CheckpointFolder:
    """A folder with the last checkpoints of one run.

    ``checkpoints.json`` lists them, the newest last: number, file, SHA-256.  A file is complete and
    on the disk before it is listed, and removed after it is no longer.

    :param path: made if it does not exist.
    :param keep: how many are kept.
    """

    def __init__(self, path: str | os.PathLike[str], keep: int) -> None:
        """See the class."""
        self.path = Path(path)
        self.keep = keep

    def begun(self) -> bool:
        """Tell whether there are checkpoints."""
        return (self.path / INDEX).exists()

    def save(self, number: int, state: Any, kind: str = "state") -> None:
        """Save a checkpoint, and remove those that are older than the last ones.

        :param number: how many calls were finished.
        :param state: plain data, see :mod:`.encoder`.
        :param kind: ``"state"``; or, of the next call, which is under way, ``"between"`` two of its
            experiences, or ``"midway"`` in one.  What comes before it in this row stays beside it,
            since all are needed to go on.
        :raises OSError: if it cannot be written; the older ones stay good.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        listed = self._listed()
        name = f"{kind}-{number:06d}-{secrets.token_hex(4)}.pt"
        entry = {"file": name, "sha256": write_whole(self.path / name, partial(torch.save, state))}
        if kind == "state":
            kept = [e for e in listed if e["number"] < number]
            kept = [*kept, {"number": number, **entry, **_NOTHING}][-self.keep :]
        else:
            new = {**(_NOTHING if kind == "between" else {}), kind: entry}
            kept = [{**e, **new} if e["number"] == number else e for e in listed]
        index = {"format": FORMAT, "checkpoints": kept}
        content = json.dumps(index, indent=1).encode()
        write_whole(self.path / INDEX, lambda file: file.write(content))
        names = {e["file"] for e in _files_of(kept)}
        for old in self._own():
            if old.name not in names:
                old.unlink(missing_ok=True)
        remove_unfinished(self.path)

    def remove(self) -> None:
        """Remove all checkpoints: first the list of them."""
        (self.path / INDEX).unlink(missing_ok=True)
        for file in self._own():
            file.unlink(missing_ok=True)

    def size(self) -> int:
        """Return how many bytes the checkpoints have together."""
        return sum(file.stat().st_size for file in self._own())

    def _own(self) -> list[Path]:
        """Return the files of checkpoints, listed or not."""
        if not self.path.is_dir():
            return []
        return sorted(file for file in self.path.iterdir() if OWN.fullmatch(file.name))

    def lacking(self, state: Any) -> str:
        """Say how much room a checkpoint takes, and how much there is.

        :param state: of the checkpoint.
        """
        counted: Any = Summed(None)
        torch.save(state, counted)
        needed = f"it has {counted.bytes} bytes"
        try:
            return f"{needed}, and {shutil.disk_usage(self.path).free} are free"
        except OSError:
            return needed

    def newest(self) -> tuple[Any, Any, Any] | None:
        """Return the newest good checkpoint, and those within the call after it, if there are.

        One that belongs to another is passed over.

        :return: see :meth:`save`, in the order of its kinds; None if there are no checkpoints.
        :raises CheckpointError: if there are checkpoints, and none of them is good.
        """
        listed = self._listed()
        for entry in reversed(listed):
            state = self._read(entry, _OF_STATE)
            if state is None:
                continue
            of, between, midway = {"run": state["run"]}, None, None
            if entry["between"] is not None:
                between = self._read(entry["between"], _OF_BETWEEN, of)
            if entry["midway"] is not None:
                within = 0 if between is None else between["within"]
                midway = self._read(entry["midway"], _OF_MIDWAY, {**of, "within": within})
            return state, between, midway
        if listed:
            raise CheckpointError(
                f"{self.path}: none of {len(listed)} checkpoints is good: remove the folder to "
                "begin anew"
            )
        return None

    def _read(
        self, entry: dict[str, Any], kinds: Mapping[str, type], of: Mapping[str, Any] | None = None
    ) -> Any:
        """Return a checkpoint, None, with a warning, for one that is no good."""
        try:
            content = (self.path / entry["file"]).read_bytes()
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                raise CheckpointError("it was changed or cut off")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickles' protocols
                state = torch.load(io.BytesIO(content), weights_only=True)
            if not all(isinstance(state[key], kind) for key, kind in kinds.items()):
                raise CheckpointError("it is no checkpoint of a run")
            if any(state[key] != value for key, value in (of or {}).items()):
                raise CheckpointError("it belongs to another one")
            return state
        except pickle.UnpicklingError:  # torch would say how to run it
            problem = ["it holds more than plain data"]
        except Exception as error:  # whatever a damaged or foreign file can cause
            problem = str(error).splitlines() or [repr(error)]
        logger.warning(
            "%s: %s is no good (%s): going on from an older one",
            self.path,
            entry["file"],
            problem[0][:200],
        )
        return None

    def _listed(self) -> list[dict[str, Any]]:
        path = self.path / INDEX
        if not path.exists():
            lost = [f.name for f in self._own() if int(f.name.split("-")[1]) > 0]
            if lost:
                raise CheckpointError(
                    f"{path} is not there, but {lost[0]} is: bring it back, or remove the folder "
                    "to begin anew"
                )
            return []
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            version, entries = index["format"], index["checkpoints"]
            files = _files_of(entries)
            good = all(isinstance(e["number"], int) for e in entries) and all(
                OWN.fullmatch(e["file"]) and isinstance(e["sha256"], str) for e in files
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{path} is no list of checkpoints ({error!r}): bring it back, or remove the "
                "folder to begin anew"
            ) from error
        if version != FORMAT:
            newer = isinstance(version, int) and version > FORMAT
            raise CheckpointError(
                f"{path}: format {version!r}; this version reads {FORMAT}: go on with the "
                f"{'newer' if newer else 'older'} version that wrote it, or remove the folder"
            )
        if not good:
            raise CheckpointError(
                f"{path} lists what is no checkpoint: bring it back, or remove the folder"
            )
        found: list[dict[str, Any]] = entries
        return found


def _files_of(entries: list[Any]) -> list[Any]:
    within = [e[kind] for e in entries for kind in _NOTHING]
    return [*entries, *(e for e in within if e is not None)]
