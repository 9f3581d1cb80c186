"""The demo: one stream that needs no download, three strategies, one table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from avalanche.core import BasePlugin, SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import nn
from tqdm import tqdm

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.evaluation import KNNProbe, StreamProbe
from avalanche_branchtune.metrics import AnalysisMetric, RunRecorder, run_metrics
from avalanche_branchtune.report import Run
from avalanche_branchtune.streams import class_incremental, digits_on_photographs, joint
from solo_bridge.augmentation import Augmentation
from solo_bridge.backbones import small_resnet
from solo_bridge.method import SoloMethod
from solo_bridge.strategy import SelfSupervised
from solo_bridge.views import EvalTransform

SIZE, EXPERIENCES, WIDTH, BATCH, LR = 16, 5, 16, 128, 0.12

AUGMENTATION = Augmentation(
    crop_size=SIZE,
    crop_min_scale=0.5,  # a smaller share of 16 pixels shows no digit any more
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.5,  # less, and two views can be matched by the background's colour alone
    flip_prob=0.0,  # mirrored digits are others
    num_crops=2,
)


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
        self.bar.set_postfix(experience=experience, loss=f"{strategy.loss.item():.3f}")
        self.bar.update()

    def after_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Leave the bar on the screen when all epochs are done."""
        if self.bar.n >= self.bar.total:
            self.bar.close()


def run_demo(
    out: str | Path, *, seed: int = 0, epochs: int = 15, device: str = "cpu", samples: int = 4000
) -> list[Run]:
    """Compare fine-tuning, Branch-tuning and joint training with a random network.

    SimCLR with a small ResNet on digits blended onto photographs, 16×16, five
    class-incremental experiences of two classes; after each, weighted kNN on
    all ten classes, and the layers' stability and plasticity.

    :param out: each strategy's record is written to a folder in this one.
    :param seed: of the stream, the network and the training.
    :param epochs: epochs of each experience (joint training: of all data).
    :param device: where to train.
    :param samples: number of training images.
    :return: the records.
    :raises RecordError: if there are records in ``out`` already.
    """
    train = digits_on_photographs(True, size=SIZE, samples=samples, seed=seed)
    test = digits_on_photographs(False, size=SIZE, seed=seed)
    view = EvalTransform(SIZE)
    stream = class_incremental(train, test, EXPERIENCES, eval_transform=view, seed=seed)
    plans: dict[str, tuple[Iterable[Any], list[BasePlugin]]] = {
        "joint": (joint(train, test, eval_transform=view).train_stream, []),
        "fine-tuning": (stream.train_stream, []),
        "Branch-tuning": (stream.train_stream, [BranchTuningPlugin(verbose=False)]),
    }
    probe = StreamProbe(KNNProbe(), stream.train_stream, stream.test_stream)
    reference: nn.Module | None = None
    runs = []
    for name, (experiences, plugins) in plans.items():
        torch.manual_seed(seed)
        method = _method()
        analysis = [AnalysisMetric(stream.test_stream, joint=reference)] if reference else []
        recorder = RunRecorder(Path(out) / name, name, seed=seed, settings=_settings(len(train)))
        bar = ProgressBar(name, epochs * (1 if name == "joint" else EXPERIENCES))
        strategy = SelfSupervised(
            method,
            optimizer="sgd",
            lr=LR,
            weight_decay=5e-4,
            train_mb_size=BATCH,
            train_epochs=epochs,
            device=device,
            plugins=[*plugins, bar],
            evaluator=EvaluationPlugin(*run_metrics([probe], *analysis), loggers=[recorder]),
        )
        for experience in experiences:
            strategy.train(experience, num_workers=1, persistent_workers=True)
            strategy.eval(stream.test_stream, loss=False)
        reference = reference or method.backbone
        runs.append(recorder.run)
    return runs


def _settings(samples: int) -> dict[str, Any]:
    return {
        "data": f"digits on photographs, {SIZE}×{SIZE}, {samples} training images",
        "stream": f"class-incremental, {EXPERIENCES} experiences of two classes",
        "method": "SimCLR",
        "backbone": f"small_resnet({WIDTH})",
        "optimizer": f"SGD, lr {LR} · batch/256, momentum 0.9, weight decay 5e-4, cosine",
    }


def _method() -> SoloMethod:
    return SoloMethod(
        "simclr",
        small_resnet(WIDTH),
        image_size=SIZE,
        num_classes=10,
        augmentations=[AUGMENTATION],
        proj_hidden_dim=256,
        proj_output_dim=128,
    )
