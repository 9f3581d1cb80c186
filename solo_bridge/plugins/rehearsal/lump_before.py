"""Another procedure than LUMP's authors': images are mixed before they are augmented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avalanche_branchtune.errors import IncompatiblePluginError, ViewsError
from avalanche_branchtune.experiences import experience_key
from avalanche_branchtune.keeping import random_state_kept
from avalanche_branchtune.loading import UNREADABLE, first_readable
from avalanche_branchtune.options import at_least_one, positive
from solo_bridge.plugins.rehearsal.lump_procedure import Procedure
from solo_bridge.plugins.rehearsal.mixing import mixed, pixels, share
from solo_bridge.plugins.rehearsal.plain_images import plain_image
from solo_bridge.plugins.rehearsal.reservoir import Reservoir
from solo_bridge.views import Views


class Mixing:
    """What the procedure and its views share; loader processes have a copy.

    :param alpha: of the Beta distribution.
    """

    def __init__(self, alpha: float) -> None:
        """See the class."""
        self.alpha = alpha
        self.images: list[Any] = []
        """The memory."""
        self.active = False
        """Whether images are mixed: while an experience is trained."""


class MixedViews:
    """Views of an image that was mixed with one of the memory.

    :param views: from an image to its views.
    :param mixing: shared with the procedure.
    """

    def __init__(self, views: Views, mixing: Mixing) -> None:
        """See the class."""
        self.views = views
        self.mixing = mixing

    def __call__(self, image: Any) -> Sequence[Tensor]:
        """Return the views, all of the same mixed image."""
        state = self.mixing
        if state.active and state.images:
            other = state.images[int(torch.randint(len(state.images), ()))]
            image = mixed(image, other, share(state.alpha))
        return self.views(image)


class BeforeAugmentation(Procedure):
    """Each image is mixed with a random one of the memory, with a ν of its own, then augmented.

    From the second experience on an image x becomes ``ν · x + (1 − ν) · m``,
    m and ν drawn anew each time it is loaded; all its views are made of that
    mixture.  One of another size or mode is fitted to the new image, see
    :func:`solo_bridge.plugins.rehearsal.mixing.mixed`.

    When an experience ends, a reservoir is updated from its images: a uniform
    sample of the images of the stream so far.

    Against the authors' procedure, see
    :class:`~solo_bridge.plugins.rehearsal.lump_after.AfterAugmentation`: images
    are mixed, not views; ν is drawn for each image, not for each minibatch;
    several images of a minibatch may be mixed with the same one; an image
    enters the memory once, not in each epoch.

    :param memory: number of images.
    :param alpha: α.
    :raises UnknownOptionError: for numbers that are not positive.
    """

    def __init__(self, memory: int, alpha: float) -> None:
        """See the class."""
        at_least_one("LUMPPlugin(memory=…)", memory)
        self.mixing = Mixing(positive("LUMPPlugin(alpha=…)", alpha))
        self.reservoir = Reservoir(memory)
        self._before_eval = False
        self._taken: tuple[str, int] | None = None

    @property
    def images(self) -> list[Any]:
        """The images that are remembered."""
        return self.mixing.images

    def wrap_views(self, views: Views | None) -> Views:
        """Put the mixing before the views."""
        if views is None:
            raise ViewsError(
                "LUMPPlugin mixes images before they are augmented, but the strategy makes no "
                "views: let the data set return images, and pass SelfSupervised(views=…)"
            )
        return MixedViews(views, self.mixing)

    def refuse(self, strategy: Any) -> None:
        """Refuse a strategy whose views were made without this procedure."""
        views = getattr(strategy, "views", None)
        if not (isinstance(views, MixedViews) and views.mixing is self.mixing):
            raise IncompatiblePluginError(
                "LUMPPlugin is not around the views of this strategy: pass it to "
                "SelfSupervised(plugins=[…]), not to its list of plugins afterwards"
            )

    def begin(self, strategy: Any) -> None:
        """Begin to mix, if something is remembered."""
        with random_state_kept():
            pixels(plain_image([first_readable(strategy.plain_data("LUMPPlugin"))], 0))
        self.mixing.active = True

    def end(self, strategy: Any) -> None:
        """Update the memory, once if an experience is trained again."""
        self.mixing.active = False
        key = experience_key(strategy, part=True)
        if key == self._taken:
            return
        data = strategy.plain_data("LUMPPlugin")
        draw = self.reservoir.draw(len(data))
        new, unread = list[Any](), list[int]()
        for place, i in enumerate(draw.enter, start=len(draw.stay)):
            try:
                new.append(plain_image(data, i))
            except UNREADABLE:
                if strategy.on_bad_image != "skip":
                    raise
                unread.append(place)
        self.mixing.images = [self.mixing.images[i] for i in draw.stay] + new
        self.reservoir.take(draw, without=unread)
        self._taken = key

    def pause(self) -> None:
        """Mix nothing while the loss is evaluated."""
        self._before_eval, self.mixing.active = self.mixing.active, False

    def go_on(self) -> None:
        """Go on mixing if training goes on."""
        self.mixing.active = self._before_eval
