"""A minibatch as a method's loss takes it: views, labels, and what else the method asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import BatchSizeError, LabelError
from solo_bridge.interface import SelfSupervisedMethod

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Minibatch:
    """What one step is made on.

    :param views: each ``(N, C, H, W)``, the same images in each.
    :param labels: ``(N,)``, −1 where there is none.
    :param needed: further arguments of the loss, see :attr:`SelfSupervisedMethod.needs`.
    :param index: ``(N,)``, on the CPU, the samples' numbers in the experience, if
        the method or a plugin needs them.
    """

    views: list[Tensor]
    labels: Tensor
    needed: dict[str, Tensor]
    index: Tensor | None = None

    def share(self) -> Minibatch:
        """Return this rank's share of a whole minibatch, all of it in a single process.

        :raises BatchSizeError: for one that the ranks cannot share equally.
        """
        rank, size = ranks.rank(), ranks.size()
        if len(self.labels) % size:
            raise BatchSizeError(
                f"{size} processes cannot share a minibatch of {len(self.labels)} samples equally"
            )
        views = [view[rank::size] for view in self.views]
        index = None if self.index is None else self.index[rank::size]
        return Minibatch(views, self.labels[rank::size], self.needed, index)

    def with_whole_needed(self) -> Minibatch:
        """Return a share with what the loss needs besides of the whole minibatch; all ranks."""
        return replace(self, needed={k: ranks.whole(v) for k, v in self.needed.items()})


class Numbered(list[Any]):
    """A sample, or a minibatch, that ends with its number or numbers; collating keeps it one."""


class Indexed(Dataset[Any]):
    """A data set whose items end with their number.

    Loaders that balance an experience's task labels take subsets of it.

    :param dataset: the data set.
    :param numbers: of its samples; by default from 0.
    """

    def __init__(self, dataset: Any, numbers: Sequence[int] | None = None) -> None:
        """See the class."""
        self.dataset = dataset
        self.numbers = range(len(dataset)) if numbers is None else numbers

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Numbered:
        """Return ``[*item, number]``."""
        return Numbered([*self.dataset[index], self.numbers[index]])

    def subset(self, indices: Sequence[int]) -> Indexed:
        """Return some of the samples, with the numbers that they have here.

        :param indices: which ones.
        """
        return Indexed(self.dataset.subset(indices), [self.numbers[int(i)] for i in indices])

    @property
    def targets_task_labels(self) -> Any:
        """The samples' task labels, if the data set has them."""
        return self.dataset.targets_task_labels

    def collate_fn(self, items: Sequence[Numbered]) -> Numbered:
        """Return a minibatch, made as the data set's own are.

        :param items: samples with their numbers.
        """
        collate = getattr(self.dataset, "collate_fn", default_collate)
        numbers = torch.tensor([item[-1] for item in items])
        return Numbered([*collate([item[:-1] for item in items]), numbers])


def collates_parts(collate: Callable[[Any], Any]) -> bool:
    """Tell whether a collate function does no more than torch's, which collates each part alone.

    :param collate: of a data loader.
    """
    owner = getattr(collate, "__self__", None)
    if isinstance(owner, Indexed):
        return collates_parts(getattr(owner.dataset, "collate_fn", default_collate))
    return collate is default_collate


def unpack(
    batch: Any,
    model: SelfSupervisedMethod,
    device: torch.device,
    views_of: Callable[[Any], list[Tensor]],
    *,
    training: bool = True,
) -> Minibatch:
    """Bring what a data loader yields into the form that a method's loss takes.

    :param batch: views, or a list of views and labels and perhaps more; it ends
        with the samples' numbers if it is :class:`Numbered`, or the method needs them.
    :param model: the method.
    :param device: where the tensors go.
    :param views_of: from what it begins with to views on the device.
    :param training: whether it is to be trained on.
    :raises ViewsError: for views that do not fit the method.
    :raises LabelError: for a label outside of the method's classes, or none where
        the method needs one.
    :raises BatchSizeError: for a single image in training, where BatchNorm is.
    """
    parts = list(batch) if isinstance(batch, list | tuple) else [batch]
    needed: dict[str, Tensor] = {}
    index: Tensor | None = None
    if isinstance(batch, Numbered) or "index" in model.needs:
        index = parts.pop()
    if index is not None and "index" in model.needs:
        needed["index"] = index.to(device)
    views = views_of(parts[0])
    model.check_views(views)
    samples = views[0].shape[0]
    labels = parts[1] if len(parts) > 1 else torch.full((samples,), -1)
    _check_labels(labels, model)
    alone = training and samples * ranks.size() == 1
    if alone and any(isinstance(m, _NORMS) for m in model.modules()):
        raise BatchSizeError(
            "a minibatch of one image: BatchNorm cannot normalise it in training; use "
            "train_mb_size ≥ 2, and drop_last=True unless the experience is smaller than that"
        )
    labels = labels.to(device, non_blocking=True)
    if "labels" in model.needs:
        needed["labels"] = labels
    return Minibatch(views, labels, needed, index)


def _check_labels(labels: Tensor, model: SelfSupervisedMethod) -> None:
    if "labels" in model.needs and (labels == -1).any():
        raise LabelError("a supervised method met a sample without a label: use labelled data")
    classes = model.num_classes
    if classes is None or labels.is_floating_point():
        return
    outside = labels[(labels < -1) | (labels >= classes)]
    if len(outside):
        raise LabelError(
            f"label {int(outside[0])} lies outside the {classes} classes that were declared: "
            "num_classes must cover all classes of the stream (−1 means: no label)"
        )
