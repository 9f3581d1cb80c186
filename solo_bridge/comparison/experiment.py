"""What strategies are trained on, and how one of them is trained, measured and gone on with."""

from __future__ import annotations

import inspect
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from avalanche.training.plugins import EvaluationPlugin
from torch import nn

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.errors import BranchTuneError, RecordError, UnknownOptionError
from avalanche_branchtune.metrics import (
    LOGGERS,
    AnalysisMetric,
    LabelledImages,
    OnlineProbe,
    RunRecorder,
)
from avalanche_branchtune.options import at_least, one_of
from avalanche_branchtune.records import Run, load_run
from avalanche_branchtune.records.run import RECORD
from solo_bridge.checkpoint import load_solo_checkpoint, save_backbone
from solo_bridge.comparison import plasticity
from solo_bridge.comparison.asked import ASKED, Asked, asked
from solo_bridge.comparison.measured import PROBES, metrics_of
from solo_bridge.comparison.progress import Progress
from solo_bridge.comparison.scenarios import classes_of
from solo_bridge.feeding import VIEWS
from solo_bridge.method import SoloMethod
from solo_bridge.processes import Processes
from solo_bridge.references import Joint
from solo_bridge.specification import build, entries, title
from solo_bridge.strategy import SelfSupervised
from solo_bridge.views import EvalTransform

REFERENCE = "backbone.pt"
"""The file of a run's folder with its backbone; plasticity is measured against joint training's."""
PIXELS = "pixels"
"""Folder of decoded images, while strategies are trained on them."""
BATCHED_UP_TO = 64
"""Pixels up to which batched views are faster on a CPU, see benchmarks/results/views.json."""
MINUTES = 30.0
"""Between two checkpoints, unless told otherwise."""
TALKING = ("branch_tuning", "clr", "fixed_norms", "kappatune")
"""Plugins that print what they do, unless told otherwise."""
PRETRAINED = "pretrained"
"""Argument of plugins that otherwise leave out the first experience."""
SHORT = 100
"""Fewer epochs of each experience than this are few: the paper has 500."""
CAVEAT = "A schedule this short shows that everything runs, and supports no claim of a paper."


def forget_pixels(out: Path) -> None:
    """Remove a folder's decoded images, unless a run there will want them.

    :param out: folder of the runs' folders, which several processes may share.
    """
    runs = [path.parent for path in out.glob(f"*/{ASKED}")]
    found = [asked(run) for run in runs]
    if all(one is None or one.finished for one in found) and not any(map(plasticity.waits, runs)):
        shutil.rmtree(out / PIXELS, ignore_errors=True)


