"""Streams in which classes come back, and the schedules that say which class comes when.

A schedule is a list of the classes of each experience.  :func:`sparse_schedule` and
:func:`power_law_schedule` draw one; :func:`recurring` makes a stream of any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from avalanche.benchmarks import CLScenario

from avalanche_branchtune.errors import EmptyExperienceError, LabelError, UnknownOptionError
from avalanche_branchtune.options import at_least_one, one_of, positive
from avalanche_branchtune.streams.building import (
    Transform,
    benchmark_of,
    check_classes,
    check_names,
    converted,
    shuffled,
    with_recipe,
)
from avalanche_branchtune.streams.labels import MapDataset, find_labels

__all__ = [
    "power_law_revisits",
    "power_law_schedule",
    "recurring",
    "sparse_classes",
    "sparse_schedule",
]

IMAGES = ("all", "share")


def sparse_schedule(
    classes: Sequence[int], n_experiences: int, per_experience: int, *, seed: int = 0
) -> list[list[int]]:
    """Draw the classes of each experience anew: a sparse random subset of all, as in SCoLe.

    Lesort et al., "Challenging Common Assumptions about Catastrophic Forgetting", arXiv 2207.04543:
    long sequences of such experiences, of 2 of 10 classes for example.  An experience's classes
    differ from each other, and every subset is as likely.

    :param classes: all classes.
    :param n_experiences: length of the stream.
    :param per_experience: classes of an experience.
    :param seed: decides on the classes; a longer schedule begins as a shorter one.
    :return: the classes of each experience, sorted.
    :raises UnknownOptionError: for numbers out of range.

    Example::

        >>> from avalanche_branchtune.streams import sparse_schedule
        >>> schedule = sparse_schedule(range(10), 1000, 2)
        >>> len(schedule), {len(set(classes)) for classes in schedule}
        (1000, {2})
        >>> sparse_schedule(range(10), 3, 2) == schedule[:3]
        True
    """
    at_least_one("sparse_schedule(n_experiences=…)", n_experiences)
    if not 1 <= per_experience <= len(classes):
        raise UnknownOptionError(
            f"sparse_schedule(per_experience=…): expected 1 to {len(classes)}, of as many classes; "
            f"got {per_experience}"
        )
    random = np.random.default_rng(seed)
    return [
        sorted(int(classes[i]) for i in random.choice(len(classes), per_experience, replace=False))
        for _ in range(n_experiences)
    ]


def power_law_schedule(
    classes: Sequence[int],
    n_experiences: int,
    exponent: float,
    *,
    introduced: int | None = None,
    longest: int | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """Let each class come, and come back after waiting times that follow a power law.

    A class that has come comes again w = 1, 2 … ``longest`` experiences later, with a probability
    proportional to ``w ** -exponent``: mostly soon, sometimes after very long.  Each waits by
    itself, so that experiences have more or fewer classes.  One that would have none has one of
    those that came before, at random, beside its waiting.

    :param classes: all classes.
    :param n_experiences: length of the stream.
    :param exponent: of the power law; the larger, the sooner classes come back.
    :param introduced: over so many first experiences new classes come, evenly; by default over all.
        All come in the first one with 1.
    :param longest: the longest waiting time; by default ``n_experiences``.
    :param seed: decides on the order of the classes and their waiting times.
    :return: the classes of each experience, sorted.
    :raises UnknownOptionError: for numbers out of range.

    Example::

        >>> from avalanche_branchtune.streams import power_law_schedule
        >>> schedule = power_law_schedule(range(10), 50, exponent=1.5, introduced=10)
        >>> len(schedule), min(map(len, schedule)) > 0
        (50, True)
        >>> sorted(set().union(*schedule[:10])) == list(range(10))  # a new one in each of the first
        True
        >>> power_law_schedule(range(10), 50, exponent=1.5, introduced=10) == schedule
        True
    """
    name = "power_law_schedule({}=…)".format
    at_least_one(name("n_experiences"), n_experiences)
    positive(name("exponent"), exponent)
    introduced = n_experiences if introduced is None else introduced
    longest = n_experiences if longest is None else longest
    at_least_one(name("longest"), longest)
    if not 1 <= introduced <= n_experiences:
        raise UnknownOptionError(
            f"{name('introduced')}: expected 1 to {n_experiences}, the experiences; "
            f"got {introduced}"
        )
    waits = np.arange(1, longest + 1)
    shares = waits.astype(float) ** -exponent
    shares /= shares.sum()
    random = np.random.default_rng(seed)
    schedule: list[set[int]] = [set() for _ in range(n_experiences)]
    first: dict[int, int] = {}
    for number, place in enumerate(shuffled(len(classes), seed)):
        label = int(classes[place])
        now = first[label] = number * introduced // len(classes)
        while now < n_experiences:
            schedule[now].add(label)
            now += int(random.choice(waits, p=shares))
    for now, present in enumerate(schedule):
        if not present:
            present.add(int(random.choice([c for c, begin in first.items() if begin < now])))
    return [sorted(present) for present in schedule]


def recurring(
    train: MapDataset,
    test: MapDataset,
    schedule: Sequence[Sequence[int]],
    *,
    images: str = "all",
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    seed: int = 0,
) -> CLScenario:
    """Make a stream in which each class comes whenever a schedule says.

    :param train: the training data.
    :param test: the test data; the test stream has one experience, of all of them.
    :param schedule: the classes of each experience.
    :param images: ``"all"`` training images of a class come each time, as in SCoLe; or a
        ``"share"``: they are dealt to its times, and none comes twice.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :param seed: shuffles the images before they are dealt.
    :return: the benchmark.
    :raises LabelError: when a sample has no class, or the schedule or ``test`` a class that
        ``train`` lacks; when both have names of classes, and these differ.
    :raises EmptyExperienceError: for an experience without classes, a class without as many images
        as times among which they are to be shared, and data without samples.
    :raises UnknownOptionError: for other ``images``, and a class that is twice in an experience.

    Example::

        >>> from avalanche_branchtune.streams import recurring
        >>> data = [(f"image {i}", i % 2) for i in range(4)]
        >>> benchmark = recurring(data, data, [[0], [0, 1], [1]], images="share")
        >>> [sorted(e.dataset.targets) for e in benchmark.train_stream]
        [[0], [0, 1], [1]]
        >>> images = [item[0] for e in benchmark.train_stream for item in e.dataset]
        >>> sorted(images)
        ['image 0', 'image 1', 'image 2', 'image 3']
        >>> [len(e.dataset) for e in recurring(data, data, [[0], [0, 1]]).train_stream]
        [2, 4]
    """
    one_of("recurring(images=…)", images, IMAGES)
    check_names("recurring", train, test)
    train_data = converted("recurring(train=…)", train)
    test_data = converted("recurring(test=…)", test)
    classes = sorted(train_data.true_targets.uniques)
    check_classes("recurring", "train", train_data, classes)
    check_classes("recurring", "test", test_data, classes)
    plain = [[int(label) for label in present] for present in schedule]
    _check_schedule(plain, classes)
    places: dict[int, list[int]] = {label: [] for label in classes}
    for i, label in enumerate(train_data.true_targets):
        places[label].append(i)
    visits: dict[int, Iterator[list[int]]] = (
        _dealt(places, plain, seed)
        if images == "share"
        else {label: repeat(found) for label, found in places.items()}
    )
    parts = [sorted(i for label in present for i in next(visits[label])) for present in plain]
    benchmark = benchmark_of(
        [train_data.subset(part) for part in parts], [test_data], train_transform, eval_transform
    )
    recipe = {"made by": "recurring", "schedule": plain, "images": images, "seed": seed}
    return with_recipe(benchmark, recipe)


def sparse_classes(
    train: MapDataset,
    test: MapDataset,
    n_experiences: int,
    per_experience: int,
    *,
    images: str = "all",
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    seed: int = 0,
) -> CLScenario:
    """Make a stream of sparse random subsets of classes (SCoLe), see :func:`sparse_schedule`.

    :param train: the training data.
    :param test: the test data, see :func:`recurring`.
    :param n_experiences: length of the training stream.
    :param per_experience: classes of an experience.
    :param images: see :func:`recurring`.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :param seed: decides on the classes.
    :return: the benchmark.
    :raises BranchTuneError: see :func:`sparse_schedule` and :func:`recurring`.

    Example::

        >>> from avalanche_branchtune.streams import sparse_classes
        >>> data = [(f"image {i}", i % 10) for i in range(20)]
        >>> benchmark = sparse_classes(data, data, 100, per_experience=2)
        >>> len(benchmark.train_stream), {len(e.dataset) for e in benchmark.train_stream}
        (100, {4})
    """
    classes = sorted(set(find_labels(train).true))
    schedule = sparse_schedule(classes, n_experiences, per_experience, seed=seed)
    how: dict[str, Any] = {"train_transform": train_transform, "eval_transform": eval_transform}
    return recurring(train, test, schedule, images=images, seed=seed, **how)


def power_law_revisits(
    train: MapDataset,
    test: MapDataset,
    n_experiences: int,
    exponent: float,
    *,
    introduced: int | None = None,
    longest: int | None = None,
    images: str = "all",
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    seed: int = 0,
) -> CLScenario:
    """Make a stream whose classes come back after power-law waiting times.

    :param train: the training data.
    :param test: the test data, see :func:`recurring`.
    :param n_experiences: length of the training stream.
    :param exponent: see :func:`power_law_schedule`.
    :param introduced: see :func:`power_law_schedule`.
    :param longest: see :func:`power_law_schedule`.
    :param images: see :func:`recurring`.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :param seed: decides on the order of the classes and their waiting times.
    :return: the benchmark.
    :raises BranchTuneError: see :func:`power_law_schedule` and :func:`recurring`.

    Example::

        >>> from avalanche_branchtune.streams import power_law_revisits
        >>> data = [(f"image {i}", i % 10) for i in range(20)]
        >>> benchmark = power_law_revisits(data, data, 30, exponent=1.5)
        >>> sorted(benchmark.train_stream[29].classes_seen_so_far)
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    classes = sorted(set(find_labels(train).true))
    schedule = power_law_schedule(
        classes, n_experiences, exponent, introduced=introduced, longest=longest, seed=seed
    )
    how: dict[str, Any] = {"train_transform": train_transform, "eval_transform": eval_transform}
    return recurring(train, test, schedule, images=images, seed=seed, **how)


