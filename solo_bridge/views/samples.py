"""Data sets and minibatches whose samples are lists of views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset, TransformGroups, make_avalanche_dataset
from torch import Tensor

from avalanche_branchtune.errors import ViewsError
from avalanche_branchtune.loading import first_readable
from solo_bridge.views.decoded import Decode, Decoded
from solo_bridge.views.pipelines import Views


def yields_views(dataset: AvalancheDataset) -> bool:
    """Tell whether a data set's items hold lists of views.

    :param dataset: any data set with at least one item.
    :return: True if an item's first element is a list or tuple, or an image of which a
        minibatch of views is to be made.
    """
    item = first_readable(dataset)
    return isinstance(item, tuple | list) and isinstance(item[0], tuple | list | Decoded)


def with_views(dataset: AvalancheDataset, views: Views | Decode) -> AvalancheDataset:
    """Let a data set yield views in training and stay as it is in evaluation.

    :param dataset: an Avalanche data set of images; labels and other
        attributes are kept.
    :param views: from an image to its views, or to what views are made of by the minibatch.
    :return: a data set whose ``train()`` yields ``(views, *rest)``.
    """
    groups = TransformGroups({"train": (views, None), "eval": (None, None)})
    return make_avalanche_dataset(dataset.train(), transform_groups=groups)


def check_views(views: Sequence[Tensor], large: int, small: int, method: str) -> None:
    """Refuse a minibatch whose views do not fit the method.

    :param views: ``large + small`` tensors ``(N, C, H, W)``, the large ones first.
    :param large: number of full-size views that the method compares.
    :param small: number of small views.
    :param method: its name, for the message.
    :raises ViewsError: for another number of views, or for large views of
        different sizes.
    """
    if len(views) != large + small:
        raise ViewsError(
            f"{method} compares {large} views"
            + (f" and {small} small ones" if small else "")
            + f", the data yields {len(views)}: change the augmentations or the method's views"
        )
    for kind, group in (("", views[:large]), ("small ", views[large:])):
        sizes = {tuple(v.shape[1:]) for v in group}
        if len(sizes) > 1:
            raise ViewsError(
                f"{method} takes {kind}views of one size, the data yields {sorted(sizes)}: give "
                "all pipelines the same crop_size"
                + ("" if small else ", or declare small views (small_views=…) where it allows them")
            )


def as_view_list(batch: Any) -> list[Tensor]:
    """Turn the first element of a minibatch into a list of views.

    :param batch: list of ``(N, C, H, W)``, or one tensor ``(N, V, C, H, W)``.
    :return: the views.
    :raises ViewsError: for anything else.
    """
    if isinstance(batch, Tensor) and batch.ndim == 5:
        return list(torch.unbind(batch, dim=1))
    if isinstance(batch, list | tuple) and all(isinstance(v, Tensor) for v in batch):
        return list(batch)
    shape = tuple(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
    raise ViewsError(
        f"a minibatch must hold a list of views (N, C, H, W), got {shape}: let the data set's "
        "training transform return a list, or pass views=… to the strategy"
    )
