"""LUMP: new images or views are mixed with remembered ones."""

from __future__ import annotations

from typing import Any, ClassVar

from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin

from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError
from avalanche_branchtune.metrics import OnlineProbe
from avalanche_branchtune.options import one_of
from solo_bridge.conflicts import Conflicts, check_plugins
from solo_bridge.plugins.labels import LearnsLabels
from solo_bridge.plugins.rehearsal.lump_after import AfterAugmentation
from solo_bridge.plugins.rehearsal.lump_before import BeforeAugmentation
from solo_bridge.plugins.rehearsal.replay_view import ReplayView
from solo_bridge.registry import register
from solo_bridge.views import Views

VIEWS = ("after_augmentation", "before_augmentation")


@register("lump", "LUMP")
class LUMPPlugin(SupervisedPlugin):
    """Madaan et al., "Representational Continuity for Unsupervised …", arXiv 2110.06976.

    The method's own loss is taken on mixtures of what is new and what is
    remembered: ``ν · new + (1 − ν) · remembered`` with ν ~ Beta(α, α).  With
    ``views="after_augmentation"``, the authors' procedure, views are mixed, from
    the second minibatch of the stream on, see
    :class:`~solo_bridge.plugins.rehearsal.lump_after.AfterAugmentation`.

    Authors' code: divyam3897/UCL cfaa81d, models/mixup.py, Mixup.observe; utils/buffer.py, Buffer;
    α and memory: configs/simsiam_c10.yaml and barlow_c10.yaml.
    Differs: where the memory holds fewer images than the minibatch has, theirs stops with an error
    of shapes; ours draws again from all of them until there are enough.
    Differs: theirs takes methods of two views; ours mixes every further view, as theirs the second.
    Differs: ``views="before_augmentation"`` is not the authors' procedure but this project's own:
    images are mixed before they are augmented, each with a ν of its own, from the second experience
    on, see :class:`~solo_bridge.plugins.rehearsal.lump_before.BeforeAugmentation`.  The default
    before 0.1.0: final accuracy 52.9 % on the small stream of docs/authors_forms.md, theirs 47.7 %.

    Labels are left alone: they stay those of the new image, so nothing that
    learns from labels may stand beside it.  The loss in ``eval`` is that of
    unmixed views.  An experience that is trained again begins from the memory
    as it was before its first time.  Random numbers are torch's (but those of
    solo-learn's pipelines), so that runs can be repeated.

    :param memory: number of images that are remembered.
    :param alpha: α; the smaller, the closer a mixture is to one of the two.
    :param views: what is mixed, see above.
    :param replay_view: how a new view is made of a remembered image: pipeline
        settings, or a function from an image to a view ``(C, H, W)``.  By default
        a random crop (share of the area 0.08 to 1), mirrored half of the time,
        in size, mean and deviation as the method's first pipeline has it; images
        that must not be mirrored need another.
    :raises UnknownOptionError: for numbers that are not positive, other ``views``,
        or a ``replay_view`` where none is made.
    :raises ViewsError: if there is no image to remember, because the data yields
        views, or no pipeline for its new view.
    :raises IncompatiblePluginError: when training begins, for methods that know
        samples by number or learn from labels.
    """

    conflicts: ClassVar[Conflicts] = {
        LearnsLabels: "its classifier would learn one label of images mixed from two",
        OnlineProbe: "it would learn one label of images mixed from two: probe after the "
        "experience instead",
        ReplayPlugin: "replayed images would be mixed with remembered ones: keep one of the two",
    }

    def __init__(
        self,
        memory: int = 256,
        alpha: float = 0.4,
        *,
        views: str = "after_augmentation",
        replay_view: ReplayView = None,
    ) -> None:
        """See the class."""
        super().__init__()
        one_of("LUMPPlugin(views=…)", views, VIEWS)
        self.procedure: AfterAugmentation | BeforeAugmentation
        """What the plugin does in each event."""
        if views == "after_augmentation":
            self.procedure = AfterAugmentation(memory, alpha, replay_view)
        elif replay_view is None:
            self.procedure = BeforeAugmentation(memory, alpha)
        else:
            raise UnknownOptionError(
                f"LUMPPlugin(views={views!r}, replay_view=…): all views are made of one mixed "
                "image then, none of a remembered one alone: leave replay_view out"
            )
        self.needs: frozenset[str] = self.procedure.needs
        """See :class:`~solo_bridge.SelfSupervised`."""

    @property
    def images(self) -> list[Any]:
        """The memory: images as they came from the data set."""
        return self.procedure.images

    def wrap_views(self, views: Views | None) -> Views | None:
        """Put something around the views; called by the strategy's constructor.

        :param views: the strategy's.
        :raises ViewsError: if there are none, and images are to be mixed.
        """
        return self.procedure.wrap_views(views)

    # ---- events

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what cannot work before anything is trained."""
        check_plugins(strategy.plugins, strategy.model)  # it may have been added later
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
        self.procedure.refuse(strategy)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begin an experience."""
        self.procedure.begin(strategy)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Mix the minibatch's views."""
        self.procedure.before_step(strategy)

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remember the minibatch."""
        self.procedure.after_step(strategy)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """End an experience."""
        self.procedure.end(strategy)

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Mix nothing while the loss is evaluated."""
        self.procedure.pause()

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Go on mixing if training goes on."""
        self.procedure.go_on()


LUMPPlugin.conflicts = {
    **LUMPPlugin.conflicts,
    LUMPPlugin: "images would be mixed twice: keep one",
}
