"""What a few seeds support: means, paired differences and orderings.

Runs of one seed share stream, initial weights and order of images, so that strategies are compared
seed by seed.  Functions of numbers alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
FEWEST = 3
"""Seeds below which nothing is decided."""
RESAMPLES = 10_000
"""Of the bootstrap, where there are too many to take them all."""
ALL_UP_TO = 6
"""Seeds up to which all resamples are taken: 6 have 46,656."""

ABOVE, BELOW, UNDECIDED = "above", "below", "undecided"


@dataclass(frozen=True)
class Difference:
    """How one strategy differs from another on the same seeds.

    :param mean: of the differences.
    :param low: lower end of the bootstrap interval of the mean (percentile, 95 %).
    :param high: its upper end.
    :param seeds: how many pairs there are.
    :param verdict: :data:`ABOVE` or :data:`BELOW` if the seeds support it, see :func:`paired`.
    """

    mean: float
    low: float
    high: float
    seeds: int
    verdict: str


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation (of a sample, n − 1; None of a single value).

    :param values: at least one.
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Compare two strategies on the seeds that both have.

    The interval is the percentile bootstrap's over seeds.  With three to five of them it is too
    narrow, so a verdict needs Student's interval of the paired differences too: both have to leave
    out zero, and there have to be at least :data:`FEWEST` seeds.

    :param ours: seed → value.
    :param theirs: seed → value.
    :return: None without a common seed.
    """
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return None
    differences = np.array([ours[s] - theirs[s] for s in seeds])
    low, high = bootstrap(differences)
    mean = float(differences.mean())
    verdict = UNDECIDED
    if len(seeds) >= FEWEST:
        margin = _margin(differences)
        if min(low, mean - margin) > 0:
            verdict = ABOVE
        elif max(high, mean + margin) < 0:
            verdict = BELOW
    return Difference(mean, low, high, len(seeds), verdict)


def bootstrap(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the percentile bootstrap's interval of the mean; the same for the same values.

    :param values: at least one.
    """
    given = np.asarray(values, dtype=float)
    n = len(given)
    if n <= ALL_UP_TO:
        chosen = np.array(list(itertools.product(range(n), repeat=n)))
    else:
        chosen = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    tail = (1 - CONFIDENCE) / 2
    means = given[chosen].mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def ordering(values: Mapping[str, Mapping[int, float]]) -> str:
    """Return what the seeds support of an ordering, and nothing else.

    :param values: name → seed → value.
    :return: ``"a < b < c"`` if each pair of neighbours is supported (:func:`paired`); else the
        pairs that are, as in ``"a < b, c"``, or ``"undecided"``.
    """
    names = sorted(values, key=lambda name: mean_and_deviation(list(values[name].values()))[0])
    if claim(values, names) == "supported":
        return " < ".join(names)
    found = []
    for i, lower in enumerate(names):
        pairs = [(name, paired(values[name], values[lower])) for name in names[i + 1 :]]
        higher = [name for name, pair in pairs if pair is not None and pair.verdict == ABOVE]
        if higher:
            found.append(f"{lower} < {', '.join(higher)}")
    return "; ".join(found) or UNDECIDED


def claim(values: Mapping[str, Mapping[int, float]], claimed: Sequence[str]) -> str:
    """Tell what the seeds say of an ordering that somebody claims.

    :param values: name → seed → value.
    :param claimed: names from the lowest to the highest.
    :return: ``"supported"`` if each pair of neighbours is, ``"contradicted"`` if the opposite of
        one is, else ``"undecided"``.
    """
    pairs = [
        paired(values.get(high, {}), values.get(low, {}))
        for low, high in itertools.pairwise(claimed)
    ]
    verdicts = [UNDECIDED if found is None else found.verdict for found in pairs]
    if BELOW in verdicts:
        return "contradicted"
    return "supported" if set(verdicts) == {ABOVE} else "undecided"


def _margin(differences: np.ndarray) -> float:
    n = len(differences)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    return float(quantile * differences.std(ddof=1) / math.sqrt(n))
