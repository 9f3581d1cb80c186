"""Strategies side by side: one stream, one seed, a record of each."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from tqdm import tqdm

from avalanche_branchtune.errors import RecordError, UnknownOptionError
from avalanche_branchtune.evaluation import ClassifierProbe, KNNProbe, StreamProbe
from avalanche_branchtune.metrics import AnalysisMetric, RunRecorder, run_metrics
from avalanche_branchtune.records import Run, load_run
from avalanche_branchtune.streams import class_incremental, digits_on_photographs, image_folder
from solo_bridge.augmentation import Augmentation
from solo_bridge.backbones import small_resnet
from solo_bridge.checkpoint import load_solo_checkpoint, save_backbone
from solo_bridge.method import SoloMethod
from solo_bridge.plugins import KaizenPlugin
from solo_bridge.references import Joint
from solo_bridge.specification import build, entries, names, title
from solo_bridge.strategy import SelfSupervised
from solo_bridge.views import EvalTransform

REFERENCE = "backbone.pt"

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


class ProgressBar(SupervisedPlugin):
    """One bar per strategy, over the epochs of all experiences.

    :param name: what is trained.
    :param epochs: epochs in all.
    """

    supports_distributed = True

    def __init__(self, name: str, epochs: int) -> None:
        """See the class."""
        super().__init__()
        self.bar = tqdm(total=epochs, desc=f"{name:<14}", unit="epoch")

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Advance by one epoch."""
        experience = strategy.clock.train_exp_counter
        self.bar.set_postfix(experience=experience, loss=f"{float(strategy.loss):.3f}")
        self.bar.update()

    def after_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Leave the bar on the screen when all epochs are done."""
        if self.bar.n >= self.bar.total:
            self.bar.close()


@dataclass(frozen=True)
class Comparison:
    """What strategies are compared on: SimCLR-like methods on a class-incremental stream.

    :param method: name of a solo-learn method.
    :param data: folder with ``train`` and ``test``, each with a folder for each
        class; by default digits on photographs, which need no download.
    :param samples: training images, of the digits.
    :param size: side of the images in pixels.
    :param experiences: number of experiences.
    :param epochs: epochs of each experience; joint training has as many on all data.
    :param width: of the small ResNet.
    :param batch: images in a minibatch.
    :param lr: of SGD, for a batch of 256.
    :param seed: of the stream, the network and the training.
    :param device: where to train.
    :param workers: of the data loader.
    :param options: name → arguments of its plugin, see :func:`solo_bridge.specification.build`.
    """

    method: str = "simclr"
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
        views = Augmentation(
            crop_size=self.size,
            crop_min_scale=0.5,  # a smaller share of 16 pixels shows no digit any more
            brightness=0.8,
            contrast=0.8,
            saturation=0.8,
            hue=0.5,  # less, and two views can be matched by the background's colour alone
            flip_prob=0.0,  # mirrored digits are others
            num_crops=2,
        )
        digits: dict[str, Any] = {"augmentations": [views]} if self.data is None else {}
        return SoloMethod(
            self.method,
            small_resnet(self.width),
            image_size=self.size,
            num_classes=1 + max(max(e.classes_in_this_experience) for e in stream.train_stream),
            proj_hidden_dim=256,
            proj_output_dim=128,
            **digits,
        )

    def facts(self) -> dict[str, Any]:
        """Return what stands beside the numbers."""
        return {
            "data": self.data or f"digits on photographs, {self.samples} training images",
            "image size": self.size,
            "stream": f"class-incremental, {self.experiences} experiences",
            "method": self.method,
            "backbone": f"small_resnet({self.width})",
            "optimizer": f"SGD, lr {self.lr} · batch/256, momentum 0.9, weight decay 5e-4, cosine",
            **{f"options of {name}": str(given) for name, given in self.options.items()},
        }

    def check(self) -> None:
        """Refuse what cannot work, before anything is trained.

        :raises BranchTuneError: for data, a method or a device that is not there.
        """
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UnknownOptionError(f"device {self.device!r} cannot be used: {reason}") from error
        self.network(self.stream())

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
            out / f"{spec}-{self.seed}", name, seed=self.seed, settings=self.facts()
        )
        evaluator = EvaluationPlugin(loggers=[recorder])
        parts = {e.name for e in entries(spec)}
        epochs = self.epochs * (1 if "joint" in parts else self.experiences)
        quiet = {n: {"verbose": False} for n in ("branch_tuning", "clr", "kappatune")}
        options = {n: {**quiet.get(n, {}), **self.options.get(n, {})} for n in parts}
        strategy = build(
            spec,
            method,
            options=options,
            plugins=[ProgressBar(name, epochs)] if bar else [],
            optimizer="sgd",
            lr=self.lr,
            weight_decay=5e-4,
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
            save_backbone(method, out / f"joint-{self.seed}" / REFERENCE)
        return recorder.run

    def _metrics(self, strategy: SelfSupervised, stream: Any, out: Path) -> list[Any]:
        streams = stream.train_stream, stream.test_stream
        probes = [StreamProbe(KNNProbe(), *streams)]
        for plugin in strategy.plugins:
            if isinstance(plugin, KaizenPlugin):
                probes.append(StreamProbe(ClassifierProbe(), *streams, backbone=plugin.network))
        if isinstance(strategy, Joint):
            return run_metrics(probes)
        reference, joint = out / f"joint-{self.seed}" / REFERENCE, None
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
) -> list[Run]:
    """Train and measure strategies one after the other, joint training first.

    :param specs: see :func:`solo_bridge.specification.build`.
    :param comparison: what they are compared on.
    :param out: folder of the records.
    :param separate: run each in a process of its own, so that its peak memory
        is its own.
    :param done: called with each record.
    :return: the records, in the order of ``specs``.
    :raises BranchTuneError: before training for what is not there, and for a
        strategy whose process fails.
    """
    for spec in specs:
        title(spec)  # unknown names fail before anything is trained
    comparison.check()
    runs: dict[str, Run] = {}
    for spec in sorted(specs, key=lambda s: s != "joint"):
        if separate:
            process = multiprocessing.get_context("spawn").Process(
                target=_alone,
                args=(
                    comparison,
                    spec,
                    str(out),
                    torch.get_num_threads(),
                    multiprocessing.get_start_method(),
                ),
            )
            process.start()
            process.join()
            if process.exitcode:
                raise RecordError(
                    f"{spec}: its process ended with status {process.exitcode}, for the reason "
                    "above; what it finished is recorded"
                )
            runs[spec] = load_run(Path(out) / f"{spec}-{comparison.seed}")
        else:
            runs[spec] = comparison.run(spec, out)
        if done is not None:
            done(runs[spec])
    return [runs[spec] for spec in specs]


def everything() -> list[str]:
    """Return every name there is, but for published schedules of days, and combinations."""
    return [*(n for n in names() if not n.endswith("_paper")), *COMBINATIONS]


def _alone(comparison: Comparison, spec: str, out: str, threads: int, start: str) -> None:
    multiprocessing.set_start_method(start, force=True)  # else loaders start as slowly as this did
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    comparison.run(spec, out)
