"""A minibatch as a method's loss takes it: views, labels, and what else the method asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from avalanche_branchtune.errors import BatchSizeError, LabelError
from solo_bridge.interface import SelfSupervisedMethod
from solo_bridge.views import as_view_list

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Minibatch:
    """What one step is made on.

    :param views: each ``(N, C, H, W)``, the same images in each.
    :param labels: ``(N,)``, −1 where there is none.
    :param needed: further arguments of the loss, see :attr:`SelfSupervisedMethod.needs`.
    """

    views: list[Tensor]
    labels: Tensor
    needed: dict[str, Tensor]


class Indexed(Dataset[Any]):
    """A data set whose items end with their number.

    :param dataset: the data set.
    """

    def __init__(self, dataset: Any) -> None:
        """See the class."""
        self.dataset = dataset

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> list[Any]:
        """Return ``[*item, index]``."""
        return [*self.dataset[index], index]


def unpack(
    batch: Any, model: SelfSupervisedMethod, device: torch.device, *, training: bool = True
) -> Minibatch:
    """Bring what a data loader yields into the form that a method's loss takes.

    :param batch: views, or a list of views and labels and perhaps more; it ends
        with the samples' numbers if the method needs them, see :class:`Indexed`.
    :param model: the method.
    :param device: where the tensors go.
    :param training: whether it is to be trained on.
    :raises ViewsError: for views that do not fit the method.
    :raises LabelError: for a label outside of the method's classes, or none where
        the method needs one.
    :raises BatchSizeError: for a single image in training, where BatchNorm is.
    """
    parts = list(batch) if isinstance(batch, list | tuple) else [batch]
    needed: dict[str, Tensor] = {}
    if "index" in model.needs:
        needed["index"] = parts.pop().to(device)
    views = as_view_list(parts[0])
    model.check_views(views)
    samples = views[0].shape[0]
    labels = parts[1] if len(parts) > 1 else torch.full((samples,), -1)
    _check_labels(labels, model)
    if training and samples == 1 and any(isinstance(m, _NORMS) for m in model.modules()):
        raise BatchSizeError(
            "a minibatch of one image: BatchNorm cannot normalise it in training; use "
            "train_mb_size ≥ 2, and drop_last=True unless the experience is smaller than that"
        )
    views = [v.to(device, non_blocking=True) for v in views]
    labels = labels.to(device, non_blocking=True)
    if "labels" in model.needs:
        needed["labels"] = labels
    return Minibatch(views, labels, needed)


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
