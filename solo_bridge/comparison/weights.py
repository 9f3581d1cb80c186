"""Weights that runs begin with instead of new ones: which they are, and that they stay the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from avalanche_branchtune.errors import CheckpointError, ConfigError
from solo_bridge.checkpoint import load_solo_checkpoint
from solo_bridge.comparison.experiment import REFERENCE
from solo_bridge.method import SoloMethod

PIECE = 1 << 20
"""Bytes of a file that are read at a time."""


def file_of(given: str) -> str:
    """Return the file with the weights that are asked for.

    :param given: it, or the folder of a run that is finished.
    :raises ConfigError: for a folder without a network.
    """
    if not given:
        raise ConfigError("weights: expected a file, got an empty name")
    file = Path(given)
    if file.is_dir():
        file = file / REFERENCE
        if not file.is_file():
            raise ConfigError(f"weights: {given} is no finished run: there is no {file}")
    return str(file)


def described(file: str, begun: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return which weights are asked for.

    :param file: see :func:`file_of`.
    :param begun: what a run that is asked for again was begun with: its file may be gone.
    :return: arguments of :func:`begin_with`.
    :raises ConfigError: if it cannot be read.
    """
    try:
        return {"file": file, "sha256": _sum(Path(file))}
    except OSError as error:
        if begun is not None and begun["file"] == file:
            return dict(begun)
        raise ConfigError(_unread(file, error)) from error


def begin_with(method: SoloMethod, file: str, sha256: str) -> None:
    """Let a method take over the tensors of a file; what it took is logged.

    :param method: newly initialised.
    :param file: see :func:`~solo_bridge.load_solo_checkpoint`.
    :param sha256: of the file.
    :raises CheckpointError: for a file that is not there, that has changed, or does not fit.
    """
    try:
        changed = _sum(Path(file)) != sha256
    except OSError as error:
        raise CheckpointError(_unread(file, error)) from error
    if changed:
        raise CheckpointError(
            f"weights: {file} is not the file that the run was begun with (sha256 {sha256[:16]}…): "
            "bring that back, or choose another folder (out=)"
        )
    load_solo_checkpoint(method, file)


def _unread(file: str, error: OSError) -> str:
    return (
        f"weights: {Path(file).absolute()} cannot be read: {error.strerror}: bring it back, or "
        "give branchtune run its new place, weights=…; a run that was begun goes on then"
    )


def _sum(file: Path) -> str:
    status = file.stat()
    return _sum_of(file.absolute(), status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache
def _sum_of(file: Path, *version: int) -> str:
    """Return the SHA-256 of a file, which is read once for each version of it."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
