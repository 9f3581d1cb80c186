"""From an experience to the minibatches of views that a strategy trains on."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import torch
from avalanche.training.templates.base_sgd import BaseSGDTemplate
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import EmptyExperienceError, UnknownOptionError, ViewsError
from avalanche_branchtune.experiences import experience_index, torch_loader
from avalanche_branchtune.keeping import random_state_kept
from avalanche_branchtune.loading import ExperienceLoader, first_readable
from avalanche_branchtune.options import one_of
from solo_bridge.augmentation import Augmentation
from solo_bridge.compiling import Compiled
from solo_bridge.interface import SelfSupervisedMethod
from solo_bridge.minibatch import Indexed, Minibatch, collates_parts, unpack
from solo_bridge.views import (
    BatchedViews,
    Decode,
    Decoded,
    InMemory,
    Views,
    as_view_list,
    in_memory,
    solo_views,
    with_views,
    yields_views,
)

logger = logging.getLogger(__name__)

VIEWS = ("solo_learn", "batched")


class Feeding(BaseSGDTemplate):
    """The part of :class:`~solo_bridge.SelfSupervised` that deals with data."""

    model: SelfSupervisedMethod
    mbatch: Any
    clock: Any
    dataloader: Any
    minibatch: Minibatch
    """The current minibatch."""
    views: Views | Decode | None
    """From an image to its views, or to what :attr:`batched_views` makes them of."""
    batched_views: BatchedViews | None
    """From a minibatch of images to their views; None if views are made of each image."""
    augmentations: tuple[Augmentation, ...]
    """Pipelines of the views; empty if views of unknown making were given."""
    in_memory: bool | None
    channels_last: bool | None
    compiled: Compiled
    on_bad_image: str
    views_seed: int | None
    """Seed of order and views, None if they are drawn from the global random states."""
    replaced_images: dict[str, int]
    """How often an image that cannot be read was replaced, by its file."""
    _replaced_here: dict[str, int]
    """The same of this one of several processes, since they were last added up."""

    def _with_views(self, experience: Any) -> Any:
        """Return the experience itself if its data yields views, else a copy that does."""
        dataset = experience.dataset
        if len(dataset) == 0:
            index = getattr(experience, "current_experience", "?")
            raise EmptyExperienceError(f"experience {index} has no samples to train on")
        if self.views is None or yields_views(dataset.train()):
            return experience
        # A copy, so that plugins that store experience.dataset (replay) store views too.
        viewed = copy.copy(experience)
        viewed._dataset = with_views(dataset, self.views)
        viewed._plain_data = dataset.train()
        return viewed

    def eval_dataset_adaptation(self, **kwargs: Any) -> None:
        """Evaluate the loss on views, made as in training."""
        dataset = self._with_views(self.experience).dataset.train()
        self.adapted_dataset = Indexed(dataset) if "index" in self.model.needs else dataset

    def train_dataset_adaptation(self, **kwargs: Any) -> None:
        """Take the experience's data, with the samples' numbers if anyone needs them."""
        self.adapted_dataset = self.training_data()

    def training_data(self) -> Any:
        """Return the experience's own samples as training sees them, without replayed ones."""
        dataset = self.experience.dataset.train()
        needs = self.model.needs.union(*(getattr(p, "needs", ()) for p in self.plugins))
        return Indexed(dataset) if "index" in needs else dataset

    def plain_data(self, plugin: str) -> Any:
        """Return the experience's own samples before views are made of them, in the same order.

        :param plugin: who asks, for the message.
        :raises ViewsError: if the data yields views by itself.
        """
        data = getattr(self.experience, "_plain_data", None)
        if data is None:
            raise ViewsError(
                f"{plugin} takes images before views are made of them, but the data yields views "
                "by itself: let its training transform return the image, and pass "
                "SelfSupervised(views=…)"
            )
        return data

    def make_train_dataloader(self, drop_last: bool = True, **kwargs: Any) -> None:
        """Make the loader; the last, incomplete minibatch is dropped if there are others."""
        enough = len(self.adapted_dataset) >= self.train_mb_size
        super().make_train_dataloader(drop_last=drop_last and enough, **kwargs)

    def make_eval_dataloader(
        self, num_workers: int = 0, persistent_workers: bool = False, **kwargs: Any
    ) -> None:
        """Make the loader of :meth:`eval`; minibatches are as in training."""
        ranks.rest(num_workers)
        self.dataloader = DataLoader(
            self.adapted_dataset,
            batch_size=self.eval_mb_size,
            num_workers=num_workers,
            persistent_workers=persistent_workers,
            drop_last=len(self.adapted_dataset) >= self.eval_mb_size,
        )

    def unpacked(self, batch: Any) -> Minibatch:
        """Return a minibatch of a data loader as the method's loss takes it, on the device.

        :param batch: what the loader yields; the strategy is left as it is.
        :raises BranchTuneError: see :func:`solo_bridge.minibatch.unpack`.
        """
        minibatch = unpack(batch, self.model, self.device, self.views_of, training=self.is_training)
        if self.channels_last:
            views = [v.contiguous(memory_format=torch.channels_last) for v in minibatch.views]
            return replace(minibatch, views=views)
        return minibatch

    def views_of(self, images: Any) -> list[Tensor]:
        """Return the views that the images of a minibatch are compared by, on the device.

        :param images: what the data set yields first, collated: views, or
            :class:`~solo_bridge.views.Decoded` images, of which they are made here.
        :return: each ``(N, C, H, W)``.
        :raises ViewsError: for anything else.
        """
        if isinstance(images, Decoded) and self.batched_views is not None:
            there = images.to(self.device)
            make = self.compiled.function(self.batched_views)
            return make(there.pixels, there.seeds, there.sizes)
        return [v.to(self.device, non_blocking=True) for v in as_view_list(images)]

    def first_view(self) -> Tensor:
        """Return the first view of the first readable sample, ``(C, H, W)``, on the device."""
        with random_state_kept():
            sample = first_readable(self.adapted_dataset)
        image = sample[0] if isinstance(sample, list | tuple) else sample
        if isinstance(image, Decoded):
            return self.views_of(default_collate([image]))[0][0]
        return self.views_of(image)[0]

    def _unpack_minibatch(self) -> None:
        self.minibatch = self.unpacked(self.mbatch)
        if self.is_training:
            self.minibatch = self.minibatch.with_whole_needed()
        self.mbatch = [self.minibatch.views, self.minibatch.labels]

    @property
    def mb_x(self) -> list[Tensor]:
        """The current minibatch's views, each ``(N, C, H, W)``."""
        return self.mbatch[0]

    @property
    def mb_y(self) -> Tensor:
        """The current minibatch's labels ``(N,)``, −1 where there is none."""
        return self.mbatch[1]

    def own_loader(self) -> None:
        """Put a loader in place that knows seeds, images that cannot be read, and memory."""
        skips = self.on_bad_image == "skip"
        replaced = self._replaced_here if ranks.joined() else self.replaced_images
        if self.views_seed is not None or skips or torch_loader(self.dataloader) is not None:
            self.dataloader = ExperienceLoader(
                self.dataloader,
                self.views_seed,
                self.clock.train_exp_counter,
                name=f"experience {experience_index(self)}",
                replaced=replaced if skips else None,
            )
            self._keep_in_memory(self.dataloader)
        elif self.in_memory:
            raise ViewsError(
                f"SelfSupervised(in_memory=True): the data loader {type(self.dataloader).__name__} "
                "is none of torch's over numbered samples: pass in_memory=None"
            )

    def loader_of(
        self, data: Any, batch_size: int, *, name: str | None = None, **settings: Any
    ) -> Any:
        """Return a loader of shuffled data for a plugin, which takes bad images as training does.

        :param data: of views.
        :param batch_size: of a minibatch.
        :param name: of the data, for messages; the experience's by default.
        :param settings: of torch's loader.
        """
        ranks.rest(settings.get("num_workers", 0))
        loader: Any = DataLoader(data, batch_size, shuffle=True, **settings)
        if self.on_bad_image != "skip":
            return loader
        counted = self._replaced_here if ranks.joined() else self.replaced_images
        name = name or f"experience {experience_index(self)}"
        return ExperienceLoader(loader, name=name, replaced=counted if ranks.leads() else {})

    def _keep_in_memory(self, loader: ExperienceLoader) -> None:
        """Let the loader have its data in memory, if that is wanted and possible."""
        if self.batched_views is None or self.in_memory is False:
            return
        kept: InMemory | str = "they are collated in a way of their own"
        if collates_parts(loader.collate_fn):
            with random_state_kept():
                kept = in_memory(loader.dataset, loader.collate_fn, self.device, loader.num_workers)
        if not isinstance(kept, str):
            loader.table = kept
        elif self.in_memory:
            raise ViewsError(
                f"SelfSupervised(in_memory=True): the samples of {loader.name} cannot be kept in "
                f"memory: {kept}. Pass in_memory=None to load them again in each epoch"
            )
        else:
            logger.info("%s is loaded again in each epoch: %s", loader.name, kept)

    def add_up_replaced_images(self) -> None:
        """Count what all of a job's processes replaced; all ranks."""
        for counts in ranks.of_all(self._replaced_here):
            for name, count in counts.items():
                self.replaced_images[name] = self.replaced_images.get(name, 0) + count
        self._replaced_here.clear()

    def warn_of_replaced_images(self) -> None:
        """Say which images could not be read so far."""
        self.add_up_replaced_images()
        if self.replaced_images and ranks.leads():
            first = ", ".join(list(self.replaced_images)[:5])
            logger.warning(
                "%d images could not be read so far, and were replaced %d times by others of "
                "their minibatches: %s%s",
                len(self.replaced_images),
                sum(self.replaced_images.values()),
                first,
                " …" if len(self.replaced_images) > 5 else "",
            )


def chosen_views(
    views: Views | BatchedViews | str | None, model: SelfSupervisedMethod
) -> tuple[Views | Decode | None, BatchedViews | None, tuple[Augmentation, ...]]:
    """Return what data yields, what makes views of that by the minibatch, and the pipelines.

    :param views: see :class:`~solo_bridge.SelfSupervised`.
    :param model: whose pipelines they are, unless others are given.
    :raises UnknownOptionError: for another name, and for a method that says no pipelines.
    """
    if views is None:
        return model.default_views(), None, tuple(model.augmentations)
    if isinstance(views, str):
        one_of("SelfSupervised(views=…)", views, VIEWS)
        if not model.augmentations:
            raise UnknownOptionError(
                f"SelfSupervised(views={views!r}): {type(model).__name__} says no augmentations "
                "that views could be made by: pass BatchedViews([Augmentation(…), …])"
            )
        pipelines = tuple(model.augmentations)
        if views == "solo_learn":
            return solo_views(pipelines), None, pipelines
        views = BatchedViews(pipelines)
    if isinstance(views, BatchedViews):
        return Decode(), views, views.augmentations
    return views, None, ()