@dataclass(frozen=True)
class Experiment(ABC):
    """What strategies are trained on, but for where stream, network and its training come from.

    :param seed: of the stream, the network and the training.
    :param size: side of the images in pixels.
    :param method: name of a solo-learn method.
    :param epochs: epochs of each experience; joint training has as many on all data.
    :param batch: images in a minibatch.
    :param device: where to train.
    :param workers: of the data loader.
    :param views: how they are made, ``"batched"`` or ``"solo_learn"``, see
        :class:`~solo_bridge.SelfSupervised`; by default as is faster.
    :param options: name → arguments of its plugin, see :func:`solo_bridge.specification.build`.
    :param probes: names of :data:`~solo_bridge.comparison.measured.PROBES`.
    :param variant: name of these settings, where a strategy is compared with itself under others:
        of its folder instead of the specification, and beside the title in tables.
    :param logger: name of one beside the record, of :data:`avalanche_branchtune.metrics.LOGGERS`.
    :param command: that it was asked for by, for its records; ``…`` in it stands for
        the specifications of all of them.
    """

    seed: int = 0
    size: int = 16
    method: str = "simclr"
    epochs: int = 15
    batch: int = 128
    device: str = "cpu"
    workers: int = 0
    views: str | None = None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    probes: list[str] = field(default_factory=lambda: ["knn"])
    variant: str | None = None
    logger: str | None = None
    command: str | None = None

    @abstractmethod
    def stream(self, cache: Path | None = None) -> Any:
        """Return the stream.

        :param cache: folder for decoded images.
        """

    @property
    @abstractmethod
    def decodes(self) -> bool:
        """Whether images are decoded to the stream's cache."""

    @property
    @abstractmethod
    def eval_view(self) -> EvalTransform:
        """Of the images that networks are judged on."""

    @abstractmethod
    def check_stream(self) -> None:
        """Refuse what cannot be, before any data are read.

        :raises BranchTuneError: naming the setting.
        """

    @abstractmethod
    def stream_facts(self) -> dict[str, Any]:
        """Return what stands beside the numbers of the stream."""

    @abstractmethod
    def network(self, stream: Any) -> SoloMethod:
        """Return the method, newly initialised from the seed.

        :param stream: whose classes there are.
        """

    @abstractmethod
    def training_settings(self) -> dict[str, Any]:
        """Return further arguments of :func:`solo_bridge.specification.build`."""

    @abstractmethod
    def training_facts(self) -> dict[str, str]:
        """Return what stands beside the numbers of network and training."""

    @property
    def learnt_before(self) -> bool:
        """Whether the network has learnt from other data before the stream begins."""
        return False

    def default_options(self) -> dict[str, dict[str, Any]]:
        """Return name → arguments of its plugin, where they are not the plugin's own."""
        return {name: {"verbose": False} for name in TALKING}

    @property
    def kind_of_views(self) -> str:
        """How views are made."""
        if self.views is not None:
            return self.views
        small = self.size <= BATCHED_UP_TO or self.device != "cpu"
        return "batched" if small else "solo_learn"

    def facts(self) -> dict[str, Any]:
        """Return what stands beside the numbers."""
        return {
            **self.stream_facts(),
            "method": self.method,
            "views": f"{self.kind_of_views}, drawn from the seed, whatever the number of loader "
            "workers",
            **self.training_facts(),
            **{f"options of {name}": str(given) for name, given in self.options.items()},
            **({"command": self.command} if self.command else {}),
            **({"caveat": CAVEAT} if self.epochs < SHORT else {}),
        }

    def join(self) -> None:
        """Become one of the job's ranks, if there is a job; all ranks.

        :raises UnknownOptionError: for a device that cannot be used.
        """
        try:
            Processes().join(torch.device(self.device))
        except RuntimeError as error:
            if isinstance(error, BranchTuneError):
                raise
            raise self._no_device(error) from error

    def _no_device(self, error: Exception) -> UnknownOptionError:
        reason = str(error).splitlines()[0]
        return UnknownOptionError(f"device {self.device!r} cannot be used: {reason}")

    def check(self, specs: Sequence[str] = ()) -> None:
        """Refuse what cannot work, before anything is trained.

        :param specs: strategies, each of which is made once; not in a job of several processes,
            all of which would have to make them.
        :raises BranchTuneError: for data, a method or a device that is not there, for numbers that
            cannot be, and for strategies that cannot work.
        """
        self.check_stream()
        for name in ("epochs", "batch"):
            at_least(1, name, getattr(self, name))
        at_least(0, "workers", self.workers)
        one_of("views", self.kind_of_views, VIEWS)
        if self.logger is not None:
            one_of("logger", self.logger, LOGGERS)
        for probe in self.probes:
            one_of("probes", probe, PROBES)
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise self._no_device(error) from error
        stream = self.stream()
        Processes().refuse(self.network(stream), self.batch, compile=False)
        for spec in specs if not ranks.joined() else ():
            self.strategy(spec, stream, None)

    def folder(self, spec: str, out: str | Path) -> Path:
        """Return the folder of a strategy's record.

        :param spec: see :func:`solo_bridge.specification.build`.
        :param out: folder of all of them.
        """
        return Path(out) / f"{self.variant or spec}-{self.seed}"

    def reference(self, out: str | Path) -> Path:
        """Return the folder of joint training, by which plasticity is measured.

        :param out: folder of all of them.
        """
        return Path(out) / f"joint-{self.seed}"

    def title(self, spec: str) -> str:
        """Return how tables call a strategy here.

        :param spec: see :func:`solo_bridge.specification.build`.
        """
        return title(spec) if self.variant is None else f"{title(spec)} ({self.variant})"

    def known(self, spec: str, out: str | Path) -> Asked | None:
        """Return what a strategy's run was asked for, None if its folder is new.

        :param spec: see :func:`solo_bridge.specification.build`.
        :param out: folder of all of them.
        :raises RecordError: for a folder with a record that is not of a comparison.
        """
        folder = self.folder(spec, out)
        found = asked(folder)
        if found is None and (folder / RECORD).exists():
            raise RecordError(
                f"{folder} holds the record of a run already, and no {ASKED}: choose another "
                "folder (--out, out=) or another seed (--seed), or remove it"
            )
        return None if found is None else found.filled(vars(type(self)()))

    def finished(self, spec: str, out: str | Path) -> bool:
        """Tell whether a strategy is trained and measured, with all that others need of it.

        :param spec: see :func:`solo_bridge.specification.build`.
        :param out: folder of all of them.
        """
        if not self.trained(spec, out) or self.waits(spec, out):
            return False
        return spec != "joint" or (self.folder(spec, out) / REFERENCE).is_file()

    def trained(self, spec: str, out: str | Path) -> bool:
        """Tell whether a strategy is trained and measured, but maybe for its plasticity.

        :param spec: see :func:`solo_bridge.specification.build`.
        :param out: folder of all of them.
        """
        folder = self.folder(spec, out)
        known = asked(folder)
        return known is not None and known.finished and load_run(folder).complete

    def waits(self, spec: str, out: str | Path) -> bool:
        """Tell whether a strategy's plasticity is yet to be measured, see :meth:`run`.

        :param spec: see :func:`solo_bridge.specification.build`.
        :param out: folder of all of them.
        """
        return plasticity.waits(self.folder(spec, out))

    def run(
        self,
        spec: str,
        out: str | Path,
        *,
        bar: bool = True,
        lines: bool = False,
        checkpoint_minutes: float | None = MINUTES,
        keep_checkpoints: bool = False,
    ) -> Run:
        """Train and measure one strategy, or go on with it; in a job of several processes in all.

        :param spec: see :func:`solo_bridge.specification.build`.
        :param out: record and backbone go to a folder of this one.  Joint training's backbone is
            the reference of the others' plasticity: where joint training is asked for and not
            finished, that is measured when this is called again.
        :param bar: whether to show progress.
        :param lines: whether to show it as lines, also on a terminal.
        :param checkpoint_minutes: how often to save within an experience, see
            :class:`~avalanche_branchtune.checkpoints.Checkpoints`; None for never.
        :param keep_checkpoints: whether they stay when the run is finished.
        :return: its record.
        :raises RecordError: for a folder that has a run which is finished, or is not of this
            comparison.
        """
        out = Path(out)
        self.join()
        stream = self.stream(out / PIXELS)
        folder = self.folder(spec, out)
        known, trained = ranks.of_first(lambda: self._ready(spec, stream, out))
        if not trained:
            epochs = self._epochs(spec, stream)
            progress = Progress(self.title(spec), epochs, bar and ranks.leads(), lines)
            checkpoints = Checkpoints(
                folder, resume=True, every_minutes=checkpoint_minutes, verbose=False
            )
            self._train(spec, stream, out, checkpoints, progress)
            if ranks.leads():
                replace(known, finished=True).save(folder)
            checkpoints.finish(keep=keep_checkpoints)
        return ranks.of_first(lambda: self._completed(spec, stream, out))

    def _ready(self, spec: str, stream: Any, out: Path) -> tuple[Asked, bool]:
        """Return what is asked for, and whether it is trained and waits for its plasticity."""
        known = self._begun(spec, out)
        self._joint(stream, out)  # one that is damaged is known before training
        return known, known.finished and self.waits(spec, out)

    def _completed(self, spec: str, stream: Any, out: Path) -> Run:
        """Return the record of a strategy that is trained, with its plasticity if that can be."""
        joint = self._joint(stream, out)
        if joint is not None and self.waits(spec, out):
            plasticity.measure(self.folder(spec, out), stream.test_stream, joint)
        return load_run(self.folder(spec, out))

    def strategy(
        self, spec: str, stream: Any, evaluator: EvaluationPlugin | None, *plugins: Any
    ) -> SelfSupervised:
        """Return a strategy as it is trained here, newly initialised.

        :param spec: see :func:`solo_bridge.specification.build`.
        :param stream: that it will learn.
        :param evaluator: of what is measured.
        :param plugins: of the caller's own, before all others.
        """
        method = self.network(stream)
        defaults, options = self.default_options(), {}
        for e in entries(spec):
            asks = self.learnt_before and PRETRAINED in inspect.signature(e.maker).parameters
            begun = {PRETRAINED: True} if asks else {}
            options[e.name] = {
                **begun,
                **defaults.get(e.name, {}),
                **self.options.get(e.name, {}),
            }
        online = []
        if "online" in self.probes:
            labelled = LabelledImages(stream.train_stream)
            online = [OnlineProbe(classes_of(stream), labelled=labelled)]
        settings = {
            **self.training_settings(),
            "views": self.kind_of_views,
            "train_mb_size": self.batch,
            "train_epochs": self.epochs,
            "device": self.device.partition(":")[0],
            "reproducible_views": True,
            "evaluator": evaluator,
        }
        for e in entries(spec):
            both = sorted(settings.keys() & {**e.fixed, **options[e.name]}.keys())
            if e.is_strategy and both:
                raise UnknownOptionError(
                    f"options of {e.name}: {both[0]} is the same for all that are compared: say it "
                    "as a setting of the training"
                )
        return build(spec, method, options=options, plugins=[*plugins, *online], **settings)

    def _train(
        self, spec: str, stream: Any, out: Path, checkpoints: Checkpoints, progress: Progress
    ) -> None:
        """Train and measure a strategy, but for its plasticity."""
        folder = self.folder(spec, out)
        begun = ranks.of_first(checkpoints.folder.begun)
        recorder = RunRecorder(
            folder,
            self.title(spec),
            seed=self.seed,
            settings={**self.facts(), "specification": spec},
            resume=begun,
            overwrite=not begun,
        )
        with nullcontext() if self.logger is None else LOGGERS[self.logger](recorder) as logger:
            loggers = [recorder] if logger is None else [recorder, logger]
            evaluator = EvaluationPlugin(loggers=loggers)
            strategy = self.strategy(spec, stream, evaluator, progress)
            analysis = None if isinstance(strategy, Joint) else self._analysis(spec, stream, out)
            evaluator.metrics = metrics_of(self.probes, strategy, stream, analysis)
            strategy.plugins.append(checkpoints)
            checkpoints.attach(strategy)  # now that it has all its parts
            several = isinstance(strategy, Joint)
            for part in [stream.train_stream] if several else stream.train_stream:
                strategy.train(part, num_workers=self.workers, persistent_workers=self.workers > 0)
                strategy.eval(stream.test_stream, loss=False)
        if ranks.leads():
            save_backbone(strategy.model, folder / REFERENCE)

    def _epochs(self, spec: str, stream: Any) -> int:
        joint = "joint" in {e.name for e in entries(spec)}
        return self.epochs * (1 if joint else len(stream.train_stream))

    def _joint(self, stream: Any, out: Path) -> nn.Module | None:
        """Return the jointly trained backbone, None if it is not there."""
        reference = self.reference(out) / REFERENCE
        if not reference.is_file():
            return None
        joint = self.network(stream).backbone
        load_solo_checkpoint(joint, reference, strict=True)
        return joint.to(self.device)

    def _begun(self, spec: str, out: Path) -> Asked:
        """Return what the run is asked for, if it can begin or go on."""
        folder = self.folder(spec, out)
        new = Asked.of(vars(self), spec, threads=torch.get_num_threads())
        known = self.known(spec, out)
        if self.finished(spec, out):
            raise RecordError(f"{folder} holds the record of a run that is finished")
        if known is None:
            new.save(folder)
            return new
        known.check_same_run(new, folder)
        return known

    def _analysis(self, spec: str, stream: Any, out: Path) -> AnalysisMetric:
        """Return what measures S, and P now or later, if joint training is asked for."""
        joint = self.reference(out)
        if (joint / ASKED).is_file() or (joint / REFERENCE).is_file():
            return plasticity.PlasticityLater(stream.test_stream, self.folder(spec, out))
        return AnalysisMetric(stream.test_stream)
