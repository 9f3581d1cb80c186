"""After LUMP: mix new images with remembered ones, here before they are augmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor

from avalanche_branchtune.errors import IncompatiblePluginError, ViewsError
from avalanche_branchtune.experiences import experience_key
from avalanche_branchtune.keeping import random_state_kept
from avalanche_branchtune.metrics import OnlineProbe
from avalanche_branchtune.options import at_least_one, positive
from solo_bridge.conflicts import Conflicts
from solo_bridge.plugins.labels import LearnsLabels
from solo_bridge.plugins.rehearsal.mixing import kept, mixed, pixels
from solo_bridge.plugins.rehearsal.reservoir import Reservoir
from solo_bridge.registry import register
from solo_bridge.views import Views


class Mixing:
    """What the plugin and its views share; loader processes have a copy.

    :param alpha: of the Beta distribution.
    """

    def __init__(self, alpha: float) -> None:
        """See the class."""
        self.alpha = alpha
        self.images: list[Any] = []
        """The memory."""
        self.active = False
        """Whether images are mixed: while an experience is trained."""
        self.bare = False
        """Whether images pass as they are, without views: while the memory is filled."""

    def share(self) -> float:
        """Draw ν ~ Beta(α, α) from torch's generator."""
        return float(torch.distributions.Beta(self.alpha, self.alpha).sample())

    @contextmanager
    def bare_images(self) -> Iterator[None]:
        """Let the views pass images on as they are."""
        self.bare = True
        try:
            yield
        finally:
            self.bare = False


class MixedViews:
    """Views of an image that was mixed with one of the memory.

    :param views: from an image to its views.
    :param mixing: shared with the plugin.
    """

    def __init__(self, views: Views, mixing: Mixing) -> None:
        """See the class."""
        self.views = views
        self.mixing = mixing

    def __call__(self, image: Any) -> Sequence[Tensor]:
        """Return the views, all of the same mixed image."""
        state = self.mixing
        if state.bare:
            return image
        if state.active and state.images:
            other = state.images[int(torch.randint(len(state.images), ()))]
            image = mixed(image, other, state.share())
        return self.views(image)


