"""What strategies are compared on: small settings of this package's own, or a preset's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.options import at_least
from solo_bridge.backbones import small_resnet
from solo_bridge.comparison import digits, published
from solo_bridge.comparison.experiment import Experiment
from solo_bridge.comparison.scenarios import StreamSettings, classes_of
from solo_bridge.method import SoloMethod
from solo_bridge.presets import preset
from solo_bridge.views import EvalTransform

PRESETS_OWN = ("width", "optimizer", "lr")
"""Settings that are a preset's, where there is one."""


@dataclass(frozen=True)
class Comparison(StreamSettings, Experiment):
    """What strategies are compared on: methods on a stream, see :class:`StreamSettings`.

    Its seed is that of the network and the training, too.  What is not said here is said by
    :class:`~solo_bridge.comparison.experiment.Experiment`.

    :param preset: name of a preset, by which method, strategies and plugins are set instead of
        the small settings here, on a ResNet-18; see :meth:`as_published`.
    :param width: of the small ResNet, without a preset.
    :param optimizer: name of it, without a preset; see :class:`~solo_bridge.SelfSupervised`.
    :param lr: for a batch of 256, without a preset.
    :param optimizer_settings: further ones of the optimizer and its schedule.
    """

    preset: str | None = None
    width: int = 16
    optimizer: str = "sgd"
    lr: float = 0.12
    optimizer_settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def as_published(cls, name: str, **settings: Any) -> Comparison:
        """Return a comparison whose size, stream, epochs and batch are a preset's too.

        :param name: of the preset.
        :param settings: of the class; those that are None are as if not given.
        :raises UnknownOptionError: for a preset that is none, or that has not the method.
        """
        found = preset(name)
        given = {key: value for key, value in settings.items() if value is not None}
        made = cls(preset=name, **{**published.sizes(found), **given})
        found.method(made.method)
        return made

    def overridden(self) -> dict[str, str]:
        """Return what of the preset is done otherwise: setting → what, instead of what."""
        if self.preset is None:
            return {}
        return published.overridden(preset(self.preset), self.method, vars(self), self.device)

    @property
    def eval_view(self) -> EvalTransform:
        """Of the images that networks are judged on: normalised as a preset's views are."""
        if self.preset is None:
            return super().eval_view
        return EvalTransform.beside(
            preset(self.preset).method(self.method).augmentations, self.size
        )

    @property
    def decodes(self) -> bool:
        """Whether images are decoded to the stream's cache."""
        return self.data is not None

    def network(self, stream: Any) -> SoloMethod:
        """Return the method, newly initialised from the seed.

        :param stream: whose classes there are.
        """
        torch.manual_seed(self.seed)
        classes = classes_of(stream)
        if self.preset is not None:
            return SoloMethod.from_preset(
                self.method, self.preset, image_size=self.size, num_classes=classes
            )
        views: dict[str, Any] = {}
        if self.data is None:
            views["augmentations"] = [digits.views(self.size)]
        return SoloMethod(
            self.method,
            small_resnet(self.width),
            image_size=self.size,
            num_classes=classes,
            proj_hidden_dim=256,
            proj_output_dim=128,
            **views,
        )

    def default_options(self) -> dict[str, dict[str, Any]]:
        """Return name → arguments of its plugin, where they are not the plugin's own."""
        found = super().default_options()
        if self.data is None:
            found.update(digits.remembered(self.size, self.options))
        return found

    def training_facts(self) -> dict[str, str]:
        """Return what stands beside the numbers of network and training."""
        if self.preset is not None:
            return published.facts(preset(self.preset), self.method, self.overridden())
        further = "".join(f", {k} {v}" for k, v in self.optimizer_settings.items())
        return {
            "backbone": f"small_resnet({self.width}), channels last in memory",
            "optimizer": f"{self.optimizer.upper()}, lr {self.lr} · batch/256, momentum 0.9, "
            f"weight decay 5e-4, cosine{further}",
        }

    def check(self, specs: Sequence[str] = ()) -> None:
        """Refuse what cannot work, before anything is trained.

        :param specs: see the base class.
        :raises BranchTuneError: see the base class; and for a preset without its data, or beside
            settings that are its own.
        """
        at_least(1, "width", self.width)
        if self.preset is not None and self.data is None:
            raise UnknownOptionError(
                f"preset {self.preset!r} is of {preset(self.preset).data}: pass the folder that "
                "holds it (--data), with train/<class> and test/<class>"
            )
        self._says_nothing_twice()
        super().check(specs)

    def _says_nothing_twice(self) -> None:
        for name in PRESETS_OWN if self.preset is not None else ():
            if getattr(self, name) != getattr(Comparison, name):
                raise UnknownOptionError(
                    f"{name} {getattr(self, name)!r} beside preset {self.preset!r}, which says it: "
                    "leave one of the two out"
                )

    def training_settings(self) -> dict[str, Any]:
        """Return further arguments of :func:`solo_bridge.specification.build`."""
        self._says_nothing_twice()
        if self.preset is not None:
            warmup = published.warmup(preset(self.preset), self.method, self.epochs)
            return {
                "preset": self.preset,
                "optimizer_settings": {**warmup, **self.optimizer_settings},
            }
        return {
            "optimizer": self.optimizer,
            "lr": self.lr,
            "weight_decay": 5e-4,
            "optimizer_settings": self.optimizer_settings,
            "channels_last": True,  # faster, on a CPU too
        }
