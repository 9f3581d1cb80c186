"""The files of checkpoints: whole or not there, checked by a sum, read without running anything."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from avalanche_branchtune.errors import CheckpointError
from avalanche_branchtune.writing import replacing

INDEX = "checkpoints.json"
FORMAT = 1
"""Raised whenever older files can no longer be read."""

OWN = re.compile(r"(state|midway)-\d{6,}-[0-9a-f]{8}\.pt")
"""Names of its files: whatever else lies in the folder stays."""

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

    def save(self, number: int, state: Any, *, midway: bool = False) -> None:
        """Save a checkpoint, and remove those that are older than the last ones.

        :param number: how many calls were finished.
        :param state: plain data, see :mod:`.encoder`.
        :param midway: whether the next call is under way; the checkpoint of this number stays
            beside it, since both are needed to go on.
        :raises OSError: if it cannot be written; the older ones stay good.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        digest = hashlib.sha256(content).hexdigest()
        name = f"{'midway' if midway else 'state'}-{number:06d}-{digest[:8]}.pt"
        _write(self.path / name, content)
        listed = self._listed()
        entry = {"file": name, "sha256": digest}
        if midway:
            kept = [{**e, "midway": entry} if e["number"] == number else e for e in listed]
        else:
            kept = [e for e in listed if e["number"] < number]
            kept = [*kept, {"number": number, **entry, "midway": None}][-self.keep :]
        index = {"format": FORMAT, "checkpoints": kept}
        _write(self.path / INDEX, json.dumps(index, indent=1).encode())
        names = {e["file"] for e in kept} | {e["midway"]["file"] for e in kept if e["midway"]}
        for old in self._own():
            if old.name not in names:
                old.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all checkpoints: first the list of them."""
        (self.path / INDEX).unlink(missing_ok=True)
        for file in self._own():
            file.unlink(missing_ok=True)

    def size(self) -> int:
        """Return how many bytes the checkpoints have together."""
        return sum(file.stat().st_size for file in self._own())

    def _own(self) -> list[Path]:
        return [file for file in self.path.iterdir() if OWN.fullmatch(file.name)]

    def lacking(self, state: Any) -> str:
        """Say how much room a checkpoint takes, and how much there is.

        :param state: of the checkpoint.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        needed = buffer.getbuffer().nbytes
        try:
            return f"it has {needed} bytes, and {shutil.disk_usage(self.path).free} are free"
        except OSError:
            return f"it has {needed} bytes"

    def newest(self) -> tuple[Any, Any] | None:
        """Return the newest good checkpoint, and the one that is midway from it, if there is.

        :return: None if there are no checkpoints.
        :raises CheckpointError: if there are checkpoints, and none of them is good.
        """
        listed = self._listed()
        for entry in reversed(listed):
            state = self._read(entry)
            if state is not None:
                return state, None if entry["midway"] is None else self._read(entry["midway"])
        if listed:
            raise CheckpointError(
                f"{self.path}: none of {len(listed)} checkpoints is good: remove the folder to "
                "begin anew"
            )
        return None

    def _read(self, entry: dict[str, Any]) -> Any:
        """Return a checkpoint, None, with a warning, for one that is no good."""
        try:
            content = (self.path / entry["file"]).read_bytes()
            if hashlib.sha256(content).hexdigest() == entry["sha256"]:
                return torch.load(io.BytesIO(content), weights_only=True)
            problem = "it was changed or cut off"
        except OSError as error:
            problem = str(error)
        logger.warning(
            "%s: %s is no good (%s): going on from an older one", self.path, entry["file"], problem
        )
        return None

    def _listed(self) -> list[dict[str, Any]]:
        path = self.path / INDEX
        if not path.exists():
            return []
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            version, entries = index["format"], index["checkpoints"]
            files = [*entries, *(e["midway"] for e in entries if e["midway"] is not None)]
            good = all(isinstance(e["number"], int) for e in entries) and all(
                Path(e["file"]).name == e["file"] and isinstance(e["sha256"], str) for e in files
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is no list of checkpoints: {error}") from error
        if not good or version != FORMAT:
            raise CheckpointError(
                f"{path}: format {version!r}; this version reads {FORMAT}: use the version that "
                "wrote it, or remove the folder"
            )
        found: list[dict[str, Any]] = entries
        return found


def _write(path: Path, content: Any) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)  # the new name is on the disk too
    finally:
        os.close(handle)
