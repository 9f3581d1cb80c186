"""Intervals against scipy's, and verdicts that few seeds must not give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from solo_bridge.study.statistics import (
    ABOVE,
    BELOW,
    UNDECIDED,
    bootstrap,
    claim,
    holm,
    mean_and_deviation,
    ordering,
    paired,
)

GENERATOR = np.random.default_rng(3)


@pytest.mark.parametrize("n", [2, 4, 9])
def test_the_bootstrap_is_scipys(n: int) -> None:
    values = GENERATOR.normal(size=n)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    spread = values.std() + 1e-9
    assert bootstrap(values) == pytest.approx((theirs.low, theirs.high), abs=0.05 * spread)


def test_mean_and_deviation() -> None:
    values = [0.1, 0.4, 0.2, 0.9]
    assert mean_and_deviation(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert mean_and_deviation([0.25]) == (0.25, None)


def test_seeds_are_paired() -> None:
    found = paired({0: 0.5, 1: 0.7, 2: 0.9, 7: 0.0}, {2: 0.8, 1: 0.59, 0: 0.4, 9: 1.0})
    assert found is not None
    assert (found.seeds, found.verdict) == (3, ABOVE)
    assert found.mean == pytest.approx(0.31 / 3)
    assert paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.1], UNDECIDED),
        ([0.1, 0.1], UNDECIDED),  # two seeds decide nothing
        ([0.1, 0.11, 0.12], ABOVE),
        ([-0.1, -0.11, -0.12], BELOW),
        ([0.01, 0.1, 0.2], UNDECIDED),  # the bootstrap leaves out zero, Student does not
        ([-0.01, 0.1, 0.12, 0.14], UNDECIDED),
        ([0.0, 0.0, 0.0], UNDECIDED),
        ([0.1, 0.1, 0.1], UNDECIDED),  # nothing is known of how much they vary
    ],
)
def test_a_verdict_needs_both_intervals_and_three_seeds(
    differences: list[float], verdict: str
) -> None:
    found = paired(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))
    assert found is not None and found.verdict == verdict
    if len(differences) >= 3 and verdict != UNDECIDED:
        assert stats.ttest_1samp(differences, 0).pvalue < 0.05


def test_an_ordering_has_only_what_the_seeds_support() -> None:
    low = {0: 0.1, 1: 0.2, 2: 0.3}
    high = {s: v + 0.5 + 0.001 * s for s, v in low.items()}  # p 1e-6, tripled
    between = {0: 0.6, 1: 0.2, 2: 0.7}
    assert ordering({"high": high, "low": low}) == "low < high"
    assert ordering({"high": high, "between": between, "low": low}) == "low < high"
    assert ordering({"between": between, "low": low}) == UNDECIDED
    assert claim({"high": high, "low": low}, ["low", "high"]) == "supported"
    assert claim({"high": high, "low": low}, ["high", "low"]) == "contradicted"
    assert claim({"high": high, "between": between}, ["between", "high"]) == "undecided"
    assert claim({"high": high}, ["low", "high"]) == "undecided", "nothing was measured"


def test_many_pairs_need_more_each() -> None:
    """Twelve arms that do not differ: by Holm's method some pair is supported one time in 20."""
    random = np.random.default_rng(0)

    def null() -> dict[str, dict[int, float]]:
        return {str(arm): dict(enumerate(random.normal(size=3))) for arm in range(12)}

    assert sum(ordering(null()) != UNDECIDED for _ in range(60)) <= 6


def test_holm() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []
