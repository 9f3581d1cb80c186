"""What a loop costs around the same steps: ``python -m benchmarks.loops``.

SimCLR on the demo's size (small ResNet, 16 pixels, batches of 128, digits on photographs), one
thread, everything in this process.  Compared: a bare loop over the same modules and batched views;
:class:`~solo_bridge.SelfSupervised` with BranchTuningPlugin and an evaluator that measures the
loss, with the same views; the strategy with solo-learn's views; and a Lightning Trainer that runs
the same method's step on solo-learn's own views in torch's loader.  They take turns; what is given
is the median over rounds of the process's CPU time for all steps of an experience, decoding
included, divided by the bare loop's in the same round.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.records import environment
from avalanche_branchtune.streams import class_incremental, digits_on_photographs
from solo_bridge import EvalTransform, SelfSupervised, SoloMethod, solo_views
from solo_bridge.backbones import small_resnet
from solo_bridge.comparison import digits
from solo_bridge.interface import Plan
from solo_bridge.optim import OptimizerSettings
from solo_bridge.views import BatchedViews, Decode

RESULTS = Path(__file__).parent / "results" / "loops.json"
SIZE, BATCH, LR = 16, 128, 0.06
OPTIMIZER = OptimizerSettings(name="sgd", lr=LR, weight_decay=5e-4)


def network() -> SoloMethod:
    torch.manual_seed(0)
    return SoloMethod(
        "simclr",
        small_resnet(16),
        image_size=SIZE,
        num_classes=10,
        proj_hidden_dim=256,
        proj_output_dim=128,
        augmentations=[digits.views(SIZE)],
    )


def bare(experience: Any, epochs: int) -> None:
    """The same step and views in a loop as short as it can be."""
    model, data = network(), experience.dataset.train()
    decode = Decode()
    pixels = torch.stack([decode(data[i][0]).pixels for i in range(len(data))])
    views = BatchedViews(model.augmentations)
    optimizer = OPTIMIZER.optimizer(model.parameter_groups())
    steps = len(pixels) // BATCH
    model.start_experience(Plan(steps, epochs, len(pixels), BATCH))
    schedule = OPTIMIZER.schedule(optimizer, steps, epochs)
    assert schedule is not None
    model.train()
    for epoch in range(epochs):
        model.start_epoch(epoch)
        order = torch.randperm(len(pixels))
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            optimizer.zero_grad()
            loss = model.loss(views(pixels[chosen], torch.randint(1 << 62, (BATCH,))))
            loss.backward()  # type: ignore[no-untyped-call]
            model.after_backward()
            optimizer.step()
            schedule.step()
            model.after_step()


def strategy(views: str) -> Callable[[Any, int], None]:
    def run(experience: Any, epochs: int) -> None:
        SelfSupervised(
            network(),
            optimizer="sgd",
            lr=LR,
            scale_lr=False,
            weight_decay=5e-4,
            views=views,
            train_mb_size=BATCH,
            train_epochs=epochs,
            plugins=[BranchTuningPlugin(verbose=False)],
            evaluator=EvaluationPlugin(loss_metrics(epoch=True), loggers=[]),
        ).train(experience)

    return run


class InTrainer(LightningModule):
    """A method's own step, for a real Trainer."""

    def __init__(self, model: SoloMethod, steps: int, epochs: int) -> None:
        super().__init__()
        self.model, self.steps, self.epochs = model, steps, epochs
        model.start_experience(Plan(steps, epochs, steps * BATCH, BATCH))

    def training_step(self, batch: Any, index: int) -> Any:
        return self.model.loss(batch[0])

    def on_train_epoch_start(self) -> None:
        self.model.start_epoch(self.current_epoch)

    def on_after_backward(self) -> None:
        self.model.after_backward()

    def on_train_batch_end(self, *args: Any) -> None:
        self.model.after_step()

    def configure_optimizers(self) -> Any:
        optimizer = OPTIMIZER.optimizer(self.model.parameter_groups())
        schedule = OPTIMIZER.schedule(optimizer, self.steps, self.epochs)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Viewed(torch.utils.data.Dataset[Any]):
    """Images as solo-learn's own data set gives them: views and label."""

    def __init__(self, data: Any, model: SoloMethod) -> None:
        self.data, self.views = data, solo_views(model.augmentations)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        sample = self.data[index]
        return self.views(sample[0]), sample[1]


def lightning(experience: Any, epochs: int) -> None:
    model = network()
    data = Viewed(experience.dataset.train(), model)
    loader: DataLoader[Any] = DataLoader(data, BATCH, shuffle=True, drop_last=True)
    Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(InTrainer(model, len(loader), epochs), loader)


LOOPS: dict[str, Callable[[Any, int], None]] = {
    "bare loop, batched views": bare,
    "strategy with Branch-tuning, batched views": strategy("batched"),
    "strategy with Branch-tuning, solo-learn's views": strategy("solo_learn"),
    "Lightning Trainer, solo-learn's views": lightning,
}


def measure(rounds: int = 5, epochs: int = 4, samples: int = 4000) -> dict[str, Any]:
    """Let the loops take turns on the first experience of the demo's stream.

    :param rounds: after one that is not counted.
    :param epochs: of the experience.
    :param samples: of the stream of five experiences.
    :return: loop → milliseconds of CPU time for each step, and ratio to the bare loop.
    """
    train, test = digits_on_photographs(True, samples=samples), digits_on_photographs(False)
    stream = class_incremental(train, test, 5, eval_transform=EvalTransform(SIZE))
    experience = stream.train_stream[0]
    steps = len(experience.dataset) // BATCH * epochs
    taken: dict[str, list[float]] = {name: [] for name in LOOPS}
    names = list(LOOPS)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            begin = time.process_time()
            LOOPS[name](experience, epochs)
            taken[name].append(time.process_time() - begin)
    counted = {name: seconds[1:] for name, seconds in taken.items()}
    first = counted[names[0]]
    return {
        name: {
            "ms": round(1000 * median(seconds) / steps, 1),
            "ratio": round(median(s / f for s, f in zip(seconds, first, strict=True)), 3),
        }
        for name, seconds in counted.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    content = {
        "rounds": options.rounds,
        "epochs": options.epochs,
        "environment": environment(),
        "loops": measure(options.rounds, options.epochs),
    }
    print(json.dumps(content["loops"], indent=1))
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
