"""What strategies are compared on, and how one of them is trained and measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from avalanche.training.plugins import EvaluationPlugin

from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.evaluation import ClassifierProbe, KNNProbe, StreamProbe
from avalanche_branchtune.metrics import AnalysisMetric, RunRecorder, run_metrics
from avalanche_branchtune.options import at_least
from avalanche_branchtune.records import Run
from avalanche_branchtune.streams import class_incremental, digits_on_photographs, image_folder
from solo_bridge.backbones import small_resnet
from solo_bridge.checkpoint import load_solo_checkpoint, save_backbone
from solo_bridge.comparison import digits, published
from solo_bridge.comparison.progress import Progress
from solo_bridge.method import SoloMethod
from solo_bridge.plugins import KaizenPlugin
from solo_bridge.presets import preset
from solo_bridge.references import Joint
from solo_bridge.specification import build, entries, title
from solo_bridge.strategy import SelfSupervised
from solo_bridge.views import EvalTransform

REFERENCE = "backbone.pt"
SHORT = 100
"""Fewer epochs of each experience than this are few: the paper has 500."""
CAVEAT = (
    "A schedule this short favours fine-tuning; it shows that everything runs, and supports no "
    "claim of a paper."
)


@dataclass(frozen=True)
class Comparison:
    """What strategies are compared on: SimCLR-like methods on a class-incremental stream.

    :param method: name of a solo-learn method.
    :param preset: name of a preset, by which method, strategies and plugins are set instead of
        the small settings here, on a ResNet-18; see :meth:`as_published`.
    :param data: folder with ``train`` and ``test``, each with a folder for each
        class; by default digits on photographs, which need no download.
    :param samples: training images, of the digits.
    :param size: side of the images in pixels.
    :param experiences: number of experiences.
    :param epochs: epochs of each experience; joint training has as many on all data.
    :param width: of the small ResNet, without a preset.
    :param batch: images in a minibatch.
    :param lr: of SGD, for a batch of 256, without a preset.
    :param seed: of the stream, the network and the training.
    :param device: where to train.
    :param workers: of the data loader.
    :param options: name → arguments of its plugin, see :func:`solo_bridge.specification.build`.
    :param command: that the comparison was asked for by, for its records; ``…`` in it stands for
        the specifications of all of them.
    """

    method: str = "simclr"
    preset: str | None = None
    data: str | None = None
    samples: int = 4000
    size: int = 16
    experiences: int = 5
    epochs: int = 15
    width: int = 16
    batch: int = 128
    lr: float = 0.12
    seed: int = 0
    device: str = "cpu"
    workers: int = 1
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    command: str | None = None

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

    def stream(self) -> Any:
        """Return the stream."""
        if self.data is None:
            train: Any = digits_on_photographs(
                True, size=self.size, samples=self.samples, seed=self.seed
            )
            test: Any = digits_on_photographs(False, size=self.size, seed=self.seed)
        else:
            train, test = image_folder(f"{self.data}/train"), image_folder(f"{self.data}/test")
        view = EvalTransform(self.size)
        return class_incremental(train, test, self.experiences, eval_transform=view, seed=self.seed)

    def network(self, stream: Any) -> SoloMethod:
        """Return the method, newly initialised from the seed.

        :param stream: whose classes there are.
        """
        torch.manual_seed(self.seed)
        classes = 1 + max(max(e.classes_in_this_experience) for e in stream.train_stream)
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

    def _defaults(self) -> dict[str, dict[str, Any]]:
        """Return name → arguments of its plugin, where they are not the plugin's own."""
        found: dict[str, dict[str, Any]] = {
            name: {"verbose": False} for name in ("branch_tuning", "clr", "kappatune")
        }
        if self.data is None:
            found.update(digits.remembered(self.size, self.options))
        return found

    def facts(self) -> dict[str, Any]:
        """Return what stands beside the numbers."""
        return {
            "data": self.data or f"digits on photographs, {self.samples} training images",
            "image size": self.size,
            "stream": f"class-incremental, {self.experiences} experiences",
            "method": self.method,
            **self._training_facts(),
            **{f"options of {name}": str(given) for name, given in self.options.items()},
            **({"command": self.command} if self.command else {}),
            **({"caveat": CAVEAT} if self.epochs < SHORT else {}),
        }

    def _training_facts(self) -> dict[str, str]:
        if self.preset is not None:
            return published.facts(preset(self.preset), self.method, self.overridden())
        return {
            "backbone": f"small_resnet({self.width})",
            "optimizer": f"SGD, lr {self.lr} · batch/256, momentum 0.9, weight decay 5e-4, cosine",
        }

    def check(self) -> None:
        """Refuse what cannot work, before anything is trained.

        :raises BranchTuneError: for data, a method or a device that is not there, and for numbers
            that cannot be.
        """
        for name in ("samples", "size", "experiences", "epochs", "width", "batch"):
            at_least(1, name, getattr(self, name))
        for name in ("seed", "workers"):
            at_least(0, name, getattr(self, name))
        if self.preset is not None and self.data is None:
            raise UnknownOptionError(
                f"preset {self.preset!r} is of {preset(self.preset).data}: pass the folder that "
                "holds it (--data), with train/<class> and test/<class>"
            )
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UnknownOptionError(f"device {self.device!r} cannot be used: {reason}") from error
        self.network(self.stream())

    def folder(self, spec: str, out: str | Path) -> Path:
        """Return the folder of a strategy's record.

        :param spec: see :func:`solo_bridge.specification.build`.
        :param out: folder of all of them.
        """
        return Path(out) / f"{spec}-{self.seed}"

    def run(self, spec: str, out: str | Path, *, bar: bool = True) -> Run:
        """Train and measure one strategy.

        :param spec: see :func:`solo_bridge.specification.build`.
        :param out: the record goes to a folder of this one; joint training's
            backbone as well, which later strategies take as the reference of
            plasticity.
        :param bar: whether to show progress.
        :return: its record.
        """
        out, name, stream = Path(out), title(spec), self.stream()
        method = self.network(stream)
        recorder = RunRecorder(
            self.folder(spec, out),
            name,
            seed=self.seed,
            settings={**self.facts(), "specification": spec},
        )
        evaluator = EvaluationPlugin(loggers=[recorder])
        parts = {e.name for e in entries(spec)}
        epochs = self.epochs * (1 if "joint" in parts else self.experiences)
        defaults = self._defaults()
        options = {n: {**defaults.get(n, {}), **self.options.get(n, {})} for n in parts}
        strategy = build(
            spec,
            method,
            options=options,
            plugins=[Progress(name, epochs)] if bar else [],
            **self._settings(),
            train_mb_size=self.batch,
            train_epochs=self.epochs,
            device=self.device,
            evaluator=evaluator,
        )
        evaluator.metrics = self._metrics(strategy, stream, out)
        several = isinstance(strategy, Joint)
        for part in [stream.train_stream] if several else stream.train_stream:
            strategy.train(part, num_workers=self.workers, persistent_workers=self.workers > 0)
            strategy.eval(stream.test_stream, loss=False)
        if spec == "joint":
            save_backbone(method, self.folder(spec, out) / REFERENCE)
        return recorder.run

    def _settings(self) -> dict[str, Any]:
        if self.preset is not None:
            warmup = published.warmup(preset(self.preset), self.method, self.epochs)
            return {"preset": self.preset, "optimizer_settings": warmup}
        return {"optimizer": "sgd", "lr": self.lr, "weight_decay": 5e-4}

    def _metrics(self, strategy: SelfSupervised, stream: Any, out: Path) -> list[Any]:
        streams = stream.train_stream, stream.test_stream
        probes = [StreamProbe(KNNProbe(), *streams)]
        for plugin in strategy.plugins:
            if isinstance(plugin, KaizenPlugin):
                probes.append(StreamProbe(ClassifierProbe(), *streams, backbone=plugin.network))
        if isinstance(strategy, Joint):
            return run_metrics(probes)
        reference, joint = self.folder("joint", out) / REFERENCE, None
        if reference.is_file():
            joint = self.network(stream).backbone
            load_solo_checkpoint(joint, reference, strict=True)
        return run_metrics(probes, AnalysisMetric(stream.test_stream, joint=joint))
