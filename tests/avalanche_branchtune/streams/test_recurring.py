"""Classes that come back, by schedules whose counts are checked against closed forms."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations, pairwise
from math import sqrt

import pytest

from avalanche_branchtune.errors import EmptyExperienceError, LabelError, UnknownOptionError
from avalanche_branchtune.streams import (
    power_law_revisits,
    power_law_schedule,
    recurring,
    sparse_classes,
    sparse_schedule,
    superclass_incremental,
    superclass_order,
)

DATA = [(f"image {i}", i % 5) for i in range(30)]
TEST = [(f"test image {i}", i % 5) for i in range(10)]


def names(experience: object) -> list[str]:
    return [item[0] for item in experience.dataset]  # type: ignore[attr-defined]


def test_every_sparse_subset_is_as_likely() -> None:
    times = 6000
    counts = Counter(map(tuple, sparse_schedule([3, 5, 7, 9], times, 2, seed=1)))
    assert sorted(counts) == list(combinations([3, 5, 7, 9], 2))
    share = 1 / 6
    deviation = sqrt(times * share * (1 - share))
    assert max(abs(count - times * share) for count in counts.values()) < 4 * deviation
    assert sparse_schedule(range(9), 20, 3) != sparse_schedule(range(9), 20, 3, seed=1)
    for wrong in (0, 5):
        with pytest.raises(UnknownOptionError, match="expected 1 to 4"):
            sparse_schedule(range(4), 2, wrong)


def test_waiting_times_follow_the_power_law() -> None:
    longest, exponent, length = 12, 1.5, 100
    schedule = power_law_schedule(range(400), length, exponent, introduced=40, longest=longest)
    waits: list[int] = []
    for label in range(400):
        visits = [t for t, present in enumerate(schedule) if label in present]
        # Of those that begin so late that the end cuts long ones off, none counts.
        waits += [b - a for a, b in pairwise(visits) if a < length - longest]
    weights = {w: w**-exponent for w in range(1, longest + 1)}
    found = Counter(waits)
    assert len(waits) > 5000 and max(found) <= longest
    for wait, weight in weights.items():
        share = weight / sum(weights.values())
        deviation = sqrt(len(waits) * share * (1 - share))
        assert abs(found[wait] - len(waits) * share) < 4 * deviation, wait


def test_new_classes_come_evenly_and_no_experience_is_empty() -> None:
    schedule = power_law_schedule(range(6), 60, 3.0, introduced=30, longest=50, seed=2)
    first = [next(t for t, s in enumerate(schedule) if c in s) for c in range(6)]
    assert sorted(first) == [0, 5, 10, 15, 20, 25]
    rare = power_law_schedule(range(2), 50, 0.1, longest=50, seed=3)
    assert all(rare) and all(present == sorted(set(present)) for present in rare)
    assert {c for present in rare[:25] for c in present} == set(rare[0]), "the second comes later"
    with pytest.raises(UnknownOptionError, match="introduced"):
        power_law_schedule(range(6), 10, 1.0, introduced=11)
    with pytest.raises(UnknownOptionError, match="exponent"):
        power_law_schedule(range(6), 10, 0.0)


def test_all_images_come_each_time_or_each_once() -> None:
    schedule = [[0, 1], [1, 2], [1], [3, 4, 0]]
    stream = recurring(DATA, TEST, schedule).train_stream
    for experience, present in zip(stream, schedule, strict=True):
        assert names(experience) == [name for name, label in DATA if label in present]
    shared = recurring(DATA, TEST, schedule, images="share")
    everything = [name for e in shared.train_stream for name in names(e)]
    assert sorted(everything) == sorted(name for name, _ in DATA), "each once"
    assert [len(e.dataset) for e in shared.train_stream] == [3 + 2, 2 + 6, 2, 6 + 6 + 3]
    assert [sorted(e.classes_in_this_experience) for e in shared.train_stream] == [
        sorted(present) for present in schedule
    ]
    assert [e.classes_seen_so_far for e in shared.train_stream][1:3] == [{0, 1, 2}] * 2
    assert [names(e) for e in shared.test_stream] == [[name for name, _ in TEST]]
    other = recurring(DATA, TEST, schedule, images="share", seed=1)
    assert names(other.train_stream[0]) != names(shared.train_stream[0])


@pytest.mark.parametrize(
    ("schedule", "options", "error", "message"),
    [
        ([], {}, EmptyExperienceError, "no experience"),
        ([[0], []], {}, EmptyExperienceError, "experience 1 has no class"),
        ([[0, 0]], {}, UnknownOptionError, "a class twice"),
        ([[0, 9]], {}, LabelError, r"classes \[9\]"),
        ([[0]] * 7, {"images": "share"}, EmptyExperienceError, "class 0 comes 7 times and has 6"),
        ([[0]], {"images": "some"}, UnknownOptionError, "all, share"),
    ],
)
def test_what_cannot_be_a_stream_is_refused(
    schedule: list[list[int]], options: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        recurring(DATA, TEST, schedule, **options)  # type: ignore[arg-type]


def test_a_long_stream_is_its_schedule() -> None:
    benchmark = sparse_classes(DATA, TEST, 300, 2, seed=4)
    drawn = sparse_schedule(range(5), 300, 2, seed=4)
    assert benchmark.recipe["schedule"] == drawn
    assert [sorted(e.classes_in_this_experience) for e in benchmark.train_stream] == drawn
    benchmark = power_law_revisits(DATA, TEST, 40, 1.2, introduced=5, seed=4)
    assert benchmark.recipe["schedule"] == power_law_schedule(
        range(5), 40, 1.2, introduced=5, seed=4
    )


def test_superclasses_stay_together() -> None:
    data = [(f"image {i}", i % 12) for i in range(24)]
    superclasses = {"a": [0, 5], "b": [1, 2, 3, 4], "c": [6, 7, 8], "d": [9, 10, 11]}
    benchmark = superclass_incremental(data, data, 2, superclasses, seed=1)
    sides = [set(e.classes_in_this_experience) for e in benchmark.train_stream]
    for classes in superclasses.values():
        assert sum(set(classes) <= side for side in sides) == 1
    order = superclass_order(superclasses, seed=1)
    assert benchmark.class_order == [label for classes in order for label in classes]
    assert superclass_order(superclasses, seed=1) == order != superclass_order(superclasses)
    with pytest.raises(UnknownOptionError, match=re.escape("one of 1, 2, 4; got 3")):
        superclass_incremental(data, data, 3, superclasses)
    with pytest.raises(LabelError, match="class 0 is in 'a' and in 'b'"):
        superclass_order({"a": [0], "b": [0]})
    with pytest.raises(LabelError, match="'b' has no classes"):
        superclass_order({"a": [0], "b": []})
    with pytest.raises(LabelError, match=r"classes \[2, 3, 4, 5, 6\] are in a superclass or"):
        superclass_incremental(data, data, 1, {"a": [0, 1]})
