"""The view that is made of a remembered image each time it is replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils.data import default_collate

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import UnknownOptionError, ViewsError
from avalanche_branchtune.loading import draw_from, drawing_from
from solo_bridge.augmentation import Augmentation
from solo_bridge.views import BatchedViews, Decode, Decoded, EvalTransform, solo_views

T = TypeVar("T")

SEEDS = 2**62
"""Seeds are drawn below it."""

ReplayView: TypeAlias = Augmentation | Callable[[Any], Tensor] | None
"""A pipeline, or a function from an image to its view ``(C, H, W)``; None for crop and flip."""


Augment: TypeAlias = Callable[[Sequence[Any], Sequence[int] | None], Tensor]
"""From remembered images, and a seed for each or None, to a view of each, ``(N, C, H, W)``."""


def seeds_for(count: int, strategy: Any) -> Sequence[int] | None:
    """Return this rank's share of new seeds, of a view each, from torch's generator.

    :param count: of the views of the whole minibatch.
    :param strategy: in training.
    :return: None if its views are drawn from the global random states.
    """
    if strategy.views_seed is None:
        return None
    return ranks.own(torch.randint(SEEDS, (count,)).tolist())


def each(make: Callable[[Any], T], images: Sequence[Any], seeds: Sequence[int] | None) -> list[T]:
    """Return what is made of each image, what it draws at random being drawn from its seed.

    :param make: from an image to what is made of it.
    :param images: the images.
    :param seeds: one for each; None for the global random states.
    """
    if not seeds:
        return [make(image) for image in images]
    found = []
    with drawing_from(seeds[0]):
        for image, seed in zip(images, seeds, strict=True):
            draw_from(seed)
            found.append(make(image))
    return found


class EachImage:
    """Views that are made of one image after the other.

    :param view: from an image to its view.
    :param plugin: for messages.
    """

    def __init__(self, view: Callable[[Any], Tensor], plugin: str) -> None:
        """See the class."""
        self.view = view
        self.plugin = plugin

    def __call__(self, images: Sequence[Any], seeds: Sequence[int] | None = None) -> Tensor:
        """Return ``(N, C, H, W)``."""
        return stacked(each(self.view, images, seeds), self.plugin)


class OneView:
    """The view that solo-learn's pipeline makes of an image.

    :param augmentation: the pipeline's settings.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        """See the class."""
        self._views = solo_views([replace(augmentation, num_crops=1)])

    def __call__(self, image: Any) -> Tensor:
        """Return ``(3, H, W)``."""
        return self._views(image)[0]


class AtOnce:
    """Views that are made of all images at once, on a device.

    :param augmentation: the pipeline's settings.
    :param device: where the views are.
    """

    def __init__(self, augmentation: Augmentation, device: torch.device) -> None:
        """See the class."""
        self._views = BatchedViews([replace(augmentation, num_crops=1)])
        self._device = device

    def __call__(self, images: Sequence[Any], seeds: Sequence[int] | None = None) -> Tensor:
        """Return ``(N, 3, H, W)``."""
        decoded: Decoded = default_collate(each(Decode(), images, seeds))
        there = decoded.to(self._device)
        return self._views(there.pixels, there.seeds, there.sizes)[0]


def check_replay_view(argument: str, view: ReplayView) -> ReplayView:
    """Refuse what makes no views.

    :param argument: what was set, as the user wrote it.
    :param view: what was given.
    :raises UnknownOptionError: for anything else.
    """
    if view is None or isinstance(view, Augmentation) or callable(view):
        return view
    raise UnknownOptionError(
        f"{argument}: expected an Augmentation, or a function from an image to its view "
        f"(C, H, W); got {view!r}"
    )


def augmenting(view: ReplayView, strategy: Any, plugin: str) -> Augment:
    """Return what makes new, augmented views of remembered images, as the strategy makes its own.

    :param view: what was asked for.
    :param strategy: whose first pipeline says size, mean and deviation unless one was.
    :param plugin: for messages.
    :raises ViewsError: if neither is known.
    """
    view = crop_and_flip(strategy, plugin) if view is None else view
    if not isinstance(view, Augmentation):
        return EachImage(view, plugin)
    if strategy.batched_views is not None:
        return AtOnce(view, strategy.device)
    return EachImage(OneView(view), plugin)


def plain(view: ReplayView, strategy: Any, plugin: str) -> Augment:
    """Return what makes views without augmentation: resized and normalised.

    :param view: whose size, mean and deviation; a function is taken as it is.
    :param strategy: see :func:`augmenting`.
    :param plugin: for messages.
    :raises ViewsError: see :func:`augmenting`.
    """
    view = crop_and_flip(strategy, plugin) if view is None else view
    if isinstance(view, Augmentation):
        return EachImage(EvalTransform(view.crop_size, view.mean, view.std), plugin)
    return EachImage(view, plugin)


def crop_and_flip(strategy: Any, plugin: str) -> Augmentation:
    """Return the pipeline of remembered images: a random crop, mirrored half of the time.

    Authors' code: divyam3897/UCL cfaa81d, datasets/seq_cifar10.py, get_transform.

    :param strategy: whose first pipeline says size, mean and deviation.
    :param plugin: for messages.
    :raises ViewsError: if it has none.
    """
    if not strategy.augmentations:
        raise ViewsError(
            f"{plugin} makes new views of remembered images, but how this strategy's views are "
            "made is not known: pass replay_view=Augmentation(crop_size=…, mean=…, std=…, …), "
            "normalised as they are"
        )
    first = strategy.augmentations[0]
    return Augmentation(
        crop_size=first.crop_size,
        crop_min_scale=0.08,
        jitter_prob=0.0,
        grayscale_prob=0.0,
        flip_prob=0.5,
        mean=first.mean,
        std=first.std,
    )


def stacked(views: Sequence[Tensor], plugin: str) -> Tensor:
    """Return views of several remembered images as one minibatch ``(N, C, H, W)``.

    :param views: each ``(C, H, W)``.
    :param plugin: for messages.
    :raises ViewsError: for views of different shapes.
    """
    shapes = {tuple(view.shape) for view in views}
    if len(shapes) > 1:
        raise ViewsError(
            f"{plugin}: views of remembered images have different shapes, {sorted(shapes)}: give "
            "all experiences the same augmentations, and replay_view=… one size"
        )
    return torch.stack(list(views))
