"""The references that continual strategies are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from avalanche.benchmarks import EagerCLStream
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.core import BasePlugin

from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.experiences import trained_before
from solo_bridge.interface import SelfSupervisedMethod
from solo_bridge.plugins.distillation.kaizen import KaizenPlugin
from solo_bridge.plugins.rehearsal.replay import replay as joined_replay
from solo_bridge.registry import register
from solo_bridge.strategy import SelfSupervised


@register("fine_tuning", "fine-tuning")
class FineTuning(SelfSupervised):
    """The lower reference: the loss alone, experience after experience."""


@register("frozen", "frozen")
class Frozen(SelfSupervised):
    """Learn the first experience only; the later ones pass without an iteration."""

    def training_epoch(self, **kwargs: Any) -> None:
        """Go through the minibatches, in the first experience."""
        if trained_before(self) == 0:
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
        data = concat_datasets([e.dataset for e in experiences])
        stream = EagerCLStream("train", [DatasetExperience(dataset=data)])
        return super().train(stream[0], eval_streams, **kwargs)


@register("kaizen_paper", "Kaizen, the paper's settings")
class Kaizen(SelfSupervised):
    """Kaizen (Tang et al., arXiv 2303.17235) as its authors run BYOL and VICReg.

    500 epochs, batch 256, LARS with warm-up and cosine, learning rate 1.0 (0.3
    for VICReg), weight decay 1e-5 (1e-4 for VICReg), classifier 0.1 (0.05 for
    VICReg), 16-bit; each can be overridden.  ``strategy.kaizen`` is the plugin; judge its
    classifier with ``StreamProbe(ClassifierProbe(), …, backbone=strategy.kaizen.network)``.

    Authors' code: dr-bell/kaizen e36ee54,
    bash_files/{byol,vicreg}_cifar_distill_classifier_l1000_soft_label_replay_0.01_b32.sh.
    Differs: their warm-up starts at 0.003 and goes on with each epoch, ours starts at 3e-5 and goes
    on with each step.
    Differs: their SimCLR has T 0.1, a projector of 4096, jitter 0.4, 0.4, 0.2, 0.1 and solarisation
    0.2 of the second view; ours what :data:`solo_bridge.defaults.DEFAULTS` says.
    Differs: their script for MoCo v2+ has a queue of 65536, BYOL's views and 2 epochs; ours a queue
    of 32768, its own views and 500 epochs.
    Differs: further as :class:`~solo_bridge.plugins.KaizenPlugin` does.

    :param model: the method; with ``num_classes`` of the whole stream.
    :param replay: whether the first 1 % of each class seen is replayed, 32
        samples joined to each batch.
    :param kaizen: arguments of :class:`~solo_bridge.plugins.KaizenPlugin`.
    :param plugins: further plugins, for example ``BranchTuningPlugin()``.
    :param settings: of :class:`~solo_bridge.SelfSupervised`.
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
        vicreg = model.name == "vicreg"
        published: dict[str, Any] = {
            "train_epochs": 500,
            "train_mb_size": 256,
            "optimizer": "lars",
            "lr": 0.3 if vicreg else 1.0,
            "weight_decay": 1e-4 if vicreg else 1e-5,
            "precision": "16",
        }
        options = {"classifier_lr": 0.05 if vicreg else 0.1, **(kaizen or {})}
        self.kaizen = KaizenPlugin(**options)
        every: list[BasePlugin] = [self.kaizen, *(plugins or [])]
        if replay:
            every.append(joined_replay("first_per_class", batch_size_mem=32))
        super().__init__(model, plugins=every, **{**published, **settings})
