"""The demo: one stream that needs no download, three strategies, one table."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from avalanche.core import BasePlugin, SupervisedPlugin
from torch import nn
from torch.utils.data import ConcatDataset, Subset
from tqdm import tqdm

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.analysis import stability_plasticity
from avalanche_branchtune.evaluation import ProbeResult, knn_probe
from avalanche_branchtune.report import Curve, Record, peak_memory_mib
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
) -> Record:
    """Compare fine-tuning, Branch-tuning, joint training and a random network.

    SimCLR with a small ResNet on digits blended onto photographs, 16×16, five
    class-incremental experiences of two classes; after each, weighted kNN on
    all ten classes.

    :param out: folder for the table (JSON, CSV) and the plot.
    :param seed: of the stream, the network and the training.
    :param epochs: epochs of each experience (joint training: of all data).
    :param device: where to train.
    :param samples: number of training images.
    :return: the record that was written.
    """
    train = digits_on_photographs(True, size=SIZE, samples=samples, seed=seed)
    test = digits_on_photographs(False, size=SIZE, seed=seed)
    view = EvalTransform(SIZE)
    stream = class_incremental(train, test, EXPERIENCES, eval_transform=view, seed=seed)
    everything = joint(train, test, eval_transform=view)
    bank, queries = everything.train_stream[0].dataset, everything.test_stream[0].dataset

    def probe(method: SoloMethod) -> ProbeResult:
        return knn_probe(method, bank, queries, device=device)

    torch.manual_seed(seed)
    untrained = probe(_method())
    curves = []
    plans: dict[str, tuple[Iterable[Any], list[BasePlugin]]] = {
        "joint": (everything.train_stream, []),
        "fine-tuning": (stream.train_stream, []),
        "Branch-tuning": (stream.train_stream, [BranchTuningPlugin(verbose=False)]),
    }
    networks: dict[str, list[nn.Module]] = {}
    for name, (experiences, plugins) in plans.items():
        torch.manual_seed(seed)
        method = _method()
        curve = Curve(name, epochs=epochs)
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
            evaluator=None,
        )
        for experience in experiences:
            begin = time.perf_counter()
            strategy.train(experience, num_workers=1, persistent_workers=True)
            curve.seconds.append(time.perf_counter() - begin)
            curve.accuracies.append(probe(method).accuracy)
            networks.setdefault(name, []).append(copy.deepcopy(method.backbone))
        if len(networks[name]) == EXPERIENCES:
            before, after = networks[name][-2:]
            analysis = stability_plasticity(
                after,
                old_reference=before,
                old_data=_images(stream.test_stream[: EXPERIENCES - 1]),
                new_reference=networks["joint"][0],
                new_data=_images(stream.test_stream[EXPERIENCES - 1 :]),
            )
            curve.stability = analysis.mean_stability
            curve.plasticity = analysis.mean_plasticity
        curves.append(curve)
    curves = [*curves[1:], curves[0], Curve("random network", [untrained.accuracy])]
    record = Record(
        title="SimCLR on digits over photographs, five class-incremental experiences",
        protocol=untrained.protocol,
        settings={
            "data": f"digits on photographs, {SIZE}×{SIZE}, {len(train)} training images",
            "method": "SimCLR",
            "backbone": f"small_resnet({WIDTH})",
            "epochs": f"{epochs} in each experience; joint: {epochs} on all data",
            "optimizer": f"SGD, lr {LR} · batch/256, momentum 0.9, weight decay 5e-4, cosine",
            "batch": BATCH,
            "S and P": "stability: likeness to the network before the last experience on the "
            "test images of earlier ones; plasticity: to the jointly trained network on those of "
            f"the last one; mean over layers; {analysis.protocol}",
            "seed": seed,
            "device": device,
            "peak_memory_mib": round(peak_memory_mib()),
        },
        curves=curves,
    )
    record.write(out)
    return record


def _images(experiences: Iterable[Any], samples: int = 256) -> Any:
    """Return the first test images of some experiences together."""
    data = [e.dataset.eval() for e in experiences]
    every: ConcatDataset[Any] = ConcatDataset(data)
    return Subset(every, range(min(samples, len(every))))


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
