"""From data sets to an Avalanche benchmark: what all kinds of streams share.

A benchmark, and each of its streams, says how it was made: ``recipe`` is plain data (names, numbers
and lists of them) that a record can keep, with the order of the classes that a seed has drawn;
:func:`~avalanche_branchtune.streams.remade` makes the stream again from it.
"""

from __future__ import annotations

from collections.abc import Callable
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

from avalanche_branchtune.errors import EmptyExperienceError, LabelError
from avalanche_branchtune.streams.labels import (
    NO_LABEL,
    MapDataset,
    class_names,
    find_labels,
    refuse_other_classes,
)

__all__ = [
    "Transform",
    "benchmark_of",
    "check_classes",
    "check_names",
    "check_samples",
    "converted",
    "shuffled",
    "stream_of",
    "with_recipe",
]

#: From an image to a tensor, or to a list of tensors (views).
Transform = Callable[[Any], Any]


def converted(argument: str, data: MapDataset) -> Any:
    """Build the AvalancheDataset, still without transforms, that experiences are cut from.

    :param argument: what was given, as the user wrote it.
    :param data: with labels or without.
    :raises EmptyExperienceError: if there are no samples.
    :raises LabelError: when a label is no integer.

    Example::

        >>> from avalanche_branchtune.streams.building import converted
        >>> data = converted("joint(train=…)", [("image 0", 5), ("image 1", 6)])
        >>> list(data.targets), list(data.true_targets), data[1]
        ([5, 6], [5, 6], ('image 1', 6))
    """
    check_samples(argument, data)
    labels = find_labels(data)
    attributes = [
        DataAttribute(labels.shown, "targets"),
        DataAttribute(labels.true, "true_targets"),
    ]
    if not (isinstance(data, AvalancheDataset) and has_task_labels(data)):
        attributes.append(DataAttribute(ConstantSequence(0, len(data)), "targets_task_labels"))
    return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)


def check_samples(argument: str, data: MapDataset) -> None:
    """Refuse a data set of which no experience can be made.

    :param argument: what was given, as the user wrote it.
    :param data: the data set.
    :raises EmptyExperienceError: if it has no samples.

    Example::

        >>> from avalanche_branchtune.streams.building import check_samples
        >>> check_samples("joint(test=…)", [])
        Traceback (most recent call last):
        avalanche_branchtune.errors.EmptyExperienceError: joint(test=…): the data set has no samples
    """
    if len(data) == 0:
        raise EmptyExperienceError(f"{argument}: the data set has no samples")


def check_names(function: str, train: MapDataset, test: MapDataset) -> None:
    """Refuse test data whose class numbers do not mean what they mean in the training data.

    :param function: that was given them.
    :param train: the training data.
    :param test: the test data.
    :raises LabelError: when both have names of classes, and these differ.

    Example::

        >>> from avalanche_branchtune.streams import ImageFiles
        >>> from avalanche_branchtune.streams.building import check_names
        >>> pets, cats = (ImageFiles([], [], classes) for classes in (["cat", "dog"], ["cat"]))
        >>> check_names("joint", pets, cats)
        Traceback (most recent call last):
        avalanche_branchtune.errors.LabelError: joint(test=…): test lacks 'dog'. Numbers would ...
    """
    refuse_other_classes(f"{function}(test=…)", class_names(train), "test", class_names(test))


def check_classes(function: str, argument: str, data: Any, classes: list[int]) -> None:
    """Refuse samples that no experience of a stream of classes would receive.

    :param function: that was given the data.
    :param argument: by which it was given them.
    :param data: see :func:`converted`.
    :param classes: that there are.
    :raises LabelError: for samples without a class, or of another one.

    Example::

        >>> from avalanche_branchtune.streams.building import check_classes, converted
        >>> data = converted("test", [("image 0", 5)])
        >>> check_classes("class_incremental", "test", data, [3, 4])
        Traceback (most recent call last):
        avalanche_branchtune.errors.LabelError: ...classes [5] are not among the training classes...
    """
    unlabelled = data.true_targets.count.get(NO_LABEL, 0)
    if unlabelled:
        raise LabelError(
            f"{function}({argument}=…): {unlabelled} of {len(data)} samples have no class "
            "(label -1); use data_incremental, or labelled data with hide_labels"
        )
    unknown = sorted(data.true_targets.uniques - set(classes))
    if unknown:
        raise LabelError(
            f"{function}({argument}=…): classes {unknown} are not among the training "
            f"classes {classes}"
        )


