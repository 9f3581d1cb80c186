"""Labelled images beside the training data, from which an online probe can learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.stream import datasets_of
from avalanche_branchtune.experiences import experience_index, seen_experiences, stream_length
from avalanche_branchtune.loading import EndlessMinibatches, ExperienceLoader, mixed_seed
from avalanche_branchtune.options import at_least, at_least_one, one_of

EXPERIENCES = {
    "all": "all experiences, also of those to come",
    "seen": "the experiences so far and the one in training",
    "current": "the experience in training",
}
"""Which experiences' images, and how that is said beside the numbers."""

EPOCH = "epoch"
"""The size of minibatches by which an epoch goes through all images once."""

APART = 1
"""Lets these images draw other numbers than the training's own."""


class LabelledImages:
    """Labelled images of some experiences, one augmented view each, in minibatches without end.

    Each epoch begins anew with all of them, shuffled; the last, incomplete minibatch is dropped
    unless it is the only one, and what is used up before the epoch ends begins anew.  Shuffling
    and augmentation draw from the global random state, or from a seed if the strategy's views do
    (``reproducible_views`` of :class:`solo_bridge.SelfSupervised`).

    Authors' code: DonkeyShot21/cassle b5b0929, main_pretrain.py and
    cassle/utils/pretrain_dataloader.py, prepare_datasets and prepare_dataloader: ``"all"``, in
    minibatches of the training's size; dr-bell/kaizen e36ee54, main_pretrain.py,
    ``--online_evaluation_training_data_source``, of which the scripts choose ``"seen"``, with
    ``batch_size="epoch"``.

    :param stream: training experiences, or data sets, in the stream's order; their samples are
        ``(image, label, …)``, label −1 where there is none.
    :param experiences: whose images: ``"all"``, also those of experiences to come; ``"seen"``,
        those begun so far; ``"current"``, that of the experience in training.
    :param transform: from a sample's image, as the data gives it in training, to a view
        ``(C, H, W)``, or to a list of which the last one is taken.  By default the strategy's
        ``views``, if it has any, of which the last full-size one is taken, so that of the
        method's last pipeline (the others are made in vain: a transform of that pipeline alone
        saves their time); else the image as it is.
    :param batch_size: images in a minibatch; by default ``train_mb_size``; ``"epoch"`` for
        as many as let an epoch go through all images once (Kaizen's).
    :param num_workers: worker processes of the loader.
    :raises ProbeError: for a stream without experiences, or with an empty one.
    :raises UnknownOptionError: for another option.
    """

    def __init__(
        self,
        stream: Iterable[Any],
        *,
        experiences: str = "all",
        transform: Callable[[Any], Any] | None = None,
        batch_size: int | str | None = None,
        num_workers: int = 0,
    ) -> None:
        """See the class."""
        self.datasets = datasets_of(stream)
        if not self.datasets or any(isinstance(d, tuple | Tensor) for d in self.datasets):
            raise ProbeError(
                "LabelledImages(stream=…): expected training experiences, or a list of data sets; "
                f"got {'none' if not self.datasets else 'the samples of one data set'}"
            )
        if any(len(d) == 0 for d in self.datasets):
            raise ProbeError("LabelledImages(stream=…): one of its experiences has no samples")
        self.experiences = one_of("LabelledImages(experiences=…)", experiences, EXPERIENCES)
        self.transform = transform
        if isinstance(batch_size, str):
            one_of("LabelledImages(batch_size=…)", batch_size, (EPOCH,))
        elif batch_size is not None:
            at_least_one("LabelledImages(batch_size=…)", batch_size)
        self.batch_size = batch_size
        self.num_workers = at_least(0, "LabelledImages(num_workers=…)", num_workers)

    def settings(self) -> dict[str, Any]:
        """Return what decides which images there are, as it is said beside the numbers."""
        sizes: dict[Any, str] = {None: "the training's", EPOCH: "1 / steps of all of them"}
        return {
            "trained on": f"labelled images of {EXPERIENCES[self.experiences]}, one augmented view "
            "each, beside the training data",
            "labelled minibatch": sizes.get(self.batch_size, self.batch_size),
        }

    def views(self, strategy: Any) -> Dataset[tuple[Tensor, int]]:
        """Return the images that belong to the experience in training, as views with labels.

        :param strategy: in training.
        :raises ProbeError: if another stream is in training and its experiences matter.
        """
        data = [self.datasets[i] for i in self._indices(strategy)]
        data = [d.train() if hasattr(d, "with_transforms") else d for d in data]
        large = getattr(strategy.model, "large_views", None)
        own = getattr(strategy, "views", None)
        late = getattr(strategy, "batched_views", None) is not None
        return _OneView(ConcatDataset(data), self.transform, own, large, late)

    def images(self, strategy: Any, collated: Any) -> Tensor:
        """Return images of :meth:`views`, collated, as the network takes them.

        :param strategy: in training; it makes views of a minibatch at once if it does so in
            training.
        :param collated: what a loader yields.
        :return: ``(N, C, H, W)`` on the strategy's device.
        """
        if isinstance(collated, Tensor):
            return collated.to(strategy.device)
        found: Tensor = strategy.views_of(collated)[: strategy.model.large_views][-1]
        return found

    def _indices(self, strategy: Any) -> list[int]:
        n, length = len(self.datasets), stream_length(strategy)
        if self.experiences == "all" or length == 1:  # joint training sees all at once
            return list(range(n))
        indices = [experience_index(strategy)]
        if self.experiences == "seen":
            indices = seen_experiences(strategy)
        if length not in (None, n) or max(indices) >= n:
            raise ProbeError(
                f"LabelledImages(experiences={self.experiences!r}): the stream in training has "
                f"{length or 'more'} experiences, the one that was given {n}: pass the stream in "
                "training itself, or experiences='all'"
            )
        return indices

    def minibatches(
        self, strategy: Any, place: tuple[int, int] = (0, 0)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Begin an epoch: return minibatches ``(N, C, H, W)`` with labels ``(N,)``, without end.

        :param strategy: in training, with the loader of the experience.
        :param place: where to begin, if they are drawn from a seed; see
            :class:`~avalanche_branchtune.loading.EndlessMinibatches`.
        """
        views = self.views(strategy)
        samples: int = len(views)  # type: ignore[arg-type]
        if isinstance(self.batch_size, str):
            size = math.ceil(samples / max(1, len(strategy.dataloader)))
            size += -size % ranks.size()  # which share it
        else:
            size = self.batch_size or int(strategy.train_mb_size)
        loader = DataLoader(
            views,
            batch_size=min(size, samples),
            shuffle=True,
            drop_last=True,
            num_workers=self.num_workers,
        )
        seed = getattr(strategy, "views_seed", None)
        if seed is None:
            return _without_end(loader)
        clock = strategy.clock
        seed = mixed_seed(seed, APART, clock.train_exp_epochs)
        own = ExperienceLoader(loader, seed, clock.train_exp_counter, name="the labelled images")
        return EndlessMinibatches(own, place)


def _without_end(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        ranks.rest(loader.num_workers)
        yield from loader


class _OneView(Dataset[tuple[Tensor, int]]):
    """Samples as one view and a label.

    :param data: samples ``(image, label, …)``.
    :param transform: what the user wants.
    :param own: the strategy's views of an image that is no list of views yet.
    :param large: how many of the strategy's views are full-size, None for all.
    :param late: whether the strategy makes its views of minibatches: then samples have the image.
    """

    def __init__(
        self,
        data: ConcatDataset[Any],
        transform: Callable[[Any], Any] | None,
        own: Callable[[Any], Any] | None,
        large: int | None,
        late: bool,
    ) -> None:
        self.data = data
        self.transform = transform
        self.own = own
        self.large = large
        self.late = late

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        sample = self.data[index]
        if not isinstance(sample, tuple | list) or len(sample) < 2:
            raise ProbeError("LabelledImages: expected samples (image, label, …): there is none")
        view = sample[0]
        if self.transform is not None:
            view = self.transform(view)
            view = view[-1] if isinstance(view, tuple | list) else view
        else:
            if self.own is not None and not isinstance(view, tuple | list):
                view = self.own(view)
            if isinstance(view, tuple | list):
                view = list(view)[: self.large][-1]
        if not isinstance(view, Tensor) and (self.transform is not None or not self.late):
            raise ProbeError(
                f"LabelledImages: expected a view (C, H, W) as a tensor, got {type(view).__name__}:"
                " pass transform=…, from the data's images to views"
            )
        return view, int(torch.as_tensor(sample[1]))