def _check_schedule(schedule: list[list[int]], classes: list[int]) -> None:
    if not schedule:
        raise EmptyExperienceError("recurring(schedule=…): there is no experience")
    for number, present in enumerate(schedule):
        unknown = sorted(set(present) - set(classes))
        if unknown:
            raise LabelError(
                f"recurring(schedule=…): experience {number} has classes {unknown}, which are not "
                f"among the training classes {classes}"
            )
        if not present:
            raise EmptyExperienceError(
                f"recurring(schedule=…): experience {number} has no class: leave it out"
            )
        if len(set(present)) < len(present):
            raise UnknownOptionError(
                f"recurring(schedule=…): experience {number} has a class twice: {present}"
            )


def _dealt(
    places: dict[int, list[int]], schedule: list[list[int]], seed: int
) -> dict[int, Iterator[list[int]]]:
    """Deal the images of each class to the times that it comes, in turn."""
    dealt = {}
    for label, found in places.items():
        times = sum(label in present for present in schedule)
        if times > len(found):
            raise EmptyExperienceError(
                f"recurring(images='share'): class {label} comes {times} times and has "
                f"{len(found)} images: use more data, fewer experiences, or images='all'"
            )
        order = [found[i] for i in shuffled(len(found), seed)]
        dealt[label] = iter([order[start::times] for start in range(times)])
    return dealt
