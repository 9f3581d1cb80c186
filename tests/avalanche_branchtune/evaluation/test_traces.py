"""The stability gap's numbers."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation import StabilityGap, stability_gap
from avalanche_branchtune.evaluation.traces import Gap, Trace
from tests.oracles import stability_gap as oracle

NAN = math.nan


def random_trace(seed: int) -> Trace:
    draw = random.Random(seed)
    tests, experiences = draw.choice([1, 2, 3, 5]), draw.randint(1, 4)
    trace, t = Trace(), 0
    for e in range(experiences):
        t -= draw.random() < 0.7 and e > 0  # a measurement where the last experience ended
        for _ in range(draw.randint(1, 8)):
            t += 1
            levels = [draw.randint(0, 10) / 10 for _ in range(tests)]  # coarse: there are ties
            unknown = draw.choice([0.0, 0.1, 0.6])
            trace.iterations.append(t)
            trace.experiences.append(e)
            trace.accuracies.append([NAN if draw.random() < unknown else a for a in levels])
            t += draw.choice([0, 0, 4])
    return trace


def close(value: float | None) -> Any:
    return None if value is None else pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("window", [2, 3, 100])
def test_random_traces_against_a_restatement(window: int) -> None:
    seen = {"min_acc": 0, "wc_acc": 0, "recovered": 0, "lost": 0}
    for seed in range(150):
        trace = random_trace(seed)
        rows = list(zip(trace.iterations, trace.experiences, trace.accuracies, strict=True))
        found = stability_gap(trace, window=window)
        assert found.min_acc == close(oracle.min_acc(rows))
        assert found.wc_acc == close(oracle.wc_acc(rows))
        assert found.windowed_forgetting == close(oracle.windowed(rows, window, -1))
        assert found.windowed_plasticity == close(oracle.windowed(rows, window, 1))
        assert [
            (g.experience, g.test, g.before, g.lowest, g.depth, g.recovery) for g in found.gaps
        ] == oracle.gaps(rows)
        seen["min_acc"] += found.min_acc is not None
        seen["wc_acc"] += found.wc_acc is not None
        seen["recovered"] += any(g.recovery for g in found.gaps)
        seen["lost"] += any(g.recovery is None for g in found.gaps)
    assert min(seen.values()) > 20  # the traces are not all of one kind


# Experience 0: iterations 0 to 10; experience 1: 10 (the same network) to 30.
DIP = Trace(
    [0, 5, 10, 10, 11, 12, 20, 30],
    [
        [0.1, NAN],
        [0.5, NAN],
        [0.8, NAN],
        [0.7, 0.2],
        [0.3, 0.4],
        [0.4, 0.5],
        [0.7, 0.5],
        [0.6, 0.9],
    ],
    [0, 0, 0, 1, 1, 1, 1, 1],
)


def test_by_hand() -> None:
    found = stability_gap(DIP, window=2)
    assert found == StabilityGap(
        min_acc=0.3,
        wc_acc=pytest.approx((0.9 + 0.3) / 2),
        # One step, of 0.1 0.5 0.7 0.3 0.4 0.7 0.6 and 0.2 0.4 0.5 0.5 0.9:
        windowed_forgetting=pytest.approx((0.4 + 0.0) / 2),
        windowed_plasticity=pytest.approx((0.4 + 0.4) / 2),
        window=2,
        gaps=(Gap(experience=1, test=0, before=0.7, lowest=0.3, recovery=10),),
    )
    assert found.gaps[0].depth == found.mean_depth == pytest.approx(0.4)
    longer = stability_gap(DIP, window=4)
    assert longer.windowed_forgetting == pytest.approx((0.4 + 0.0) / 2)
    assert longer.windowed_plasticity == pytest.approx((0.6 + 0.5) / 2)  # 0.1 → 0.7, 0.4 → 0.9


def test_recovery_of_nothing_and_never() -> None:
    def gap(values: list[float]) -> Gap:
        t = list(range(len(values)))
        trace = Trace(t, [[v] for v in values], [0] + [1] * (len(values) - 1))
        return stability_gap(trace).gaps[0]

    assert (gap([0.5, 0.5, 0.9]).depth, gap([0.5, 0.5, 0.9]).recovery) == (0.0, 0)
    assert gap([0.5, 0.4, 0.49]).recovery is None
    assert gap([0.5, 0.4, 0.5]).recovery == 2
    assert gap([0.5, 0.4, 0.6, 0.3, 0.4, 0.5]).recovery == 5  # after the lowest


def test_first_experience_has_no_past() -> None:
    found = stability_gap(Trace([0, 1], [[0.2, 0.9], [0.6, 0.1]], [0, 0]))
    assert (found.min_acc, found.wc_acc, found.gaps, found.mean_depth) == (None, 0.6, (), None)
    # Experience 1 is still to come: what happens to it is neither forgetting nor plasticity.
    assert found.windowed_forgetting == 0.0
    assert found.windowed_plasticity == pytest.approx(0.4)


def test_one_test_set_for_all_experiences() -> None:
    found = stability_gap(Trace([0, 1, 2, 3], [[0.2], [0.6], [0.5], [0.7]], [0, 0, 1, 1]))
    assert (found.min_acc, found.wc_acc) == (0.5, None)


def test_trace_of_long_training_is_quick() -> None:
    n = 20_000
    trace = Trace(list(range(n)), [[(i * 7 % 100) / 100] * 5 for i in range(n)], [0] * n)
    assert stability_gap(trace, window=100).windowed_forgetting == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (Trace(), "no measurements"),
        (Trace([0, 1], [[0.5]], [0]), "2 iterations, 1 rows"),
        (Trace([1, 0], [[0.5], [0.5]], [0, 0]), "rising iterations"),
        (Trace([1, 1], [[0.5], [0.5]], [0, 0]), "rising iterations"),
        (Trace([2, 1], [[0.5], [0.5]], [0, 1]), "rising iterations"),
        (Trace([0, 1], [[0.5], [0.5]], [1, 0]), "order of training"),
        (Trace([0], [[0.5]], [-1]), "counted from 0"),
        (Trace([0, 1], [[0.5], [0.5, 0.5]], [0, 0]), "2 accuracies, the first 1"),
        (Trace([0], [[]], [0]), "one per test experience"),
        (Trace([0], [[1.01]], [0]), "1.01 is no accuracy"),
        (Trace([0], [[-0.01]], [0]), "-0.01 is no accuracy"),
        (Trace([0], [[math.inf]], [0]), "inf is no accuracy"),
    ],
)
def test_what_is_no_trace(trace: Trace, said: str) -> None:
    with pytest.raises(ProbeError, match=said):
        stability_gap(trace)


def test_window_of_one() -> None:
    with pytest.raises(ProbeError, match="window=1"):
        stability_gap(DIP, window=1)


def test_trace_stays_where_records_import_it_from() -> None:
    from avalanche_branchtune import records, report

    assert records.Trace is report.Trace is Trace
