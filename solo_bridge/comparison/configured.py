"""What ``branchtune run`` trains on: any stream, method, backbone and training, by plain data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.options import at_least, at_least_one, one_of
from avalanche_branchtune.streams import STREAMS, named_stream
from solo_bridge.augmentation import Augmentation
from solo_bridge.backbones import small_resnet
from solo_bridge.comparison import digits
from solo_bridge.comparison.experiment import Experiment
from solo_bridge.comparison.scenarios import classes_of
from solo_bridge.comparison.weights import begin_with
from solo_bridge.method import SoloMethod
from solo_bridge.presets import preset
from solo_bridge.specification import title
from solo_bridge.strategy import precision_on
from solo_bridge.views import EvalTransform

BEGUN = "plugins that can (pretrained=True) begin with the first experience"
SMALL = "small_resnet"
"""Name of the one backbone that is this package's own."""


@dataclass(frozen=True)
class Configured(Experiment):
    """What a strategy is trained on, every setting of it said.

    :param named: name of :data:`~avalanche_branchtune.streams.STREAMS`.
    :param division: how its data are divided; None for the usual way.
    :param stream_options: of the data and of the division; ``seed`` is the run's unless it is said,
        ``cache`` a folder beside the run's, and ``size`` that of the images.
    :param backbone: name of a backbone, see :func:`solo_bridge.backbones.resolve`, or
        ``"small_resnet"``.
    :param backbone_options: arguments of its constructor.
    :param method_options: further arguments of :class:`~solo_bridge.SoloMethod`.
    :param augmentations: pipelines of the views, each the fields of an
        :class:`~solo_bridge.augmentation.Augmentation`.
    :param training: further arguments of :class:`~solo_bridge.SelfSupervised`.
    :param preset: name of the preset that these settings began with, for the record.
    :param weights: ``file`` that the network begins with, see
        :func:`~solo_bridge.load_solo_checkpoint`, and its ``sha256``; None for new weights.
    """

    named: str = "digits"
    division: str | None = None
    stream_options: dict[str, Any] = field(default_factory=dict)
    backbone: str = "resnet18"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    method_options: dict[str, Any] = field(default_factory=dict)
    augmentations: list[dict[str, Any]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None
    weights: dict[str, str] | None = None

    @property
    def learnt_before(self) -> bool:
        """Whether the network has learnt from other data before the stream begins."""
        return self.weights is not None

    @property
    def eval_view(self) -> EvalTransform:
        """Of the images that networks are judged on."""
        return EvalTransform.beside(self._pipelines, self.size)

    def stream(self, cache: Path | None = None, view: EvalTransform | None = None) -> Any:
        """Return the stream.

        :param cache: folder for decoded images, of data that have one.
        :param view: of the images that networks are judged on, instead of :attr:`eval_view`.
        """
        known = STREAMS[one_of("stream", self.named, STREAMS)].options(self.division)
        own = {"seed": self.seed, "cache": cache, "size": self.size}
        options = {**{name: own[name] for name in own if name in known}, **self.stream_options}
        options["eval_transform"] = self.eval_view if view is None else view
        return named_stream(self.named, self.division, **options)

    @property
    def _pipelines(self) -> list[Augmentation]:
        return [Augmentation(**tuples(one)) for one in self.augmentations]

    @property
    def decodes(self) -> bool:
        """Whether images are decoded to the stream's cache."""
        known = STREAMS[self.named].options(self.division)
        return "cache" in known and self.stream_options.get("cache") is None

    def check_stream(self) -> None:
        """Refuse what cannot be, before any data are read.

        :raises UnknownOptionError: naming the setting.
        """
        at_least(0, "seed", self.seed)
        at_least_one("stream.size", self.size)
        if self.preset is not None and self.named == "digits":
            raise UnknownOptionError(
                f"preset {self.preset!r} is of {preset(self.preset).data}: say where they are, as "
                "stream=split_cifar100 stream.root=DIR or stream=folder stream.root=DIR"
            )

    def stream_facts(self) -> dict[str, Any]:
        """Return what stands beside the numbers of the stream."""
        entry = STREAMS[self.named]
        division = entry.divisions[0] if self.division is None else self.division
        how = {n: v for n, v in self.stream_options.items() if n in entry.of_division(division)}
        data = {n: v for n, v in self.stream_options.items() if n not in how}
        return {
            "data": _told(self.named, data),
            **self.eval_view.facts(),
            "stream": _told(division, how),
        }

    def network(self, stream: Any) -> SoloMethod:
        """Return the method, newly initialised from the seed, with :attr:`weights` if there are.

        :param stream: whose classes there are.
        :raises CheckpointError: for weights that changed since they were asked for, or do not fit.
        """
        torch.manual_seed(self.seed)
        small = self.backbone == SMALL
        method = SoloMethod(
            self.method,
            small_resnet(**self.backbone_options) if small else self.backbone,
            backbone_kwargs=None if small else self.backbone_options,
            image_size=self.size,
            num_classes=classes_of(stream),
            augmentations=self._pipelines,
            **tuples(self.method_options, {"tau"}),
        )
        if self.weights is not None:
            begin_with(method, **self.weights)
        return method

    def training_settings(self) -> dict[str, Any]:
        """Return further arguments of :func:`solo_bridge.specification.build`."""
        settings = {
            **self.training,
            "optimizer_settings": tuples(self.training.get("optimizer_settings", {}), {"betas"}),
        }
        if settings.get("precision") is not None:
            settings["precision"] = precision_on(
                self.device, settings["precision"], "training.precision"
            )
        return settings

    def training_facts(self) -> dict[str, str]:
        """Return what stands beside the numbers of network and training."""
        origin = {}
        if self.preset is not None:
            found = preset(self.preset)
            origin = {"preset": f"{found.name}: arXiv {found.arxiv}, {found.repository}"}
        own = inspect.signature(SoloMethod).parameters
        method = {n: v for n, v in self.method_options.items() if n not in own or v is not None}
        optimizer = {n: v for n, v in self.training.items() if v is not None}
        return {
            **origin,
            "epochs": str(self.epochs),
            "batch": str(self.batch),
            "backbone": _told(self.backbone, self.backbone_options),
            **({} if self.weights is None else {"weights": f"{_told('', self.weights)}; {BEGUN}"}),
            "settings of the method": _told("", method),
            "pipelines of the views": str(self.augmentations),
            "training": _told("", optimizer),
        }

    def default_options(self) -> dict[str, dict[str, Any]]:
        """Return name → arguments of its plugin, where they are not the plugin's own."""
        found = super().default_options()
        if self.named == "digits":
            found.update(digits.remembered(self.size, self.options))
        if self.preset is not None:
            for name, said in preset(self.preset).options(self.method).items():
                found[name] = {**found.get(name, {}), **said}
        return found

    def title(self, spec: str) -> str:
        """Return how tables call a strategy here.

        :param spec: see :func:`solo_bridge.specification.build`.
        """
        own = (self.variant or "").removeprefix(spec).removeprefix(",")
        return f"{title(spec)} ({own})" if own else title(spec)


def tuples(settings: Mapping[str, Any], names: set[str] | None = None) -> dict[str, Any]:
    """Return settings with lists as the tuples that they are the text of.

    :param settings: as a file of YAML or JSON has them.
    :param names: of those that are tuples; None for all.
    """
    return {
        name: tuple(value) if isinstance(value, list) and (not names or name in names) else value
        for name, value in settings.items()
    }


def _told(what: str, options: Mapping[str, Any]) -> str:
    return ", ".join([*([what] if what else []), *(f"{n} {v}" for n, v in options.items())])
