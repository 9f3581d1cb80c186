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
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from avalanche.benchmarks import CLScenario, EagerCLStream
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.classification_dataset import (
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.data_attribute import DataAttribute, has_task_labels
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from torch.utils.data import Subset

from avalanche_branchtune.errors import (
    EmptyExperienceError,
    LabelError,
    UnknownOptionError,
    expected_one_of,
)
from avalanche_branchtune.options import one_of
from avalanche_branchtune.streams.alterations import ALTERATIONS, Altered
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
    "Transform",
    "altered_domains",
    "class_incremental",
    "data_incremental",
    "domain_incremental",
    "joint",
    "split_domains",
]

#: From an image to a tensor, or to a list of tensors (views).
Transform = Callable[[Any], Any]


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
    _check_names("class_incremental", train, test)
    train_data = _convert("class_incremental(train=…)", train)
    test_data = _convert("class_incremental(test=…)", test)
    classes = sorted(train_data.true_targets.uniques)
    _check_classes("train", train_data, classes)
    _check_classes("test", test_data, classes)
    sizes = _sizes(n_experiences, len(classes))
    if class_order is None:
        class_order = [classes[i] for i in _shuffled(len(classes), seed)]
    elif sorted(class_order) != classes:
        raise LabelError(
            f"class_incremental(class_order=…): expected each of {classes} once; "
            f"got {list(class_order)}"
        )
    experiences = [number for number, size in enumerate(sizes) for _ in range(size)]
    experience_of = dict(zip(class_order, experiences, strict=True))
    return _benchmark(
        _split(train_data, experience_of, len(sizes)),
        _split(test_data, experience_of, len(sizes)),
        train_transform,
        eval_transform,
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
    _check_names("data_incremental", train, test)
    train_data = _convert("data_incremental(train=…)", train)
    test_data = _convert("data_incremental(test=…)", test)
    parts = _dealt(list(train_data.true_targets), n_experiences, seed)
    train_parts = [train_data.subset(part) for part in parts]
    return _benchmark(train_parts, [test_data], train_transform, eval_transform)


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
    if not train_domains:
        raise EmptyExperienceError("domain_incremental(train_domains=…): there is no domain")
    streams = {"train": train_domains, "test": test_domains}
    names = {f"{s}_domains[{i}]": class_names(x) for s in streams for i, x in enumerate(streams[s])}
    known = next((found for found in names.values() if found is not None), None)
    for name, found in names.items():
        refuse_other_classes("domain_incremental", known, name, found)
    train_data, test_data = (
        [_convert(f"domain_incremental({name}_domains[{i}])", x) for i, x in enumerate(domains)]
        for name, domains in streams.items()
    )
    return _benchmark(train_data, test_data, train_transform, eval_transform)


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
    _check_names("altered_domains", train, test)
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
    return domain_incremental(
        shares, test_domains, train_transform=train_transform, eval_transform=eval_transform
    )


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
    _check_names("joint", train, test)
    train_data = _convert("joint(train=…)", train)
    test_data = _convert("joint(test=…)", test)
    return _benchmark([train_data], [test_data], train_transform, eval_transform)


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


def _convert(argument: str, data: MapDataset) -> Any:
    """Build the AvalancheDataset, still without transforms, that the experiences are cut from."""
    _check_samples(argument, data)
    labels = find_labels(data)
    attributes = [
        DataAttribute(labels.shown, "targets"),
        DataAttribute(labels.true, "true_targets"),
    ]
    if not (isinstance(data, AvalancheDataset) and has_task_labels(data)):
        attributes.append(DataAttribute(ConstantSequence(0, len(data)), "targets_task_labels"))
    return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)


def _altered(argument: str, data: MapDataset, names: Sequence[str], seed: int) -> list[Altered]:
    """Alter a data set in several ways; its labels are looked for once."""
    refuse_transform_groups("altered", data)
    _check_samples(f"altered_domains({argument}=…)", data)
    for name in names:
        one_of("altered_domains(alterations=…)", name, tuple(ALTERATIONS))
    labels = find_labels(data)
    return [Altered(data, name, labels, seed) for name in names]


def _check_samples(argument: str, data: MapDataset) -> None:
    """Refuse a data set of which no experience can be made."""
    if len(data) == 0:
        raise EmptyExperienceError(f"{argument}: the data set has no samples")


def _check_names(function: str, train: MapDataset, test: MapDataset) -> None:
    """Refuse test data whose class numbers do not mean what they mean in the training data."""
    refuse_other_classes(f"{function}(test=…)", class_names(train), "test", class_names(test))


def _check_classes(argument: str, data: Any, classes: list[int]) -> None:
    """Refuse samples that no experience of a class-incremental stream would receive."""
    unlabelled = data.true_targets.count.get(NO_LABEL, 0)
    if unlabelled:
        raise LabelError(
            f"class_incremental({argument}=…): {unlabelled} of {len(data)} samples have no class "
            "(label -1); use data_incremental, or labelled data with hide_labels"
        )
    unknown = sorted(data.true_targets.uniques - set(classes))
    if unknown:
        raise LabelError(
            f"class_incremental({argument}=…): classes {unknown} are not among the training "
            f"classes {classes}"
        )


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
    by_class = sorted(_shuffled(len(labels), seed), key=lambda i: labels[i])
    return [sorted(by_class[start::n_parts]) for start in range(n_parts)]


def _shuffled(count: int, seed: int) -> list[int]:
    """Shuffle 0 … ``count`` - 1 without touching the global random state."""
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def _split(data: Any, experience_of: dict[int, int], n_experiences: int) -> list[Any]:
    parts: list[list[int]] = [[] for _ in range(n_experiences)]
    for i, label in enumerate(data.true_targets):
        parts[experience_of[label]].append(i)
    return [data.subset(part) for part in parts]


def _benchmark(
    train: list[Any],
    test: list[Any],
    train_transform: Transform | None,
    eval_transform: Transform | None,
) -> CLScenario:
    """Build the benchmark from the data of each experience and the transforms."""
    # Both groups are named, since a missing "eval" would silently become "train".
    groups = {"train": train_transform, "eval": eval_transform}
    return CLScenario(
        [_stream("train", train, "train", groups), _stream("test", test, "eval", groups)]
    )


def _stream(
    name: str, parts: list[Any], group: str, groups: dict[str, Transform | None]
) -> EagerCLStream:
    """Build a stream with what Avalanche's ``with_classes_timeline`` adds, from true labels."""
    experiences = []
    for number, part in enumerate(parts):
        if len(part) == 0:
            raise EmptyExperienceError(
                f"{name}_stream[{number}]: the experience has no samples; use fewer experiences "
                "or more data"
            )
        # The transforms go on last: Avalanche loses those of a subset when its group is replaced
        # and it is then concatenated or cut again.
        data = TaskAwareSupervisedClassificationDataset(
            [part], transform_groups=TransformGroups(groups)
        )
        experiences.append(DatasetExperience(dataset=data.with_transforms(group)))
    stream = EagerCLStream(name, experiences)
    classes = [set(part.true_targets.uniques) - {NO_LABEL} for part in parts]
    seen: set[int] = set()
    for experience, present in zip(stream, classes, strict=True):
        experience.classes_in_this_experience = present
        experience.previous_classes = set(seen)
        seen |= present
        experience.classes_seen_so_far = set(seen)
        experience.future_classes = set().union(*classes) - seen
    return stream
