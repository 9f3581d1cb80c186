"""The labels of a data set: finding them, and hiding some or all of them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import index as as_integer
from typing import Any, NamedTuple, Protocol

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch.utils.data import ConcatDataset, Dataset, Subset

from avalanche_branchtune.errors import LabelError, UnknownOptionError
from avalanche_branchtune.experiences import joined_datasets

__all__ = [
    "NO_LABEL",
    "Labels",
    "MapDataset",
    "PartlyLabelled",
    "Unlabelled",
    "class_names",
    "find_labels",
    "hide_labels",
    "without_labels",
]

#: The label of a sample that has none.
NO_LABEL = -1


class MapDataset(Protocol):
    """A map-style data set: items by number, ``(image, label, …)``, ``(image,)`` or an image.

    Example::

        >>> from avalanche_branchtune.streams.labels import find_labels
        >>> class Squares:
        ...     def __len__(self): return 4
        ...     def __getitem__(self, index): return index**2, index % 2
        >>> find_labels(Squares()).true
        [0, 1, 0, 1]
    """

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """Return an item."""


class Labels(NamedTuple):
    """The labels of N samples, -1 where there is none.

    ``shown`` is what training sees. ``true`` has the hidden labels too; it serves only to
    split a stream by class and to evaluate.

    Example::

        >>> from avalanche_branchtune.streams import hide_labels
        >>> from avalanche_branchtune.streams.labels import find_labels
        >>> find_labels(hide_labels([("image 0", 5), ("image 1", 6)], share=1))
        Labels(shown=[-1, -1], true=[5, 6])
    """

    shown: list[int]
    true: list[int]


class PartlyLabelled(Dataset[tuple[Any, int]]):
    """Items ``(image, label)`` with the label -1 where it is hidden; see :func:`hide_labels`.

    :param dataset: the data set with all labels.
    :param labels: the labels to show and the true ones.

    Example::

        >>> from avalanche_branchtune.streams.labels import Labels, PartlyLabelled
        >>> data = [("image 0", 5), ("image 1", 6)]
        >>> partly = PartlyLabelled(data, Labels(shown=[5, -1], true=[5, 6]))
        >>> partly[1], partly.true_targets[1]
        (('image 1', -1), 6)
    """

    def __init__(self, dataset: MapDataset, labels: Labels) -> None:
        """Wrap ``dataset``; nothing is copied."""
        self.dataset = dataset
        self.targets, self.true_targets = labels

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image at ``index`` and the label to show."""
        return _image(self.dataset[index]), self.targets[index]


class Unlabelled(Dataset[tuple[Any]]):
    """Items ``(image,)``; see :func:`without_labels`.

    :param dataset: the data set, with labels or without.

    Example::

        >>> from avalanche_branchtune.streams import Unlabelled
        >>> data = Unlabelled([("image 0", 5), ("image 1", 6)])
        >>> data[1], data.targets, data.true_targets
        (('image 1',), [-1, -1], [5, 6])
    """

    def __init__(self, dataset: MapDataset) -> None:
        """Wrap ``dataset``; nothing is copied."""
        self.dataset = dataset
        self.true_targets = find_labels(dataset).true
        self.targets = [NO_LABEL] * len(self.true_targets)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any]:
        """Return the image at ``index``."""
        return (_image(self.dataset[index]),)


def hide_labels(dataset: MapDataset, share: float, *, seed: int = 0) -> PartlyLabelled:
    """Give a share of the samples the label -1, as if nobody had labelled them.

    A supervised loss must leave them out (``torch.nn.CrossEntropyLoss(ignore_index=-1)``).
    A stream may still be split by class afterwards: the hidden labels are kept for that.

    :param dataset: the data set; not an AvalancheDataset, since its transform groups would
        be lost. Hide labels first, then give the transforms to the scenario.
    :param share: the share of the samples that lose their label, 0 to 1, rounded to samples.
    :param seed: decides which samples.
    :raises UnknownOptionError: for a share out of range or an AvalancheDataset.
    :raises LabelError: when a label is no integer.

    Example::

        >>> from avalanche_branchtune.streams import hide_labels
        >>> data = [(f"image {i}", i) for i in range(8)]
        >>> partly = hide_labels(data, share=0.75)
        >>> partly.targets.count(-1), partly.true_targets
        (6, [0, 1, 2, 3, 4, 5, 6, 7])
        >>> hide_labels(data, share=0.75).targets == partly.targets  # the same seed
        True
    """
    refuse_transform_groups("hide_labels", dataset)
    if not 0 <= share <= 1:
        raise UnknownOptionError(f"hide_labels(share=…): expected 0 to 1; got {share}")
    shown, true = find_labels(dataset)
    order = torch.randperm(len(shown), generator=torch.Generator().manual_seed(seed)).tolist()
    hidden = set(order[: round(share * len(shown))])
    shown = [NO_LABEL if i in hidden else label for i, label in enumerate(shown)]
    return PartlyLabelled(dataset, Labels(shown, true))


