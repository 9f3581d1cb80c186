"""Orders of classes by what they mean: the classes of a superclass come together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from avalanche.benchmarks import CLScenario

from avalanche_branchtune.errors import LabelError, expected_one_of
from avalanche_branchtune.streams.building import Transform, shuffled, with_recipe
from avalanche_branchtune.streams.labels import NO_LABEL, MapDataset, find_labels
from avalanche_branchtune.streams.scenarios import class_incremental

__all__ = ["superclass_incremental", "superclass_order"]


def superclass_order(
    superclasses: Mapping[str, Sequence[int]] | Sequence[Sequence[int]], *, seed: int = 0
) -> list[list[int]]:
    """Shuffle superclasses, and the classes within each.

    :param superclasses: the classes of each, by name or in a list.
    :param seed: decides on both orders.
    :return: the classes of each superclass; all of them in a row are a ``class_order``.
    :raises LabelError: for a class in two superclasses, and one without classes.

    Example::

        >>> from avalanche_branchtune.streams import superclass_order
        >>> order = superclass_order({"pets": [0, 2], "trees": [1, 4], "cars": [3, 5]})
        >>> sorted(map(sorted, order))
        [[0, 2], [1, 4], [3, 5]]
    """
    named = superclasses if isinstance(superclasses, Mapping) else dict(enumerate(superclasses))
    home: dict[int, object] = {}
    for name, classes in named.items():
        if not len(classes):
            raise LabelError(f"superclass_order(superclasses=…): {name!r} has no classes")
        for label in classes:
            if label in home:
                raise LabelError(
                    f"superclass_order(superclasses=…): class {label} is in {home[label]!r} and "
                    f"in {name!r}"
                )
            home[label] = name
    members = list(named.values())
    shown = [members[i] for i in shuffled(len(members), seed)]
    return [
        [int(classes[i]) for i in shuffled(len(classes), seed + 1 + number)]
        for number, classes in enumerate(shown)
    ]


def superclass_incremental(
    train: MapDataset,
    test: MapDataset,
    n_experiences: int,
    superclasses: Mapping[str, Sequence[int]] | Sequence[Sequence[int]],
    *,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    seed: int = 0,
) -> CLScenario:
    """Split by superclass: no superclass is in two experiences.

    :param train: the training data.
    :param test: the test data.
    :param n_experiences: length of both streams, a divisor of the number of superclasses.
    :param superclasses: the classes of each; for CIFAR-100,
        :func:`~avalanche_branchtune.streams.cifar100_superclasses`.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :param seed: shuffles the superclasses.
    :return: the benchmark, a class-incremental one.
    :raises UnknownOptionError: when ``n_experiences`` does not divide the superclasses.
    :raises LabelError: when a class of the data is in none or in two, see
        :func:`~avalanche_branchtune.streams.class_incremental` too.

    Example::

        >>> from avalanche_branchtune.streams import superclass_incremental
        >>> data = [(f"image {i}", i % 6) for i in range(12)]
        >>> superclasses = {"pets": [0, 2], "trees": [1, 4], "cars": [3, 5]}
        >>> benchmark = superclass_incremental(data, data, 3, superclasses)
        >>> sorted(sorted(e.classes_in_this_experience) for e in benchmark.train_stream)
        [[0, 2], [1, 4], [3, 5]]
    """
    order = superclass_order(superclasses, seed=seed)
    differing = sorted(set(chain(*order)) ^ (set(find_labels(train).true) - {NO_LABEL}))
    if differing:
        raise LabelError(
            f"superclass_incremental(superclasses=…): classes {differing[:5]} are in a superclass "
            "or in the training data, and not in both"
        )
    divisors = [n for n in range(1, len(order) + 1) if len(order) % n == 0]
    if n_experiences not in divisors:
        argument = f"superclass_incremental(n_experiences=…) with {len(order)} superclasses"
        raise expected_one_of(argument, n_experiences, [str(n) for n in divisors])
    each = len(order) // n_experiences
    parts = [list(chain(*order[i : i + each])) for i in range(0, len(order), each)]
    benchmark = class_incremental(
        train,
        test,
        [len(part) for part in parts],
        class_order=list(chain(*parts)),
        train_transform=train_transform,
        eval_transform=eval_transform,
    )
    return with_recipe(benchmark, {**benchmark.recipe, "seed": seed})
