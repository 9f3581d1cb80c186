"""Features of some test samples, in a file of their own beside the record."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.writing import replacing

SAMPLE = "features.npz"
MOST_COMPRESSED = 100
LEAST_BOUND = 64 * 2**20
"""Bytes that features may take: features of one value are compressed to almost nothing."""


@dataclass
class FeatureSample:
    """Features of some test samples after the last finished experience.

    :param features: ``(N, D)``.
    :param labels: ``(N,)``.
    :param experiences: test experience of each, ``(N,)``.
    """

    features: np.ndarray
    labels: np.ndarray
    experiences: np.ndarray

    def save(self, folder: Path) -> None:
        """Write ``features.npz`` as a whole or not at all.

        :param folder: of the run.
        """
        with replacing(folder / SAMPLE) as part:
            np.savez_compressed(part, **vars(self))


def load_sample(folder: Path) -> FeatureSample | None:
    """Read the features of a run.

    :param folder: of the run.
    :return: None if there are none.
    :raises RecordError: if they cannot be read or do not fit together.
    """
    path = folder / SAMPLE
    if not path.is_file():
        return None
    names = [f.name for f in fields(FeatureSample)]
    try:
        with np.load(path, allow_pickle=False) as archive:
            _check_sizes(path, archive.zip)
            parts = {name: archive[name] for name in names}
    except RecordError:
        raise
    except Exception as error:  # zip, numpy and key errors of many kinds
        raise RecordError(f"{path}: cannot be read: {error}") from error
    features = parts["features"]
    rows = [part.shape[:1] for part in parts.values()]
    if features.ndim != 2 or len(set(rows)) > 1 or any(parts[n].ndim != 1 for n in names[1:]):
        shapes = {n: parts[n].shape for n in names}
        raise RecordError(f"{path}: fields do not fit together: {shapes}")
    for name, part in parts.items():
        if part.dtype.kind not in ("fiu" if name == "features" else "iu"):
            raise RecordError(f"{path}: field {name!r} has values of type {part.dtype}")
    if not np.isfinite(features).all():
        raise RecordError(f"{path}: field 'features' has values that are not finite")
    return FeatureSample(**parts)


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse fields that would be much larger than their file, before they are read."""
    most = max(LEAST_BOUND, MOST_COMPRESSED * path.stat().st_size)
    total = 0
    for info in archive.infolist():
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            header = _HEADERS.get(version, np.lib.format.read_array_header_2_0)
            shape, _, dtype = header(member)
        size = math.prod(shape) * dtype.itemsize
        total += size
        if total > most or (size > info.file_size and not dtype.hasobject):
            raise RecordError(
                f"{path}: field {info.filename.removesuffix('.npy')!r} of shape {shape} does not "
                f"go with a file of {path.stat().st_size} bytes: the record is damaged"
            )


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0}