def without_labels(dataset: MapDataset) -> Unlabelled:
    """Drop the labels: items become ``(image,)``, the form Avalanche needs for unlabelled data.

    A batch is then ``[images]``, or ``[[view_1, view_2, …]]`` when the transform returns a list
    of views. Avalanche's supervised strategies cannot work on it. The experiences of a stream
    still carry ``targets``, all -1, for plugins that ask for them; and a stream may still be
    split by class, if ``dataset`` has labels.

    :param dataset: as for :func:`hide_labels`; it need not have labels.
    :raises UnknownOptionError: for an AvalancheDataset.
    :raises LabelError: when a label is no integer.

    Example::

        >>> from avalanche_branchtune.streams import without_labels
        >>> data = without_labels([("image 0", 5), ("image 1", 6)])
        >>> data[1], data.targets
        (('image 1',), [-1, -1])
    """
    refuse_transform_groups("without_labels", dataset)
    return Unlabelled(dataset)


def find_labels(dataset: MapDataset) -> Labels:
    """Find the label of every sample.

    In this order: the attribute ``targets`` or ``labels`` (a list, tensor or array);
    the labels of the parts of a torch ``Subset`` or ``ConcatDataset``; else the second element
    of every item, for which all items are loaded once. Samples have the label -1 when the first
    item has no second element.

    :param dataset: a map-style data set.
    :raises LabelError: when a label is no integer, or there are not as many as samples.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.streams.labels import find_labels
        >>> data = torch.utils.data.TensorDataset(torch.ones(3, 2), torch.tensor([4, 5, 6]))
        >>> find_labels(torch.utils.data.Subset(data, [2, 0])).shown
        [6, 4]
        >>> find_labels(["image 0", "image 1"]).shown
        [-1, -1]
    """
    for name in ("targets", "labels"):
        shown = getattr(dataset, name, None)
        if shown is not None:
            true = getattr(dataset, "true_targets", shown)
            return Labels(_integers(dataset, shown), _integers(dataset, true))
    if isinstance(dataset, Subset):
        parent: Any = dataset.dataset
        whole = find_labels(parent)
        return Labels(*([labels[i] for i in dataset.indices] for labels in whole))
    if isinstance(dataset, ConcatDataset):
        members: list[Any] = dataset.datasets
        parts = [find_labels(member) for member in members]
        return Labels(
            list(chain.from_iterable(part.shown for part in parts)),
            list(chain.from_iterable(part.true for part in parts)),
        )
    if len(dataset) and not _has_label(dataset[0]):
        nothing = [NO_LABEL] * len(dataset)
        return Labels(nothing, nothing)
    found = _integers(dataset, [dataset[i][1] for i in range(len(dataset))])
    return Labels(found, found)


def class_names(dataset: MapDataset) -> list[Any] | None:
    """Find the names of the classes 0, 1 …: the attribute ``classes``, as torchvision calls it.

    It is looked for in the data set, then in those that it wraps: the parts of a torch ``Subset``
    or ``ConcatDataset``, of an AvalancheDataset, of :func:`hide_labels` and
    :func:`without_labels`, and the ``dataset`` of any wrapper without labels of its own.

    :param dataset: a map-style data set.
    :return: the names; None where there are none.
    :raises LabelError: when the parts have different names.

    Example::

        >>> from avalanche_branchtune.streams import ImageFiles, hide_labels
        >>> from avalanche_branchtune.streams.labels import class_names
        >>> pets = ImageFiles(["1.png", "2.png"], [0, 1], classes=["cat", "dog"])
        >>> class_names(hide_labels(pets, share=0.5)), class_names([("image 0", 5)])
        (['cat', 'dog'], None)
    """
    names = getattr(dataset, "classes", None)
    if isinstance(names, (list, tuple)) and names:
        return list(names)
    found = [(part, inner) for part in _wrapped(dataset) if (inner := class_names(part))]
    for part, names in found[1:]:
        refuse_other_classes(
            f"{type(dataset).__name__}: two of its parts", found[0][1], type(part).__name__, names
        )
    return found[0][1] if found else None


