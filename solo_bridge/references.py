"""The references that continual strategies are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from avalanche.benchmarks import EagerCLStream
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.core import BasePlugin

from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.experiences import recipe_of, trained_before
from avalanche_branchtune.options import true_or_false
from solo_bridge.interface import SelfSupervisedMethod
from solo_bridge.method import SoloMethod
from solo_bridge.plugins.distillation.kaizen import KaizenPlugin
from solo_bridge.plugins.rehearsal.replay import replay as joined_replay
from solo_bridge.presets import Preset, preset
from solo_bridge.registry import register
from solo_bridge.strategy import SelfSupervised, precision_on


@register("fine_tuning", "fine-tuning")
class FineTuning(SelfSupervised):
    """The lower reference: the loss alone, experience after experience."""


@register("frozen", "frozen")
class Frozen(SelfSupervised):
    """Learn the first experience only; the later ones pass without an iteration.

    :param model: the method.
    :param pretrained: True to learn nothing at all, of a network that has learnt already.
    :param settings: of :class:`~solo_bridge.SelfSupervised`.
    """

    def __init__(
        self, model: SelfSupervisedMethod, *, pretrained: bool = False, **settings: Any
    ) -> None:
        """See the class."""
        self.pretrained = true_or_false("Frozen(pretrained=…)", pretrained)
        super().__init__(model, **settings)

    def training_epoch(self, **kwargs: Any) -> None:
        """Go through the minibatches, in the first experience."""
        if trained_before(self) == 0 and not self.pretrained:
            super().training_epoch(**kwargs)


@register("joint", "joint")
class Joint(SelfSupervised):
    """The upper reference: all experiences at once, as one."""

    def train(self, experiences: Any, eval_streams: Any = None, **kwargs: Any) -> Any:
        """Train on all experiences of a stream together.

        :param experiences: the whole stream; called once.
        :param eval_streams: see Avalanche's templates.
        :param kwargs: arguments of the data loader.
        :return: the last metrics.
        :raises UnknownOptionError: for a single experience of a longer stream.
        """
        if not isinstance(experiences, Iterable):
            if len(getattr(experiences, "origin_stream", [experiences])) > 1:
                raise UnknownOptionError(
                    "Joint.train takes the whole stream at once: joint.train(stream.train_stream)"
                )
            experiences = [experiences]
        experiences = list(experiences)
        data = concat_datasets([e.dataset for e in experiences])
        stream = EagerCLStream("train", [DatasetExperience(dataset=data)])
        stream.recipe = recipe_of(experiences[0])  # for the record
        return super().train(stream[0], eval_streams, **kwargs)


@register("kaizen_paper", "Kaizen, the paper's settings")
class Kaizen(SelfSupervised):
    """Kaizen (Tang et al., arXiv 2303.17235) as its authors run it on CIFAR-100.

    All settings are the preset ``"kaizen/cifar100"``'s (:mod:`solo_bridge.presets.kaizen`): 500
    epochs, batch 256, LARS with warm-up and cosine, 16-bit (bfloat16 on a CPU), and each method's
    rates; each can be overridden.  The method is made of it too::

        Kaizen(SoloMethod.from_preset("byol", "kaizen/cifar100"))

    ``strategy.kaizen`` is the plugin; judge its classifier with
    ``StreamProbe(ClassifierProbe(), …, backbone=strategy.kaizen.network)``.  For other methods
    than theirs, and for settings of your own: ``build("kaizen", method, …)``.

    Authors' code: dr-bell/kaizen e36ee54,
    bash_files/…_cifar_distill_classifier_l1000_soft_label_replay_0.01_b32.sh.
    Differs: their script for MoCo v2+ has 2 epochs, presumably a trial; ours has 500.
    Differs: further as :class:`~solo_bridge.plugins.KaizenPlugin` does.

    :param model: the method; with ``num_classes`` of the whole stream.
    :param replay: whether the first 1 % of each class seen is replayed, 32
        samples joined to each batch.
    :param kaizen: arguments of :class:`~solo_bridge.plugins.KaizenPlugin`.
    :param plugins: further plugins, for example ``BranchTuningPlugin()``.
    :param settings: of :class:`~solo_bridge.SelfSupervised`.
    :raises UnknownOptionError: for a method that is not the preset's, see :func:`settings_of`.
    """

    def __init__(
        self,
        model: SelfSupervisedMethod,
        *,
        replay: bool = False,
        kaizen: Mapping[str, Any] | None = None,
        plugins: Sequence[BasePlugin] | None = None,
        **settings: Any,
    ) -> None:
        """See the class."""
        published = preset("kaizen/cifar100")
        settings = settings_of(published, model, settings)
        options = published.options(model.name)
        self.kaizen = KaizenPlugin(**{**options["kaizen"], **(kaizen or {})})
        every: list[BasePlugin] = [self.kaizen, *(plugins or [])]
        if replay:
            every.append(joined_replay("first_per_class", **options["replay_first_per_class"]))
        super().__init__(model, plugins=every, **settings)


def settings_of(
    of: Preset, method: SelfSupervisedMethod, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return arguments of :class:`solo_bridge.SelfSupervised`: a preset's, where none are given.

    :param of: the preset.
    :param method: what is trained: made by :meth:`SoloMethod.from_preset` of this preset, with
        whatever overrides, or one whose own settings are the preset's.
    :param settings: the arguments that are given.
    :raises UnknownOptionError: for a method that the preset does not have, or one that has other
        settings, with these.
    """
    if not isinstance(method, SoloMethod):
        raise UnknownOptionError(
            f"preset {of.name!r}: it is of solo-learn's methods; got {type(method).__name__}: make "
            "one by SoloMethod.from_preset(…)"
        )
    training = of.training(method.name)
    others = [] if method.preset == of.name else method.departures(of)
    if others:
        raise UnknownOptionError(
            f"preset {of.name!r}: this {method.name} is not as it was run there, but has "
            f"{'; '.join(others)}. Make it by SoloMethod.from_preset({method.name!r}, {of.name!r})"
        )
    if settings.get("precision") is None:
        device = settings.get("device", "cpu")
        training["precision"] = precision_on(device, of.precision, f"preset {of.name}")
    own = {**training["optimizer_settings"], **(settings.get("optimizer_settings") or {})}
    given = {k: v for k, v in settings.items() if v is not None or k not in training}
    return {**training, **given, "optimizer_settings": own}