@register("lump", "LUMP")
class LUMPPlugin(SupervisedPlugin):
    """After Madaan et al., "Representational Continuity for Unsupervised …", arXiv 2110.06976.

    This is another procedure than the authors', as said below.

    From the second experience on each image x is mixed with a random image m
    of a memory before it is augmented: ``x̃ = ν · x + (1 − ν) · m`` with
    ν ~ Beta(α, α), drawn anew each time an image is loaded; the method's own
    loss is taken on the views of x̃, all of which have the same ν and m.

    When an experience ends, a reservoir is updated from its images: a uniform
    sample of the stream so far.  Images are remembered as the data set gives
    them to the views, PIL or tensor; one of another size or mode is fitted to
    the new image, see :func:`solo_bridge.plugins.rehearsal.mixing.mixed`.  Random numbers
    are torch's, so that loader processes differ and runs can be repeated.

    Labels are left alone: x̃ keeps x's, so nothing that learns from labels may
    stand beside it.  The loss in ``eval`` is that of unmixed images.

    Authors' code: divyam3897/UCL cfaa81d, models/mixup.py, Mixup.observe; α and memory:
    configs/simsiam_c10.yaml and barlow_c10.yaml.
    Differs: theirs mixes augmented views, ours images before they are augmented.
    Differs: theirs draws one ν for each minibatch, ours one for each image.
    Differs: theirs mixes view 1 with a new view (crop and flip) of the remembered image and view 2
    with the second view remembered of it, ours makes all views of one mixture.
    Differs: theirs draws images without replacement in a minibatch, ours with it.
    Differs: theirs updates the memory after every minibatch, in which an image counts again in each
    epoch, ours at the end of the experience.
    Differs: theirs mixes from the second minibatch of the stream on, ours from the second
    experience on.

    Give it to the strategy's constructor, which puts it around its views.

    :param memory: number of images that are remembered.
    :param alpha: α; the smaller, the closer x̃ is to one of the two.
    :raises UnknownOptionError: for numbers that are not positive.
    :raises ViewsError: if there is no image to mix, because the data yields views.
    :raises IncompatiblePluginError: when training begins, for methods that know
        samples by number or learn from labels.
    """

    supports_distributed = False

    conflicts: ClassVar[Conflicts] = {
        LearnsLabels: "its classifier would learn one label of images mixed from two",
        OnlineProbe: "it would learn one label of images mixed from two: probe after the "
        "experience instead",
        ReplayPlugin: "replayed images would be mixed with remembered ones: keep one of the two",
    }

    def __init__(self, memory: int = 256, alpha: float = 0.4) -> None:
        """See the class."""
        super().__init__()
        at_least_one("LUMPPlugin(memory=…)", memory)
        self.mixing = Mixing(positive("LUMPPlugin(alpha=…)", alpha))
        self.reservoir = Reservoir(memory)
        self._before_eval = False
        self._taken: tuple[str, int] | None = None

    @property
    def images(self) -> list[Any]:
        """The memory: images as they came from the data set."""
        return self.mixing.images

    def wrap_views(self, views: Views | None) -> Views:
        """Put the mixing before the views; called by the strategy's constructor.

        :param views: the strategy's.
        :return: views of mixed images.
        :raises ViewsError: if there are none.
        """
        if isinstance(views, MixedViews):
            raise IncompatiblePluginError(
                "LUMPPlugin beside LUMPPlugin: images would be mixed twice: keep one"
            )
        if views is None:
            raise ViewsError(
                "LUMPPlugin mixes images before they are augmented, but the strategy makes no "
                "views: let the data set return images, and pass SelfSupervised(views=…)"
            )
        return MixedViews(views, self.mixing)

    # ---- events

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what cannot work before anything is trained."""
        views = getattr(strategy, "views", None)
        if not (isinstance(views, MixedViews) and views.mixing is self.mixing):
            raise IncompatiblePluginError(
                "LUMPPlugin is not around the views of this strategy: pass it to "
                "SelfSupervised(plugins=[…]), not to its list of plugins afterwards"
            )
        needs, name = strategy.model.needs, strategy.model.name
        if "labels" in needs:
            raise IncompatiblePluginError(
                f"LUMPPlugin: {name} learns from labels, of which a mixed image would need two"
            )
        if "index" in needs:
            raise IncompatiblePluginError(
                f"LUMPPlugin: {name} remembers embeddings by the number of the sample, and a "
                "mixed image is another one each time"
            )

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begin to mix, if something is remembered."""
        with self.mixing.bare_images(), random_state_kept():
            image = _image(strategy.experience.dataset.train()[0])
        if isinstance(image, list | tuple):
            raise ViewsError(
                "LUMPPlugin mixes images before they are augmented, but the data yields views by "
                "itself: let its training transform return the image, and pass "
                "SelfSupervised(views=…)"
            )
        pixels(image)
        self.mixing.active = True

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Update the memory, once if an experience is trained again."""
        self.mixing.active = False
        key = experience_key(strategy, part=True)
        if key == self._taken:
            return
        dataset = strategy.experience.dataset.train()
        draw = self.reservoir.draw(len(dataset))
        with self.mixing.bare_images():
            new = [kept(_image(dataset[i])) for i in draw.enter]
        self.mixing.images = [self.mixing.images[i] for i in draw.stay] + new
        self.reservoir.take(draw)
        self._taken = key

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Mix nothing while the loss is evaluated."""
        self._before_eval, self.mixing.active = self.mixing.active, False

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Go on mixing if training goes on."""
        self.mixing.active = self._before_eval


def _image(item: Any) -> Any:
    return item[0] if isinstance(item, tuple | list) else item
