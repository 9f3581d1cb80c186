"""Features of some test samples, in a file of their own beside the record."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from avalanche_branchtune.errors import RecordError

SAMPLE = "features.npz"


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
        part = folder / f".{SAMPLE}.part.npz"
        np.savez_compressed(part, **vars(self))
        part.replace(folder / SAMPLE)


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
            parts = {name: archive[name] for name in names}
    except Exception as error:  # zip, numpy and key errors of many kinds
        raise RecordError(f"{path}: cannot be read: {error}") from error
    features = parts["features"]
    if features.ndim != 2 or any(len(parts[n]) != len(features) for n in names):
        shapes = {n: parts[n].shape for n in names}
        raise RecordError(f"{path}: fields do not fit together: {shapes}")
    if not np.isfinite(features).all():
        raise RecordError(f"{path}: field 'features' has values that are not finite")
    return FeatureSample(**parts)
