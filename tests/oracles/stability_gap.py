"""Continual evaluation, restated over one iteration at a time."""

from __future__ import annotations

import math
from typing import Any

Rows = list[tuple[int, int, list[float]]]
"""(iteration, experience, accuracies) of each measurement."""


def _values(rows: Rows, i: int) -> list[tuple[int, int, float]]:
    """(iteration, experience, accuracy) of test experience i, where it was measured."""
    return [(t, e, row[i]) for t, e, row in rows if not math.isnan(row[i])]


def _ended(rows: Rows, i: int) -> int:
    """Last iteration of experience i."""
    end = -1
    for t, e, _ in rows:
        if e <= i:
            end = t
    return end


def min_acc(rows: Rows) -> float | None:
    total, count = 0.0, 0
    current = rows[-1][1]
    for i in range(len(rows[0][2])):
        if i >= current:
            continue
        least = None
        for t, _, a in _values(rows, i):
            if t > _ended(rows, i) and (least is None or a < least):
                least = a
        if least is not None:
            total, count = total + least, count + 1
    return total / count if count else None


def wc_acc(rows: Rows) -> float | None:
    _, current, last = rows[-1]
    if current >= len(last) or math.isnan(last[current]):
        return None
    if current == 0:
        return last[0]
    least = min_acc(rows)
    seen = current + 1
    return None if least is None else (last[current] + (seen - 1) * least) / seen


def windowed(rows: Rows, window: int, sign: int) -> float | None:
    found = []
    for i in range(len(rows[0][2])):
        by_iteration = {t: a for t, e, a in _values(rows, i) if e >= i}  # the later one stays
        series = [by_iteration[t] for t in sorted(by_iteration)]
        if len(series) < 2:
            continue
        largest = 0.0
        for start in range(len(series)):
            part = series[start : start + window]
            for m in range(len(part)):
                for n in range(m + 1, len(part)):
                    largest = max(largest, sign * (part[n] - part[m]))
        found.append(largest)
    return sum(found) / len(found) if found else None


def gaps(rows: Rows) -> list[tuple[Any, ...]]:
    """(new experience, old one, accuracy before, lowest, depth, recovery)."""
    found = []
    for k in range(1, rows[-1][1] + 1):
        begin = _ended(rows, k - 1)
        for i in range(min(k, len(rows[0][2]))):
            before = None
            for t, _, a in _values(rows, i):
                if t <= begin:
                    before = a
            during = [(t, a) for t, e, a in _values(rows, i) if e == k and t > begin]
            if before is None or not during:
                continue
            lowest = min(a for _, a in during)
            recovery = None
            reached = False
            for t, a in during:
                reached = reached or a == lowest
                if reached and a >= before and recovery is None:
                    recovery = t - begin
            if lowest >= before:
                recovery = 0
            found.append((k, i, before, lowest, max(0.0, before - lowest), recovery))
    return found
