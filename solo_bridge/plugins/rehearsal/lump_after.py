"""LUMP as its authors run it: augmented views are mixed, in every minibatch but the first."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import ViewsError
from avalanche_branchtune.options import positive
from solo_bridge.plugins.rehearsal import mixing
from solo_bridge.plugins.rehearsal.lump_procedure import Procedure
from solo_bridge.plugins.rehearsal.remembering import (
    Held,
    MinibatchMemory,
    Remembered,
    copied,
)
from solo_bridge.plugins.rehearsal.replay_view import (
    Augment,
    ReplayView,
    augmenting,
    check_replay_view,
    seeds_for,
    stacked,
)


class AfterAugmentation(Procedure):
    """Views are mixed with those of remembered images, one ν for the whole minibatch.

    Once something is remembered, each minibatch of N images is joined with N
    remembered ones, drawn without replacement: view 1 becomes ``ν · view 1 +
    (1 − ν) ·`` a new view of the remembered image, and every further view ``ν ·
    view + (1 − ν) ·`` that view as it was when the image was stored.  After the
    optimizer's step the images without augmentation and their unmixed further
    views are offered to the memory
    (:class:`~solo_bridge.plugins.rehearsal.remembering.MinibatchMemory`): an
    image counts again each time it is presented.

    Images are kept as the data set gives them to the views; where it changes
    them at random itself, as it gives them another time.

    Authors' code: divyam3897/UCL cfaa81d, models/mixup.py, Mixup.observe; its differences stand in
    :class:`~solo_bridge.plugins.rehearsal.lump.LUMPPlugin`.

    :param memory: number of images.
    :param alpha: α.
    :param replay_view: what makes the new view.
    :raises UnknownOptionError: for numbers that are not positive, or no view.
    """

    needs = frozenset({"index"})

    def __init__(self, memory: int, alpha: float, replay_view: ReplayView) -> None:
        """See the class."""
        self.memory = MinibatchMemory(memory, "LUMPPlugin")
        self.alpha = positive("LUMPPlugin(alpha=…)", alpha)
        self.replay_view = check_replay_view("LUMPPlugin(replay_view=…)", replay_view)
        self._augment: Augment | None = None
        self._next: Held | None = None

    @property
    def images(self) -> list[Any]:
        """The images that are remembered."""
        return [item.image for item in self.memory.held.items]

    def refuse(self, strategy: Any) -> None:
        """Refuse a strategy of unknown views, unless it was said how new ones are made."""
        self._augment = augmenting(self.replay_view, strategy, "LUMPPlugin")

    def begin(self, strategy: Any) -> None:
        """Begin from what is remembered, or was before the experience's first time."""
        self.memory.begin(strategy)

    def before_step(self, strategy: Any) -> None:
        """See what is to be remembered of the views, and mix them."""
        views = strategy.minibatch.views

        def unmixed(places: list[int], images: list[Any]) -> list[Remembered]:
            kept = [ranks.rows_of(view, places) for view in views[1:]]
            rows = [tuple(copied(view[row]) for view in kept) for row in range(len(places))]
            return [Remembered(image, kept) for image, kept in zip(images, rows, strict=True)]

        self._next = self.memory.with_minibatch(strategy, unmixed)
        if self.memory.held.items:
            self._mix(views, strategy)

    def after_step(self, strategy: Any) -> None:
        """Remember the minibatch."""
        if self._next is not None:
            self.memory.take(self._next)
            self._next = None

    def _mix(self, views: list[Tensor], strategy: Any) -> None:
        """Put mixtures in the place of the views."""
        assert self._augment is not None, "the plugin refuses before it begins"
        total = len(views[0]) * ranks.size()
        chosen = self.memory.some(total)
        share = mixing.share(self.alpha)
        kept = zip(*(item.kept for item in chosen), strict=True)
        images = [item.image for item in chosen]
        others = [self._augment(images, seeds_for(total, strategy))]
        others += [stacked(rows, "LUMPPlugin") for rows in kept]
        if len(others) != len(views):
            raise ViewsError(
                f"LUMPPlugin remembers images with {len(others)} views and cannot mix them with "
                f"{len(views)}: give all experiences the same augmentations"
            )
        for number, other in enumerate(others):
            view = views[number]
            if view.shape != other.shape:
                raise ViewsError(
                    f"LUMPPlugin cannot mix view {number + 1}, {tuple(view.shape[1:])}, with that "
                    f"of remembered images, {tuple(other.shape[1:])}: give all experiences the "
                    "same augmentations, and replay_view=… the first view's size"
                )
            views[number] = share * view + (1 - share) * other.to(view)
