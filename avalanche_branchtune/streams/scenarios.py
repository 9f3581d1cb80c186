"""Continual streams for Avalanche, from map-style data sets.

Each function returns an Avalanche benchmark with a ``train_stream`` and a ``test_stream``.
The data sets may be torchvision's, Avalanche's, those of this package, or anything else with
numbered items ``(image, label)`` or ``(image,)``; labels are found as
:func:`~avalanche_branchtune.streams.labels.find_labels` says.

``train_transform`` and ``eval_transform`` become the Avalanche transform groups "train" and
"eval", after any transforms that the data set has itself: ``experience.dataset.train()`` and
``.eval()`` switch between them, as strategies do for themselves. Without switching, a training
experience is in "train" and a test experience in "eval". A group without a transform returns
the items as they are. A transform gets the image and may return a list of tensors (views); an
item is the list ``[transform(image), label]``, or ``[transform(image)]`` without labels.

Experiences have Avalanche's ``classes_in_this_experience``, ``previous_classes``,
``classes_seen_so_far`` and ``future_classes``; a hidden label counts as its true class. Their
data sets hold ``targets`` (what training sees), ``true_targets`` and, outside the
items, the task label 0 that some Avalanche plugins (LwF) ask for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from avalanche.benchmarks import CLScenario
from torch.utils.data import Subset

from avalanche_branchtune.errors import (
    EmptyExperienceError,
    LabelError,
    UnknownOptionError,
    expected_one_of,
)
from avalanche_branchtune.options import one_of
from avalanche_branchtune.streams.alterations import ALTERATIONS, Altered
from avalanche_branchtune.streams.building import (
    Transform,
    benchmark_of,
    check_classes,
    check_names,
    check_samples,
    converted,
    shuffled,
    with_recipe,
)
from avalanche_branchtune.streams.digits import ArrayImages
from avalanche_branchtune.streams.labels import (
    NO_LABEL,
    MapDataset,
    class_names,
    find_labels,
    refuse_other_classes,
    refuse_transform_groups,
)

__all__ = [
    "altered_domains",
    "class_incremental",
    "data_incremental",
    "domain_incremental",
    "joint",
    "predefined",
    "split_domains",
]


def class_incremental(
    train: MapDataset,
    test: MapDataset,
    n_experiences: int | Sequence[int],
    *,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    seed: int = 0,
    class_order: Sequence[int] | None = None,
) -> CLScenario:
    """Split by class: no class is in two experiences.

    :param train: the training data.
    :param test: the test data, split by the same classes.
    :param n_experiences: length of both streams, a divisor of the number of classes: every
        experience has equally many. Or the number of classes of each experience, which add up to
        that of all: ``[5, 1, 1, 3]`` for four experiences of ten classes.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :param seed: shuffles the classes.
    :param class_order: all classes in the order in which they come, instead of the shuffle.
    :return: the benchmark.
    :raises UnknownOptionError: when ``n_experiences`` does not divide the number of classes, or
        its numbers do not add up to it.
    :raises LabelError: when a sample has no class, ``test`` has a class that ``train`` lacks, or
        ``class_order`` does not hold each class once; when both have names of classes
        (``classes``), and these differ.
    :raises EmptyExperienceError: when a data set or an experience has no samples.

    Example::

        >>> from avalanche_branchtune.streams import class_incremental
        >>> data = [(f"image {i}", i % 4) for i in range(8)]
        >>> benchmark = class_incremental(data, data, 2, class_order=[3, 0, 2, 1])
        >>> [sorted(e.classes_in_this_experience) for e in benchmark.train_stream]
        [[0, 3], [1, 2]]
        >>> [item[0] for item in benchmark.train_stream[0].dataset]
        ['image 0', 'image 3', 'image 4', 'image 7']
        >>> benchmark = class_incremental(data, data, [3, 1], class_order=[3, 0, 2, 1])
        >>> [sorted(e.classes_in_this_experience) for e in benchmark.train_stream]
        [[0, 2, 3], [1]]
    """
    check_names("class_incremental", train, test)
    train_data = converted("class_incremental(train=…)", train)
    test_data = converted("class_incremental(test=…)", test)
    classes = sorted(train_data.true_targets.uniques)
    check_classes("class_incremental", "train", train_data, classes)
    check_classes("class_incremental", "test", test_data, classes)
    sizes = _sizes(n_experiences, len(classes))
    if class_order is None:
        class_order = [classes[i] for i in shuffled(len(classes), seed)]
    elif sorted(class_order) != classes:
        raise LabelError(
            f"class_incremental(class_order=…): expected each of {classes} once; "
            f"got {list(class_order)}"
        )
    experiences = [number for number, size in enumerate(sizes) for _ in range(size)]
    experience_of = dict(zip(class_order, experiences, strict=True))
    benchmark = benchmark_of(
        _split(train_data, experience_of, len(sizes)),
        _split(test_data, experience_of, len(sizes)),
        train_transform,
        eval_transform,
    )
    made: dict[str, Any] = {
        "made by": "class_incremental",
        "n_experiences": [int(n) for n in sizes],
    }
    return with_recipe(
        benchmark, {**made, "class_order": [int(c) for c in class_order], "seed": seed}
    )


def data_incremental(
    train: MapDataset,
    test: MapDataset,
    n_experiences: int,
    *,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    seed: int = 0,
) -> CLScenario:
    """Split at random: every experience has its share of each class.

    The sizes of the experiences differ by at most one sample, and so do the numbers of samples
    of a class in them.

    :param train: the training data, with labels or without.
    :param test: the test data; as in Avalanche's ``new_instances_benchmark`` it is not
        split: the test stream has one experience.
    :param n_experiences: length of the training stream.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :param seed: shuffles the samples.
    :return: the benchmark.
    :raises UnknownOptionError: for ``n_experiences`` below 1.
    :raises LabelError: when both data sets have names of classes, and these differ.
    :raises EmptyExperienceError: when a data set or an experience has no samples.

    Example::

        >>> from avalanche_branchtune.streams import data_incremental
        >>> data = [(f"image {i}", i % 2) for i in range(6)]
        >>> benchmark = data_incremental(data, data, 3)
        >>> [sorted(e.dataset.targets) for e in benchmark.train_stream]
        [[0, 1], [0, 1], [0, 1]]
        >>> [len(e.dataset) for e in benchmark.test_stream]
        [6]
    """
    if n_experiences < 1:
        raise UnknownOptionError(
            f"data_incremental(n_experiences=…): expected at least 1; got {n_experiences}"
        )
    check_names("data_incremental", train, test)
    train_data = converted("data_incremental(train=…)", train)
    test_data = converted("data_incremental(test=…)", test)
    parts = _dealt(list(train_data.true_targets), n_experiences, seed)
    train_parts = [train_data.subset(part) for part in parts]
    benchmark = benchmark_of(train_parts, [test_data], train_transform, eval_transform)
    recipe = {"made by": "data_incremental", "n_experiences": n_experiences, "seed": seed}
    return with_recipe(benchmark, recipe)


def domain_incremental(
    train_domains: Sequence[MapDataset],
    test_domains: Sequence[MapDataset],
    *,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
) -> CLScenario:
    """Make one experience of each domain, in the order given.

    :param train_domains: the training data of each domain.
    :param test_domains: the test data of each domain, in the same order.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :return: the benchmark.
    :raises UnknownOptionError: when there are not as many test domains as training domains.
    :raises LabelError: when two domains have names of classes, and these differ.
    :raises EmptyExperienceError: when there is no domain, or one has no samples.

    Example::

        >>> from avalanche_branchtune.streams import domain_incremental
        >>> photographs, drawings = [("photograph", 0), ("photograph", 1)], [("drawing", 1)]
        >>> domains = [photographs, drawings]
        >>> benchmark = domain_incremental(domains, domains, train_transform=str.upper)
        >>> [[item[:2] for item in e.dataset] for e in benchmark.train_stream]
        [[['PHOTOGRAPH', 0], ['PHOTOGRAPH', 1]], [['DRAWING', 1]]]
    """
    if len(train_domains) != len(test_domains):
        raise UnknownOptionError(
            f"domain_incremental(test_domains=…): expected {len(train_domains)} data sets, as many "
            f"as train_domains; got {len(test_domains)}"
        )
    benchmark = _of_parts(
        "domain_incremental",
        "domains",
        train_domains,
        test_domains,
        train_transform,
        eval_transform,
    )
    return with_recipe(benchmark, {"made by": "domain_incremental"})


def predefined(
    train_parts: Sequence[MapDataset],
    test_parts: Sequence[MapDataset],
    *,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
) -> CLScenario:
    """Make one experience of each part of data that others have divided.

    :param train_parts: the data of each training experience.
    :param test_parts: the data of each test experience; there may be fewer or more of them.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :return: the benchmark.
    :raises LabelError: when two parts have names of classes, and these differ.
    :raises EmptyExperienceError: when there is no part, or one has no samples.

    Example::

        >>> from avalanche_branchtune.streams import predefined
        >>> first, later = [("image 0", 0)], [("image 1", 1), ("image 2", 0)]
        >>> benchmark = predefined([first, later], [first + later])
        >>> [len(e.dataset) for e in benchmark.train_stream], len(benchmark.test_stream)
        ([1, 2], 1)
    """
    benchmark = _of_parts(
        "predefined", "parts", train_parts, test_parts, train_transform, eval_transform
    )
    return with_recipe(benchmark, {"made by": "predefined"})


def altered_domains(
    train: MapDataset,
    test: MapDataset,
    alterations: Sequence[str] = ("plain", "inverted", "edges", "rotated"),
    *,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    seed: int = 0,
) -> CLScenario:
    """Make domains of one data set: each experience has another share of it, altered otherwise.

    No training image is in two experiences, and every class is in each: the shares, and those of
    a class in them, differ by at most one sample. Each experience of the test stream has all
    test images under its alteration, so that what differs between them is the alteration alone.

    :param train: the training data, with labels or without, of PIL images.
    :param test: the test data.
    :param alterations: names of :data:`~avalanche_branchtune.streams.ALTERATIONS`, one for each
        experience; a name may come again, with new training images.
    :param train_transform: transform of the group "train", after the alteration.
    :param eval_transform: transform of the group "eval", after the alteration.
    :param seed: decides which image is in which share, and draws the noise (``seed`` + 1 that of
        test images).
    :return: the benchmark.
    :raises UnknownOptionError: for an unknown alteration, a negative seed or an AvalancheDataset.
    :raises LabelError: when both data sets have names of classes, and these differ.
    :raises EmptyExperienceError: when a data set has no samples, there is no alteration, or a
        class has fewer training samples than there are experiences.

    Example::

        >>> from PIL import Image
        >>> from avalanche_branchtune.streams import altered_domains
        >>> data = [(Image.new("L", (8, 8), 10 * i), i % 2) for i in range(4)]
        >>> benchmark = altered_domains(data, data, ["plain", "inverted"])
        >>> [sorted(e.dataset.targets) for e in benchmark.train_stream]
        [[0, 1], [0, 1]]
        >>> [[image.getpixel((0, 0)) for image, *_ in e.dataset] for e in benchmark.test_stream]
        [[0, 10, 20, 30], [255, 245, 235, 225]]
    """
    check_names("altered_domains", train, test)
    if not alterations:
        raise EmptyExperienceError("altered_domains(alterations=…): there is no alteration")
    train_domains = _altered("train", train, alterations, seed)
    test_domains = _altered("test", test, alterations, seed + 1)
    labels = train_domains[0].true_targets
    for label, count in sorted(Counter(labels).items()):
        if count < len(alterations) and label != NO_LABEL:
            raise EmptyExperienceError(
                f"altered_domains(train=…): class {label} has {count} samples, not one for each of "
                f"{len(alterations)} experiences; use fewer alterations or more data"
            )
    parts = _dealt(labels, len(alterations), seed)
    shares = [Subset(domain, part) for domain, part in zip(train_domains, parts, strict=True)]
    benchmark = domain_incremental(
        shares, test_domains, train_transform=train_transform, eval_transform=eval_transform
    )
    made: dict[str, Any] = {"made by": "altered_domains", "alterations": list(alterations)}
    return with_recipe(benchmark, {**made, "seed": seed})


def joint(
    train: MapDataset,
    test: MapDataset,
    *,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
) -> CLScenario:
    """Make one experience of everything: the upper reference of a continual stream.

    :param train: the training data.
    :param test: the test data.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :return: the benchmark.
    :raises LabelError: when both data sets have names of classes, and these differ.
    :raises EmptyExperienceError: when a data set has no samples.

    Example::

        >>> from avalanche_branchtune.streams import joint
        >>> data = [("image 0", 5), ("image 1", 6)]
        >>> benchmark = joint(data, data, train_transform=str.upper)
        >>> [item[:2] for item in benchmark.train_stream[0].dataset]
        [['IMAGE 0', 5], ['IMAGE 1', 6]]
        >>> [item[0] for item in benchmark.train_stream[0].dataset.eval()]
        ['image 0', 'image 1']
    """
    check_names("joint", train, test)
    train_data = converted("joint(train=…)", train)
    test_data = converted("joint(test=…)", test)
    benchmark = benchmark_of([train_data], [test_data], train_transform, eval_transform)
    return with_recipe(benchmark, {"made by": "joint"})


def split_domains(dataset: ArrayImages) -> list[ArrayImages]:
    """Split a data set into its domains, in the order of their numbers.

    :param dataset: images with a domain each.
    :return: one data set a domain.

    Example::

        >>> import numpy as np
        >>> from avalanche_branchtune.streams import ArrayImages, split_domains
        >>> pixels = np.zeros((3, 8, 8, 3), dtype=np.uint8)
        >>> data = ArrayImages(pixels, targets=[4, 5, 6], domains=[1, 0, 1])
        >>> [domain.targets for domain in split_domains(data)]
        [[5], [4, 6]]
    """
    return [
        dataset.subset(i for i, other in enumerate(dataset.domains) if other == domain)
        for domain in sorted(set(dataset.domains))
    ]


def _of_parts(
    function: str,
    what: str,
    train: Sequence[MapDataset],
    test: Sequence[MapDataset],
    train_transform: Transform | None,
    eval_transform: Transform | None,
) -> CLScenario:
    """Make an experience of each data set; their classes are the same."""
    streams = {"train": train, "test": test}
    for name, parts in streams.items():
        if not parts:
            raise EmptyExperienceError(
                f"{function}({name}_{what}=…): there is no {what.removesuffix('s')}"
            )
    names = {f"{s}_{what}[{i}]": class_names(x) for s in streams for i, x in enumerate(streams[s])}
    known = next((found for found in names.values() if found is not None), None)
    for name, found in names.items():
        refuse_other_classes(function, known, name, found)
    train_data, test_data = (
        [converted(f"{function}({name}_{what}[{i}])", x) for i, x in enumerate(parts)]
        for name, parts in streams.items()
    )
    return benchmark_of(train_data, test_data, train_transform, eval_transform)


def _altered(argument: str, data: MapDataset, names: Sequence[str], seed: int) -> list[Altered]:
    """Alter a data set in several ways; its labels are looked for once."""
    refuse_transform_groups("altered", data)
    check_samples(f"altered_domains({argument}=…)", data)
    for name in names:
        one_of("altered_domains(alterations=…)", name, tuple(ALTERATIONS))
    labels = find_labels(data)
    return [Altered(data, name, labels, seed) for name in names]


def _sizes(n_experiences: int | Sequence[int], classes: int) -> list[int]:
    """Return the number of classes of each experience of a class-incremental stream."""
    argument = f"class_incremental(n_experiences=…) with {classes} classes"
    if isinstance(n_experiences, Sequence) and not isinstance(n_experiences, str):
        whole = all(isinstance(n, Integral) and n >= 1 for n in n_experiences)
        if not whole or sum(n_experiences) != classes:
            raise UnknownOptionError(
                f"{argument}: expected whole numbers of at least 1 that add up to {classes}; "
                f"got {n_experiences}"
            )
        return list(n_experiences)
    divisors = [n for n in range(1, classes + 1) if classes % n == 0]
    if n_experiences not in divisors:
        raise expected_one_of(argument, n_experiences, [str(n) for n in divisors])
    return [classes // n_experiences] * n_experiences


def _dealt(labels: list[int], n_parts: int, seed: int) -> list[list[int]]:
    """Deal the samples of each class to the parts in turn; return their numbers, in order."""
    by_class = sorted(shuffled(len(labels), seed), key=lambda i: labels[i])
    return [sorted(by_class[start::n_parts]) for start in range(n_parts)]


def _split(data: Any, experience_of: dict[int, int], n_experiences: int) -> list[Any]:
    parts: list[list[int]] = [[] for _ in range(n_experiences)]
    for i, label in enumerate(data.true_targets):
        parts[experience_of[label]].append(i)
    return [data.subset(part) for part in parts]
