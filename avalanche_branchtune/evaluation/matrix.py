"""The accuracy matrix of a stream, and the numbers that are read from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from avalanche_branchtune.errors import ProbeError

if TYPE_CHECKING:
    from torch import Tensor


class AccuracyMatrix:
    """A[t, i]: accuracy on the test data of experience i after experience t.

    Experiences are counted from 0, T is their number.  In a class-incremental
    stream experience i's test data are its classes, in a domain-incremental
    one its domain with all classes; in a data-incremental one all experiences
    share one test set: its columns are equal, and only :attr:`final_accuracy`,
    :meth:`average_accuracy` and :attr:`continual_accuracy` say something.
    Where the protocol knows only the classes seen so far, A[t, i > t] is NaN:
    not measured, and there is no :attr:`forward_transfer`.  Formulas: Tang et al. (Kaizen),
    arXiv 2303.17235; backward transfer: Lopez-Paz and Ranzato, arXiv 1706.08840.

    Authors' code: facebookresearch/GradientEpisodicMemory 34c6b8e, metrics/metrics.py,
    confusion_matrix (the transfers).
    Differs: there the transfers are divided by T, here by T − 1, as in the papers.

    :param n_experiences: T.
    :param random: accuracies R[i] of a randomly initialised network under the
        same probe; needed for :attr:`forward_transfer`.
    :raises ProbeError: for numbers that are not accuracies.

    Example::

        >>> from avalanche_branchtune.evaluation import AccuracyMatrix
        >>> matrix = AccuracyMatrix(2, random=[0.25, 0.25])
        >>> matrix.add([1.0, 0.5])
        >>> matrix.add([0.5, 0.75])
        >>> matrix.final_accuracy, matrix.continual_accuracy, matrix.forgetting
        (0.625, 0.8125, 0.5)
        >>> matrix.backward_transfer, matrix.forward_transfer
        (-0.5, 0.25)
    """

    def __init__(self, n_experiences: int, random: Sequence[float] | None = None) -> None:
        """See the class."""
        if n_experiences < 1:
            raise ProbeError(f"AccuracyMatrix({n_experiences}): expected at least one experience")
        self.n_experiences = n_experiences
        self.rows: list[list[float]] = []
        self.random = None if random is None else self._checked(random, "random")

    def add(self, accuracies: Sequence[float]) -> None:
        """Add the row of the next experience.

        :param accuracies: T shares in [0, 1], on the test data of every
            experience, also of those to come; NaN for those to come where they
            are not measured.
        :raises ProbeError: for another number of them, or one too many rows.
        """
        if self.complete:
            raise ProbeError(f"the matrix already has a row for each of {self.n_experiences}")
        t = len(self.rows)
        self.rows.append(self._checked(accuracies, f"row {t}", seen=t))

    @property
    def complete(self) -> bool:
        """Whether there is a row for every experience."""
        return len(self.rows) == self.n_experiences

    @property
    def values(self) -> Tensor:
        """The rows so far, ``(t, T)``, float64."""
        import torch  # late: a report needs the numbers alone

        return torch.tensor(self.rows, dtype=torch.float64).reshape(-1, self.n_experiences)

    def average_accuracy(self, after: int = -1) -> float:
        """Mean over the experiences seen: ``mean_{i≤t} A[t, i]``.

        :param after: t; the last row by default.
        """
        rows = self._needs(1)
        t = range(len(rows))[after]
        return float(rows[t, : t + 1].mean())

    @property
    def final_accuracy(self) -> float:
        """``mean_i A[T−1, i]``."""
        return float(self._whole()[-1].mean())

    @property
    def continual_accuracy(self) -> float:
        """``mean_t mean_{i≤t} A[t, i]``, over the rows so far."""
        rows = self._needs(1)
        return sum(self.average_accuracy(t) for t in range(len(rows))) / len(rows)

    @property
    def forgetting(self) -> float:
        """``mean_{i<T−1} max_t (A[t, i] − A[T−1, i])``; at least 0."""
        rows = self._whole(2)
        return float((np.nan_to_num(rows).max(axis=0) - rows[-1])[:-1].mean())

    @property
    def backward_transfer(self) -> float:
        """``mean_{i<T−1} (A[T−1, i] − A[i, i])``; negative where old experiences were lost."""
        rows = self._whole(2)
        return float((rows[-1] - rows.diagonal())[:-1].mean())

    @property
    def forward_transfer(self) -> float:
        """``mean_{i≥1} (A[i−1, i] − R[i])``: what an experience gains before it is seen."""
        rows = self._whole(2)
        if self.random is None:
            raise ProbeError("forward transfer compares with a random network: pass random=…")
        gains = rows.diagonal(1) - np.array(self.random[1:])
        if np.isnan(gains).any():
            raise ProbeError(
                "forward transfer needs the accuracy on experiences that are still to come, which "
                "this protocol does not measure"
            )
        return float(gains.mean())

    def _whole(self, least: int = 1) -> np.ndarray:
        if not self.complete:
            raise ProbeError(
                f"the run is partial: {len(self.rows)} of {self.n_experiences} experiences; "
                "average_accuracy and continual_accuracy are defined on part of it"
            )
        return self._needs(least)

    def _needs(self, least: int) -> np.ndarray:
        if len(self.rows) < least:
            raise ProbeError(f"this needs {least} experiences, there are {len(self.rows)}")
        return np.array(self.rows, dtype=np.float64)

    def _checked(
        self, accuracies: Sequence[float], what: str, seen: float = math.inf
    ) -> list[float]:
        row = [float(a) for a in accuracies]
        if len(row) != self.n_experiences:
            raise ProbeError(
                f"{what}: expected {self.n_experiences} accuracies, one per experience (also of "
                f"those to come), got {len(row)}"
            )
        outside = [
            a for i, a in enumerate(row) if not (0 <= a <= 1 or (math.isnan(a) and i > seen))
        ]
        if outside:
            raise ProbeError(f"{what}: {outside[0]} is no accuracy: expected shares in [0, 1]")
        return row