def refuse_other_classes(
    argument: str, expected: list[Any] | None, name: str, found: list[Any] | None
) -> None:
    """Refuse class names that would give one number to two classes, or leave a class out.

    :param argument: what was given, as the user wrote it.
    :param expected: the names that count; None if they are not known.
    :param name: of the data with the others.
    :param found: the others.
    :raises LabelError: naming the classes that differ.

    Example::

        >>> from avalanche_branchtune.streams.labels import refuse_other_classes
        >>> refuse_other_classes("joint(…)", ["cat", "cow", "dog"], "test", ["cat", "dog"])
        Traceback (most recent call last):
        avalanche_branchtune.errors.LabelError: ...lacks 'cow', so its class 1 is 'dog' instead...
    """
    if expected is None or found is None or expected == found:
        return
    missing = [repr(n) for n in expected if n not in found]
    more = [repr(n) for n in found if n not in expected]
    pairs = enumerate(zip(expected, found, strict=False))
    shifted = next(((i, a, b) for i, (a, b) in pairs if a != b), None)
    kinds = {"lacks": missing, "has besides": more}
    said = " and ".join(f"{kind} {_some(names)}" for kind, names in kinds.items() if names)
    if shifted is not None:
        i, mine, theirs = shifted
        number = f"its class {i} is {theirs!r} instead of {mine!r}"
        said = f"{said}, so {number}" if said else f"orders them otherwise: {number}"
    raise LabelError(
        f"{argument}: {name} {said}. Numbers would not mean the same classes: give all data sets "
        "the same classes in the same order (ImageFiles(files, targets, classes) sets them by hand)"
    )


def refuse_transform_groups(function: str, dataset: MapDataset) -> None:
    """Refuse a data set whose transform groups a wrapper would hide.

    :param function: that was given the data set.
    :param dataset: as it was given.
    :raises UnknownOptionError: for an AvalancheDataset.

    Example::

        >>> from avalanche.benchmarks.utils import AvalancheDataset
        >>> from avalanche_branchtune.streams.labels import refuse_transform_groups
        >>> refuse_transform_groups("without_labels", AvalancheDataset([["image 0"]]))
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...got AvalancheDataset. Give the plain...
    """
    if isinstance(dataset, AvalancheDataset):
        raise UnknownOptionError(
            f"{function}(dataset=…): expected a data set without transform groups; got "
            f"{type(dataset).__name__}. Give the plain data set to {function} and the transforms "
            "to the scenario"
        )


def _wrapped(dataset: Any) -> list[Any]:
    """Return the data sets whose labels a data set shows."""
    if isinstance(dataset, AvalancheDataset):
        return joined_datasets(dataset)
    if isinstance(dataset, ConcatDataset):
        return list(dataset.datasets)
    own = any(getattr(dataset, name, None) is not None for name in ("targets", "labels"))
    if own and not isinstance(dataset, (Subset, PartlyLabelled, Unlabelled)):
        return []
    return [dataset.dataset] if hasattr(dataset, "dataset") else []


def _some(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _integers(dataset: MapDataset, values: Iterable[Any]) -> list[int]:
    try:
        labels = [as_integer(v) for v in (values.tolist() if hasattr(values, "tolist") else values)]
    except TypeError as cause:
        raise LabelError(
            f"{type(dataset).__name__}: expected one integer class a sample; {cause}"
        ) from cause
    if len(labels) != len(dataset):
        raise LabelError(
            f"{type(dataset).__name__}: expected one label a sample; "
            f"got {len(labels)} labels for {len(dataset)} samples"
        )
    return labels


def _has_label(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) > 1


def _image(item: Any) -> Any:
    return item[0] if isinstance(item, (tuple, list)) else item
