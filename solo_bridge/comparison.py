"""Strategies side by side: one stream, one seed, a record of each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from tqdm import tqdm

from avalanche_branchtune.errors import RecordError, UnknownOptionError
from avalanche_branchtune.evaluation import ClassifierProbe, KNNProbe, StreamProbe
from avalanche_branchtune.experiences import experience_index, stream_length
from avalanche_branchtune.metrics import AnalysisMetric, RunRecorder, run_metrics
from avalanche_branchtune.options import at_least
from avalanche_branchtune.records import Run, load_run
from avalanche_branchtune.records.run import RECORD
from avalanche_branchtune.streams import class_incremental, digits_on_photographs, image_folder
from solo_bridge.apart import run_apart
from solo_bridge.augmentation import Augmentation
from solo_bridge.backbones import small_resnet
from solo_bridge.checkpoint import load_solo_checkpoint, save_backbone
from solo_bridge.lock import locked
from solo_bridge.method import SoloMethod
from solo_bridge.plugins import KaizenPlugin
from solo_bridge.presets import preset
from solo_bridge.presets.text import optimizer_text
from solo_bridge.references import Joint
from solo_bridge.registry import import_file
from solo_bridge.specification import build, entries, names, title
from solo_bridge.strategy import SelfSupervised, precision_on
from solo_bridge.views import EvalTransform

REFERENCE = "backbone.pt"
SHORT = 100
"""Fewer epochs of each experience than this are few: the paper has 500."""
CAVEAT = (
    "A schedule this short favours fine-tuning; it shows that everything runs, and supports no "
    "claim of a paper."
)

COMBINATIONS = (
    "branch_tuning+cassle",
    "branch_tuning+kaizen",
    "branch_tuning+replay",
    "branch_tuning+pfr",
    "branch_tuning+lump",
    "branch_tuning+der",
    "branch_tuning+ewc",
    "cassle+replay_min_redundancy",
)
"""Strategies of several parts that are compared unless told otherwise."""


class Progress(SupervisedPlugin):
    """A bar over the epochs of all experiences on a terminal; elsewhere a line per experience.

    :param name: what is trained.
    :param epochs: epochs in all.
    """

    supports_distributed = True

    def __init__(self, name: str, epochs: int) -> None:
        """See the class."""
        super().__init__()
        self.name = name
        self.bar = tqdm(
            total=epochs, desc=f"{name:<14}", unit="epoch", disable=not sys.stderr.isatty()
        )

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Advance by one epoch."""
        experience = strategy.clock.train_exp_counter
        self.bar.set_postfix(experience=experience, loss=f"{float(strategy.loss):.3f}")
        self.bar.update()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Say that an experience is done."""
        if self.bar.disable:
            done, length = experience_index(strategy) + 1, stream_length(strategy)
            loss = f"loss {float(strategy.loss):.3f}"
            print(f"{self.name}: experience {done} of {length}, {loss}", file=sys.stderr)

    def after_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Leave the bar on the screen when all epochs are done."""
        if self.bar.n >= (self.bar.total or 0):
            self.bar.close()


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
        published = {
            "size": found.image_size,
            "experiences": found.experiences,
            "epochs": found.train_epochs,
            "batch": found.train_mb_size,
        }
        given = {key: value for key, value in settings.items() if value is not None}
        made = cls(preset=name, **{**published, **given})
        found.method(made.method)
        return made

    def overridden(self) -> dict[str, str]:
        """Return what of the preset is done otherwise: setting → what, instead of what."""
        if self.preset is None:
            return {}
        found = preset(self.preset)
        sizes = {
            "image size": (self.size, found.image_size),
            "experiences": (self.experiences, found.experiences),
            "epochs": (self.epochs, found.train_epochs),
            "batch size": (self.batch, found.train_mb_size),
        }
        changed = {
            k: f"{ours} instead of {said}" for k, (ours, said) in sizes.items() if ours != said
        }
        warmup = found.method(self.method).optimizer_settings.get("warmup_epochs")
        if warmup is not None and self._warmup():
            changed["warm-up"] = f"a tenth of the epochs, at most {warmup}, instead of {warmup}"
        if precision_on(self.device, found.precision, found.name) != found.precision:
            changed["precision"] = f"bf16 instead of {found.precision}, on a CPU"
        return changed

    def _warmup(self) -> dict[str, Any]:
        """Return the warm-up of an experience that is too short for the preset's."""
        if self.preset is None:
            return {}
        settings = preset(self.preset).method(self.method).optimizer_settings
        short = 10 * (settings.get("warmup_epochs") or 0) > self.epochs
        return {"warmup_epochs": None} if short else {}

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
        digits: dict[str, Any] = {}
        if self.data is None:
            digits["augmentations"] = [self._views_of_digits()]
        return SoloMethod(
            self.method,
            small_resnet(self.width),
            image_size=self.size,
            num_classes=classes,
            proj_hidden_dim=256,
            proj_output_dim=128,
            **digits,
        )

    def _views_of_digits(self) -> Augmentation:
        return Augmentation(
            crop_size=self.size,
            crop_min_scale=0.5,  # a smaller share of 16 pixels shows no digit any more
            brightness=0.8,
            contrast=0.8,
            saturation=0.8,
            hue=0.5,  # less, and two views can be matched by the background's colour alone
            flip_prob=0.0,  # mirrored digits are others
            num_crops=2,
        )

    def _defaults(self) -> dict[str, dict[str, Any]]:
        """Return name → arguments of its plugin, where they are not the plugin's own."""
        found: dict[str, dict[str, Any]] = {
            name: {"verbose": False} for name in ("branch_tuning", "clr", "kappatune")
        }
        if self.data is None:
            crop = replace(self._views_of_digits(), jitter_prob=0.0, grayscale_prob=0.0)
            found["der"] = {"replay_view": crop}
            if self.options.get("lump", {}).get("views") != "before_augmentation":
                found["lump"] = {"replay_view": crop}
        return found

    def facts(self) -> dict[str, Any]:
        """Return what stands beside the numbers."""
        return {
            "data": self.data or f"digits on photographs, {self.samples} training images",
            "image size": self.size,
            "stream": f"class-incremental, {self.experiences} experiences",
            "method": self.method,
            **(self._published() if self.preset else self._small()),
            **{f"options of {name}": str(given) for name, given in self.options.items()},
            **({"command": self.command} if self.command else {}),
            **({"caveat": CAVEAT} if self.epochs < SHORT else {}),
        }

    def _small(self) -> dict[str, str]:
        return {
            "backbone": f"small_resnet({self.width})",
            "optimizer": f"SGD, lr {self.lr} · batch/256, momentum 0.9, weight decay 5e-4, cosine",
        }

    def _published(self) -> dict[str, str]:
        assert self.preset is not None
        found = preset(self.preset)
        changed = ", ".join(f"{key} {value}" for key, value in self.overridden().items())
        return {
            "preset": f"{found.name}: arXiv {found.arxiv}, {found.repository} {found.commit}",
            "overridden": changed or "nothing",
            "backbone": "resnet18",
            "optimizer": optimizer_text(found.method(self.method)),
            "precision": found.precision,
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
            return {"preset": self.preset, "optimizer_settings": self._warmup()}
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


def compare(
    specs: Sequence[str],
    comparison: Comparison,
    out: str | Path,
    *,
    separate: bool = False,
    done: Callable[[Run], None] | None = None,
    imports: Sequence[str] = (),
) -> list[Run]:
    """Train and measure strategies one after the other, joint training first.

    :param specs: see :func:`solo_bridge.specification.build`.
    :param comparison: what they are compared on.
    :param out: folder of the records, for this comparison alone while it lasts.
    :param separate: run each in a process of its own, so that its peak memory
        is its own; they end with this one.
    :param done: called with each record.
    :param imports: files that register names of one's own, for those processes as well.
    :return: the records, in the order of ``specs``.
    :raises BranchTuneError: before training for what is not there, for a
        record that is there already and for a folder that another process
        uses; and for a strategy that fails.
    """
    for file in imports:
        import_file(file)
    for spec in specs:
        title(spec)  # unknown names fail before anything is trained
        if specs.count(spec) > 1:
            raise UnknownOptionError(f"strategy {spec!r} is given twice")
    comparison.check()
    runs: dict[str, Run] = {}
    with locked(Path(out)):
        for spec in specs:
            if (comparison.folder(spec, out) / RECORD).exists():
                raise RecordError(
                    f"{comparison.folder(spec, out)} holds the record of a run already: choose "
                    "another folder (--out) or another seed (--seed), or remove it"
                )
        for spec in sorted(specs, key=lambda s: s != "joint"):
            if separate:
                threads = torch.get_num_threads()
                run_apart(spec, _alone, comparison, spec, str(out), threads, tuple(imports))
                runs[spec] = load_run(comparison.folder(spec, out))
            else:
                runs[spec] = comparison.run(spec, out)
            if done is not None:
                done(runs[spec])
    return [runs[spec] for spec in specs]


def everything(of: str | None = None) -> list[str]:
    """Return every name there is, but for published schedules of days, and combinations.

    :param of: name of a preset, of which only what its paper compares.
    """
    if of is not None:
        return list(preset(of).strategies)
    return [*(n for n in names() if not n.endswith("_paper")), *COMBINATIONS]


def _alone(
    comparison: Comparison, spec: str, out: str, threads: int, imports: tuple[str, ...]
) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    for file in imports:
        import_file(file)
    comparison.run(spec, out)