def shuffled(count: int, seed: int) -> list[int]:
    """Shuffle 0 … ``count`` - 1 without touching the global random state.

    :param count: how many.
    :param seed: decides on the order.

    Example::

        >>> from avalanche_branchtune.streams.building import shuffled
        >>> sorted(shuffled(4, seed=0)), shuffled(4, seed=0) == shuffled(4, seed=0)
        ([0, 1, 2, 3], True)
    """
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def benchmark_of(
    train: list[Any],
    test: list[Any],
    train_transform: Transform | None,
    eval_transform: Transform | None,
) -> CLScenario:
    """Build the benchmark from the data of each experience and the transforms.

    :param train: of each training experience, see :func:`converted`.
    :param test: of each test experience.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :raises EmptyExperienceError: when an experience has no samples.

    Example::

        >>> from avalanche_branchtune.streams.building import benchmark_of, converted
        >>> data = converted("train", [("image 0", 5)])
        >>> benchmark = benchmark_of([data], [data], str.upper, None)
        >>> [e.dataset[0][0] for s in benchmark.streams.values() for e in s]
        ['IMAGE 0', 'image 0']
    """
    # Both groups are named, since a missing "eval" would silently become "train".
    groups = {"train": train_transform, "eval": eval_transform}
    made = []
    for name, parts, group in (("train", train, "train"), ("test", test, "eval")):
        experiences = []
        for number, part in enumerate(parts):
            if len(part) == 0:
                raise EmptyExperienceError(
                    f"{name}_stream[{number}]: the experience has no samples; use fewer "
                    "experiences or more data"
                )
            # The transforms go on last: Avalanche loses those of a subset when its group is
            # replaced and it is then concatenated or cut again.
            data = TaskAwareSupervisedClassificationDataset(
                [part], transform_groups=TransformGroups(groups)
            )
            experiences.append(DatasetExperience(dataset=data.with_transforms(group)))
        made.append(stream_of(name, experiences))
    return CLScenario(made)


def stream_of(name: str, experiences: list[Any]) -> EagerCLStream:
    """Build a stream with what Avalanche's ``with_classes_timeline`` adds, from true labels.

    :param name: of the stream.
    :param experiences: with data sets that have ``true_targets``.

    Example::

        >>> from avalanche_branchtune.streams import joint
        >>> from avalanche_branchtune.streams.building import stream_of
        >>> experiences = [joint([("image", i)], [("image", i)]).train_stream[0] for i in (5, 6)]
        >>> [e.classes_seen_so_far for e in stream_of("train", experiences)]
        [{5}, {5, 6}]
    """
    stream = EagerCLStream(name, experiences)
    classes = [set(e.dataset.true_targets.uniques) - {NO_LABEL} for e in experiences]
    everything: set[int] = set().union(*classes)
    seen: set[int] = set()
    for experience, present in zip(stream, classes, strict=True):
        experience.classes_in_this_experience = present
        experience.previous_classes = set(seen)
        seen |= present
        experience.classes_seen_so_far = set(seen)
        experience.future_classes = everything - seen
    return stream


def with_recipe(benchmark: CLScenario, recipe: dict[str, Any]) -> CLScenario:
    """Let a benchmark and its streams say how they were made.

    :param benchmark: the benchmark.
    :param recipe: plain data; ``class_order`` becomes an attribute of its own.
    :return: the same benchmark.

    Example::

        >>> from avalanche_branchtune.streams import class_incremental
        >>> data = [("image", i % 2) for i in range(4)]
        >>> benchmark = class_incremental(data, data, 2, seed=3)
        >>> benchmark.recipe
        {'made by': 'class_incremental', 'n_experiences': [1, 1], 'class_order': [0, 1], 'seed': 3}
        >>> benchmark.train_stream.class_order
        [0, 1]
    """
    for part in (benchmark, *benchmark.streams.values()):
        part.recipe = recipe
        part.class_order = recipe.get("class_order")
    return benchmark
