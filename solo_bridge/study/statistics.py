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
ROUNDING = 1e-9
"""Differences that vary less are equal."""
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
    :param p: of Student's paired test, 1 where nothing can be said: fewer than :data:`FEWEST`
        seeds, or differences that are all equal, which says nothing of how much they vary.
    """

    mean: float
    low: float
    high: float
    seeds: int
    p: float

    @property
    def verdict(self) -> str:
        """:data:`ABOVE` or :data:`BELOW` if the seeds support it by itself, see :func:`paired`."""
        return self.judged(self.p)

    def judged(self, p: float) -> str:
        """Return the verdict by a probability that is adjusted for other comparisons.

        :param p: at least :attr:`p`.
        """
        if p >= 1 - CONFIDENCE or self.low <= 0 <= self.high:
            return UNDECIDED
        return ABOVE if self.mean > 0 else BELOW


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
    narrow, so a verdict needs Student's paired test too (two-sided, 5 %).

    :param ours: seed → value.
    :param theirs: seed → value.
    :return: None without a common seed.
    """
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return None
    differences = np.array([ours[s] - theirs[s] for s in seeds])
    low, high = bootstrap(differences)
    p = 1.0
    if len(seeds) >= FEWEST and np.ptp(differences) > ROUNDING:
        p = float(stats.ttest_1samp(differences, 0).pvalue)
    return Difference(float(differences.mean()), low, high, len(seeds), p)


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

    All pairs are compared, so probabilities are adjusted by Holm's method (Scandinavian Journal of
    Statistics 6, 1979): if nothing differed, one of twenty orderings would have any pair.

    :param values: name → seed → value.
    :return: ``"a < b < c"`` if each pair is supported; else the pairs that are, as in
        ``"a < b, c"``, or ``"undecided"``.
    """
    names = sorted(values, key=lambda name: mean_and_deviation(list(values[name].values()))[0])
    pairs = {}
    for lower, higher in itertools.combinations(names, 2):
        pair = paired(values[higher], values[lower])
        if pair is not None:
            pairs[lower, higher] = pair
    adjusted = holm([pair.p for pair in pairs.values()])
    above: dict[str, list[str]] = {}
    for ((lower, higher), pair), p in zip(pairs.items(), adjusted, strict=True):
        verdict = pair.judged(p)
        if verdict != UNDECIDED:
            low, high = (lower, higher) if verdict == ABOVE else (higher, lower)
            above.setdefault(low, []).append(high)
    if all(above.get(name) == names[i + 1 :] for i, name in enumerate(names[:-1])):
        return " < ".join(names)
    return "; ".join(f"{low} < {', '.join(highs)}" for low, highs in above.items()) or UNDECIDED


def holm(p: Sequence[float]) -> list[float]:
    """Return probabilities adjusted by Holm's method.

    :param p: of several tests.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, largest = [1.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


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
