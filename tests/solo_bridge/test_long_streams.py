"""Streams of 200 experiences: what is held and what each one costs does not grow.

What does, in proportion to the experiences: the list of finished calls and of what the metrics
gave, in memory and in each checkpoint, with the time to save it; the summaries of the branches.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.metrics import RunRecorder, run_metrics
from avalanche_branchtune.streams import data_incremental, digits_on_photographs
from solo_bridge import EvalTransform, specification
from tests.selfsupervised import backbone, method, small_options

LENGTH, SAMPLES = 200, 1200
FIRST, MIDDLE, LAST = 10, 104, 198
"""Experiences after which is measured."""


@dataclass
class Held:
    """What there is after an experience.

    :param memory: of the process, in bytes.
    :param constant: bytes of tensors but the finished calls, and numbers of modules, of hooks
        on the network, of the optimizer's groups and of open files.
    :param objects: of Python's, all that the test has made.
    :param journal: bytes of what was added to the record.
    :param record: what the record began with.
    :param checkpoint: bytes of the newest one.
    """

    memory: int
    constant: dict[str, int]
    objects: int
    journal: int
    record: bytes
    checkpoint: int


def held(strategy: Any, folder: Path) -> Held:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that it is not counted
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    files = len(os.listdir("/proc/self/fd"))
    objects = gc.get_objects()
    (plugin,) = (p for p in strategy.plugins if isinstance(p, Checkpoints))
    calls = {id(call) for call in plugin._calls}
    tensors = [o for o in objects if issubclass(type(o), Tensor) and id(o) not in calls]
    tensors = [t for t in tensors if not is_lazy(t)]  # another test's, of no size yet
    hooks = [
        len(value)
        for module in strategy.model.modules()
        for name, value in vars(module).items()
        if name.endswith("_hooks")
    ]
    return Held(
        memory=pages * os.sysconf("SC_PAGE_SIZE"),
        constant={
            "tensors": sum(t.numel() * t.element_size() for t in tensors),
            "modules": sum(issubclass(type(o), nn.Module) for o in objects),
            "hooks": sum(hooks),
            "groups": len(strategy.optimizer.param_groups),
            "files": files,
        },
        objects=len(objects),
        journal=(folder / "record" / "run.changes.jsonl").stat().st_size,
        record=(folder / "record" / "run.json").read_bytes(),
        checkpoint=max((folder / "state").glob("state-*.pt")).stat().st_size,
    )


class Timed(Checkpoints):
    """Takes the time of what it saves."""

    seconds = 0.0

    def _save(self, *args: Any) -> None:
        begin = time.process_time()
        super()._save(*args)
        self.seconds += time.process_time() - begin


def yardstick() -> float:
    """Return the seconds of always the same work: they rise with what else the machine does."""
    network, images = backbone(), torch.ones(6, 3, 8, 8)
    begin = time.process_time()
    for _ in range(50):
        copy.deepcopy(network)(images).sum().backward()
    return time.process_time() - begin


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures as Linux does")
@pytest.mark.parametrize(
    ("spec", "name"), [("branch_tuning+cassle", "simclr"), ("kaizen+replay", "byol")]
)
def test_nothing_grows(spec: str, name: str, tmp_path: Path) -> None:
    benchmark = data_incremental(
        digits_on_photographs(True, size=8, samples=SAMPLES, seed=0),
        digits_on_photographs(False, size=8, samples=20, seed=1),
        LENGTH,
        eval_transform=EvalTransform(8),
    )
    recorder = RunRecorder(tmp_path / "record", "long", seed=0)
    checkpoints = Timed(tmp_path / "state")
    strategy = specification.build(
        spec,
        method(name),
        options=small_options(spec),
        plugins=[checkpoints],
        optimizer="sgd",
        lr=0.05,
        train_mb_size=3,
        train_epochs=1,
        evaluator=EvaluationPlugin(
            loss_metrics(epoch=True, experience=True), *run_metrics([]), loggers=[recorder]
        ),
    )
    torch.manual_seed(1)
    training, saving, found = [], [], {}
    gc.freeze()  # not what other tests have left, and may go meanwhile
    for number, experience in enumerate(benchmark.train_stream, 1):
        begin = time.process_time()
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
        took, unit = time.process_time() - begin, yardstick()
        saved, checkpoints.seconds = checkpoints.seconds, 0.0
        training.append((took - saved) / unit)
        saving.append(saved / unit)
        if number in (FIRST, MIDDLE, LAST):
            found[number] = held(strategy, tmp_path)
    gc.unfreeze()
    first, middle, last = found[FIRST], found[MIDDLE], found[LAST]
    assert last.memory <= 1.02 * first.memory
    assert last.constant == first.constant
    assert median(training[-20:]) <= 1.2 * median(training[9:29])
    assert median(saving[-20:]) <= 4 * median(saving[9:29]), "in proportion would be 7 times"
    assert last.record == first.record, "only added to, until the run is complete"
    for name in ("objects", "journal", "checkpoint"):
        early, late = (
            getattr(later, name) - getattr(before, name)
            for before, later in ((first, middle), (middle, last))
        )
        assert 0 < late <= 1.1 * early, f"{name}: {early}, {late}"
    run = tmp_path / "record" / "run.json"
    assert [f.name for f in run.parent.glob("run.*")] == [
        "run.json"
    ] and run.stat().st_size < 60_000
