"""Continual evaluation: what accuracies that were measured during training say.

De Lange, van de Ven, Tuytelaars, arXiv 2205.13452.  Notation: t counts the
iterations of the whole stream; a_i(t) is the accuracy on test experience i,
measured at some of them; T_k is the last measured iteration of experience k;
experiences are counted from 0, and k is the one in training at the last
measurement.  Two measurements of one iteration are one network, where an
experience ends and where the next begins: the later one counts.  NaN: not measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avalanche_branchtune.errors import ProbeError


@dataclass
class Trace:
    """Accuracies during training: continual evaluation.

    :param iterations: training iterations at which was measured, rising; equal
        only where one experience ends and the next begins.
    :param accuracies: at each, the accuracy on every test experience; NaN
        where it is not measured.
    :param experiences: at each, the index of the experience that was trained.
    :param probe: name of the probe.
    :param protocol: how the accuracies were made.

    Example::

        >>> from avalanche_branchtune.evaluation import Trace, stability_gap
        >>> nan = float("nan")  # experience 1 is not measured before it begins
        >>> trace = Trace([10, 20, 30], [[0.75, nan], [0.25, 0.5], [0.5, 1.0]], [0, 1, 1])
        >>> stability_gap(trace).windowed_plasticity  # mean of 0.5 − 0.25 and 1.0 − 0.5
        0.375
    """

    iterations: list[int] = field(default_factory=list)
    accuracies: list[list[float]] = field(default_factory=list)
    experiences: list[int] = field(default_factory=list)
    probe: str = ""
    protocol: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """What training on a new experience did, for a while, to an earlier one.

    :param experience: index of the new experience.
    :param test: index of the earlier one, on whose test data was measured.
    :param before: accuracy of the network with which the new experience began.
    :param lowest: smallest accuracy during it.
    :param recovery: iterations from its beginning until the accuracy was
        ``before`` again, after the smallest one; 0 if it never fell, None if it
        did not come back within the experience.

    Example::

        >>> from avalanche_branchtune.evaluation.traces import Gap
        >>> Gap(experience=1, test=0, before=0.75, lowest=0.25, recovery=20).depth
        0.5
        >>> Gap(experience=1, test=0, before=0.75, lowest=0.875, recovery=0).depth
        0.0
    """

    experience: int
    test: int
    before: float
    lowest: float
    recovery: int | None

    @property
    def depth(self) -> float:
        """``max(0, before − lowest)``."""
        return max(0.0, self.before - self.lowest)


@dataclass(frozen=True)
class StabilityGap:
    """Worst-case numbers of a trace; None where there is nothing to measure them on.

    :param min_acc: see :func:`average_minimum_accuracy`.
    :param wc_acc: see :func:`worst_case_accuracy`.
    :param windowed_forgetting: see :func:`windowed_forgetting`.
    :param windowed_plasticity: see :func:`windowed_plasticity`.
    :param window: measurements in a window.
    :param gaps: see :func:`gaps`.

    Example::

        >>> from avalanche_branchtune.evaluation import Trace, stability_gap
        >>> rows = [[0.5, 0.0], [0.75, 0.0], [0.25, 0.5], [0.75, 1.0]]
        >>> measured = stability_gap(Trace([0, 10, 20, 30], rows, [0, 0, 1, 1]), window=2)
        >>> measured.mean_depth, measured.window
        (0.5, 2)
        >>> measured.windowed_forgetting, measured.windowed_plasticity
        (0.25, 0.5)
    """

    min_acc: float | None
    wc_acc: float | None
    windowed_forgetting: float | None
    windowed_plasticity: float | None
    window: int
    gaps: tuple[Gap, ...]

    @property
    def mean_depth(self) -> float | None:
        """Mean depth of the gaps."""
        return _mean([g.depth for g in self.gaps])


def stability_gap(trace: Trace, *, window: int = 10) -> StabilityGap:
    """Read all worst-case numbers from a trace.

    :param trace: accuracies during training.
    :param window: Δ, in measurements, 2 or more.
    :return: the numbers.
    :raises ProbeError: see :func:`check_trace`; for a smaller window.

    Example::

        >>> from avalanche_branchtune.evaluation import Trace, stability_gap
        >>> rows = [[0.5, 0.0], [0.75, 0.0], [0.25, 0.5], [0.75, 1.0]]
        >>> measured = stability_gap(Trace([0, 10, 20, 30], rows, [0, 0, 1, 1]))
        >>> measured.min_acc, measured.wc_acc
        (0.25, 0.625)
        >>> measured.gaps
        (Gap(experience=1, test=0, before=0.75, lowest=0.25, recovery=20),)
    """
    check_trace(trace)
    return StabilityGap(
        average_minimum_accuracy(trace),
        worst_case_accuracy(trace),
        windowed_forgetting(trace, window),
        windowed_plasticity(trace, window),
        window,
        tuple(gaps(trace)),
    )


def average_minimum_accuracy(trace: Trace) -> float | None:
    """Return min-ACC: ``mean_{i<k} min_{t > T_i} a_i(t)``.

    Authors' code: Mattdl/ContinualEvaluation 7ffa368, src/eval/continual_eval_metrics.py,
    TaskTrackingMINAccuracyPluginMetric.

    :param trace: accuracies during training.
    :return: the mean over earlier experiences that were measured after they
        were trained; None if there is none.

    Example::

        >>> from avalanche_branchtune.evaluation.traces import Trace, average_minimum_accuracy
        >>> rows = [[0.5, 0.0], [0.75, 0.0], [0.25, 0.5], [0.75, 1.0]]
        >>> average_minimum_accuracy(Trace([0, 10, 20, 30], rows, experiences=[0, 0, 1, 1]))
        0.25
    """
    a, t, e = _arrays(trace)
    minima = []
    for i in range(min(int(e[-1]), a.shape[1])):
        later = _measured(a[t > _end(t, e, i), i])
        if len(later):
            minima.append(float(later.min()))
    return _mean(minima)


def worst_case_accuracy(trace: Trace) -> float | None:
    """Return WC-ACC at the last measurement: ``a_k(t) / n + (1 − 1/n) min-ACC``, n = k + 1.

    Authors' code: Mattdl/ContinualEvaluation 7ffa368, src/eval/continual_eval_metrics.py,
    WCACCPluginMetric.

    :param trace: accuracies during training.
    :return: the weighted mean; a_k(t) alone in the first experience; None if
        a_k(t) or min-ACC was not measured.

    Example::

        >>> from avalanche_branchtune.evaluation.traces import Trace, worst_case_accuracy
        >>> rows = [[0.5, 0.0], [0.75, 0.0], [0.25, 0.5], [0.75, 1.0]]
        >>> worst_case_accuracy(Trace([0, 10, 20, 30], rows, [0, 0, 1, 1]))  # 1.0 / 2 + 0.25 / 2
        0.625
    """
    a, _, e = _arrays(trace)
    k = int(e[-1])
    if k >= a.shape[1] or math.isnan(a[-1, k]):
        return None
    if k == 0:
        return float(a[-1, 0])
    least = average_minimum_accuracy(trace)
    return None if least is None else float(a[-1, k]) / (k + 1) + least * k / (k + 1)


def windowed_forgetting(trace: Trace, window: int = 10) -> float | None:
    """Return WF^Δ: ``mean_i max_w max_{m<n in w} (a_i(m) − a_i(n))``, at least 0.

    The windows w are of Δ measurements of experience i that follow each other,
    from where its training begins.

    Authors' code: Mattdl/ContinualEvaluation 7ffa368, src/eval/continual_eval_metrics.py,
    WindowedForgettingPluginMetric; Δ: main.py, which has 10 and 100.

    :param trace: accuracies during training.
    :param window: Δ, in measurements.
    :return: the mean over test experiences that were measured twice; None if
        there is none.

    Example::

        >>> from avalanche_branchtune.evaluation.traces import Trace, windowed_forgetting
        >>> trace = Trace([0, 10, 20], [[0.75], [0.5], [0.25]], experiences=[0, 0, 0])
        >>> windowed_forgetting(trace, window=2), windowed_forgetting(trace, window=3)
        (0.25, 0.5)
    """
    return _windowed(trace, window, -1)


def windowed_plasticity(trace: Trace, window: int = 10) -> float | None:
    """Return WP^Δ: ``mean_i max_w max_{m<n in w} (a_i(n) − a_i(m))``, at least 0.

    Authors' code: Mattdl/ContinualEvaluation 7ffa368, src/eval/continual_eval_metrics.py,
    WindowedPlasticityPluginMetric.
    Differs: theirs leaves out each m that is lower than an earlier one in the window, ours takes
    all, as the paper's formula.

    :param trace: accuracies during training.
    :param window: Δ, in measurements, see :func:`windowed_forgetting`.
    :return: the mean over test experiences that were measured twice; None if
        there is none.

    Example::

        >>> from avalanche_branchtune.evaluation.traces import Trace, windowed_plasticity
        >>> trace = Trace([0, 10, 20], [[0.25], [0.375], [0.75]], experiences=[0, 0, 0])
        >>> windowed_plasticity(trace, window=2), windowed_plasticity(trace, window=3)
        (0.375, 0.5)
    """
    return _windowed(trace, window, 1)


def gaps(trace: Trace) -> list[Gap]:
    """Return the stability gap of every earlier experience in every new one.

    ``before`` is the last accuracy up to the iteration at which the experience
    before ended; ``lowest`` and ``recovery`` are of the new experience's later
    measurements.

    :param trace: accuracies during training.
    :return: in the order of experiences, then of test experiences; pairs that
        were not measured both before and during are left out.

    Example::

        >>> from avalanche_branchtune.evaluation.traces import Trace, gaps
        >>> rows = [[0.5, 0.0], [0.75, 0.0], [0.25, 0.5], [0.5, 1.0]]
        >>> gaps(Trace([0, 10, 20, 30], rows, experiences=[0, 0, 1, 1]))
        [Gap(experience=1, test=0, before=0.75, lowest=0.25, recovery=None)]
    """
    a, t, e = _arrays(trace)
    found = []
    for k in sorted({int(x) for x in e} - {0}):
        begin = _end(t, e, k - 1)
        for i in range(min(k, a.shape[1])):
            before = _measured(a[t <= begin, i])
            during = (e == k) & (t > begin) & ~np.isnan(a[:, i])
            if len(before) and during.any():
                found.append(_gap(k, i, float(before[-1]), a[during, i], t[during] - begin))
    return found


def check_trace(trace: Trace) -> None:
    """Refuse what is no trace.

    :param trace: accuracies during training.
    :raises ProbeError: for lists of unequal lengths, no measurements,
        iterations or experiences that do not rise, and accuracies outside [0, 1].

    Example::

        >>> from avalanche_branchtune.evaluation.traces import Trace, check_trace
        >>> check_trace(Trace([10, 20], [[0.5], [0.75]], experiences=[0, 0]))
        >>> check_trace(Trace([10, 20], [[0.5], [75.0]], experiences=[0, 0]))
        Traceback (most recent call last):
            ...
        avalanche_branchtune.errors.ProbeError: trace: measurement 1: 75.0 is no accuracy: ...
    """
    t, rows, e = trace.iterations, trace.accuracies, trace.experiences
    if not len(t) == len(rows) == len(e):
        raise ProbeError(
            f"trace: {len(t)} iterations, {len(rows)} rows of accuracies and {len(e)} "
            "experiences: expected one of each per measurement"
        )
    if not t:
        raise ProbeError("trace: no measurements")
    if e[0] < 0:
        raise ProbeError(f"trace: experience {e[0]}: experiences are counted from 0")
    for j in range(1, len(t)):
        if e[j] < e[j - 1]:
            raise ProbeError(
                f"trace: measurement {j} is of experience {e[j]}, the one before of {e[j - 1]}: "
                "expected the order of training"
            )
        if t[j] < t[j - 1] or (t[j] == t[j - 1] and e[j] == e[j - 1]):
            raise ProbeError(
                f"trace: measurement {j} is of iteration {t[j]}, the one before of {t[j - 1]}: "
                "expected rising iterations, equal only where an experience begins"
            )
    for j, row in enumerate(rows):
        if not row or len(row) != len(rows[0]):
            raise ProbeError(
                f"trace: measurement {j} has {len(row)} accuracies, the first {len(rows[0])}: "
                "expected one per test experience"
            )
        outside = [a for a in row if not (0 <= a <= 1 or math.isnan(a))]
        if outside:
            raise ProbeError(
                f"trace: measurement {j}: {outside[0]} is no accuracy: expected shares in [0, 1]"
            )


def _gap(k: int, i: int, before: float, values: np.ndarray, since: np.ndarray) -> Gap:
    lowest = int(values.argmin())
    recovery: int | None = 0
    if values[lowest] < before:
        back = np.flatnonzero(values[lowest:] >= before)
        recovery = int(since[lowest + back[0]]) if len(back) else None
    return Gap(k, i, before, float(values[lowest]), recovery)


def _windowed(trace: Trace, window: int, sign: int) -> float | None:
    if window < 2:
        raise ProbeError(f"window={window}: two measurements are needed to see a change")
    a, t, e = _arrays(trace)
    largest = []
    for i in range(a.shape[1]):
        taken = (e >= i) & ~np.isnan(a[:, i])
        times, values = t[taken], a[taken, i]
        last = np.append(times[1:] != times[:-1], True)  # of the measurements of an iteration
        values = values[last[: len(values)]]
        if len(values) < 2:
            continue
        lags = range(1, min(window, len(values)))
        changes = [sign * (values[lag:] - values[:-lag]) for lag in lags]
        largest.append(max(0.0, max(float(c.max()) for c in changes)))
    return _mean(largest)


def _arrays(trace: Trace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return accuracies, iterations and experiences of a trace that is one."""
    check_trace(trace)
    return (
        np.array(trace.accuracies, dtype=np.float64),
        np.array(trace.iterations),
        np.array(trace.experiences),
    )


def _end(t: np.ndarray, e: np.ndarray, i: int) -> int:
    """Return T_i; before the first iteration if nothing was measured until then."""
    return int(t[e <= i].max(initial=-1))


def _measured(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
