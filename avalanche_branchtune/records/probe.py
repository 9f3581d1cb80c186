"""What one probe found in a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from avalanche_branchtune.evaluation.matrix import AccuracyMatrix


@dataclass
class ProbeRecord:
    """What one probe found in a run.

    :param protocol: how the accuracies were made; runs are averaged or
        compared only where all of it agrees.
    :param accuracies: A[t, i] in [0, 1], a row per finished training
        experience, a column per test experience; None where the protocol
        does not measure it (classes not seen yet).
    :param overall: after each experience, the accuracy on the test samples of
        all measured experiences together.
    :param random: R[i] of the network before any training.
    :param random_overall: the same on all test samples together.
    """

    protocol: dict[str, Any]
    accuracies: list[list[float | None]] = field(default_factory=list)
    overall: list[float] = field(default_factory=list)
    random: list[float | None] | None = None
    random_overall: float | None = None

    def matrix(self, n_experiences: int) -> AccuracyMatrix:
        """Return the accuracy matrix.

        :param n_experiences: T, the number of training experiences; a stream
            with one common test set (data-incremental) gets equal columns.
        :raises ProbeError: if neither is one and they differ.
        """
        rows = [_columns(row, n_experiences) for row in self.accuracies]
        known = self.random is not None and None not in self.random
        random = _columns(self.random or [], n_experiences) if known else None
        matrix = AccuracyMatrix(n_experiences, random)
        for row in rows:
            matrix.add(row)
        return matrix

    def summary(self, n_experiences: int) -> dict[str, float]:
        """Return the numbers of the matrix that this run has and its stream gives a meaning.

        :param n_experiences: T, the number of training experiences.
        :return: of ``final_accuracy``, ``continual_accuracy``, ``forgetting``,
            ``backward_transfer`` and ``forward_transfer`` those that are
            defined: none but ``continual_accuracy`` on a partial run, only the
            first two where all experiences share one test set, only the first
            where everything was learnt at once.
        """
        if not self.accuracies:
            return {}
        tests = len(self.accuracies[0])
        if tests not in (1, n_experiences):  # joint training, or another stream's experiences
            complete = len(self.accuracies) == n_experiences
            return {"final_accuracy": _mean(self.accuracies[-1])} if complete else {}
        matrix, found = self.matrix(n_experiences), {}
        names = ["continual_accuracy"]
        if matrix.complete:
            names.insert(0, "final_accuracy")
            if tests > 1:
                names += ["forgetting", "backward_transfer"]
                unseen = matrix.rows[0][-1]
                if matrix.random is not None and not math.isnan(unseen):
                    names.append("forward_transfer")
        for name in names:
            found[name] = float(getattr(matrix, name))
        return found


def _columns(row: Sequence[float | None], n_experiences: int) -> list[float]:
    values = [math.nan if a is None else a for a in row]
    return values * n_experiences if len(values) == 1 else values


def _mean(row: Sequence[float | None]) -> float:
    values = [a for a in row if a is not None]
    return sum(values) / len(values)
