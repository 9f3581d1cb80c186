"""Small runs in processes of their own, which are killed with SIGKILL and go on in the next one.

A server imports everything once, and each attempt is forked from it; it has started no threads.
"""

from __future__ import annotations

import contextlib
import csv
import json
import multiprocessing
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from torch import Tensor

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.checkpoints.state import random_states
from avalanche_branchtune.evaluation import KNNProbe, StreamProbe
from avalanche_branchtune.metrics import RunRecorder, run_metrics
from avalanche_branchtune.records import load_run
from solo_bridge import specification
from tests import supervised
from tests.killed_writing import MOMENTS, ONCE, die_at
from tests.selfsupervised import method, small_options, stream

SUPERVISED = "Naive, Branch-tuning, Replay"
KINDS: Mapping[str, tuple[str, str]] = {
    "fine-tuning": ("fine_tuning", "simclr"),
    "Branch-tuning": ("branch_tuning", "simclr"),
    "CaSSLe + Branch-tuning": ("branch_tuning+cassle", "simclr"),
    "Kaizen + replay": ("kaizen+replay", "byol"),
    "LUMP": ("lump", "simclr"),
    "EWC": ("ewc", "simclr"),
    "DER": ("der", "simclr"),
    "SwAV": ("fine_tuning", "swav"),
    "MoCo v2+": ("fine_tuning", "mocov2plus"),
    SUPERVISED: ("", ""),
}
"""Name of a kind of run → specification and method."""

MORE = 4
"""Steps after which a process waits that is to be killed: the rest is for the next ones."""

END = "end.pt"
"""What a run leaves when it has ended."""


@dataclass(frozen=True)
class Kill:
    """When a process dies.

    :param step: of the whole run, after which it does; 0 for the beginning of the attempt.
    :param after: seconds until it is killed from outside.
    :param moment: of writing at which it dies instead, one of
        :data:`~tests.killed_writing.MOMENTS`.
    """

    step: int
    after: float = 0.0
    moment: str | None = None


@dataclass
class Outcome:
    """What became of a run that was killed again and again.

    :param killed: the kills that took place.
    :param within: how many attempts went on within a call of ``train``.
    :param compared: numbers and texts that were compared with those of the whole run.
    :param differing: names of what differed.
    """

    killed: list[Kill] = field(default_factory=list)
    within: int = 0
    compared: int = 0
    differing: list[str] = field(default_factory=list)


# ---- in a process of its own

TELL: list[Callable[[int], None]] = []
"""Who hears of each step; not in the plugin, whose state a checkpoint puts back."""


class Tells(SupervisedPlugin):
    """Says how far the run is."""

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        for tell in TELL:
            tell(strategy.clock.train_iterations)


def run(kind: str, folder: Path) -> None:
    """Do what a script does, that is started again and again until it has ended."""
    recorder = RunRecorder(folder / "record", kind, seed=0, resume=True)
    checkpoints = Checkpoints(folder / "state", resume=True, every_epochs=1)
    make = supervised_run if kind == SUPERVISED else self_supervised_run
    strategy, benchmark = make(kind, recorder, [Tells(), checkpoints])
    if kind == SUPERVISED:
        checkpoints.attach(strategy)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    results = []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        results.append(strategy.eval(benchmark.test_stream[:2]))
    end = {
        "weights": dict(strategy.model.state_dict()),
        "optimizer": strategy.optimizer.state_dict(),
        "random": random_states(),
        "results": results,
        "clock": [strategy.clock.train_iterations, strategy.clock.train_exp_counter],
    }
    torch.save(end, folder / END)


def self_supervised_run(kind: str, recorder: Any, plugins: list[Any]) -> tuple[Any, Any]:
    spec, name = KINDS[kind]
    benchmark = stream(5)
    probe = StreamProbe(KNNProbe(), benchmark.train_stream, benchmark.test_stream)
    strategy = specification.build(
        spec,
        method(name),
        options=small_options(spec),
        plugins=plugins,
        optimizer="sgd",
        lr=0.05,
        train_mb_size=5,
        train_epochs=2,
        evaluator=EvaluationPlugin(
            loss_metrics(epoch=True, experience=True), *run_metrics([probe]), loggers=[recorder]
        ),
    )
    return strategy, benchmark


def supervised_run(kind: str, recorder: Any, plugins: list[Any]) -> tuple[Any, Any]:
    strategy = supervised.strategy(
        [BranchTuningPlugin(verbose=False), ReplayPlugin(12), *plugins],
        train_mb_size=2,
        train_epochs=2,
        evaluator=EvaluationPlugin(
            accuracy_metrics(epoch=True, experience=True, stream=True),
            *run_metrics([]),
            loggers=[recorder],
        ),
    )
    return strategy, supervised.benchmark(3)


def attempt(kind: str, folder: Path, kill: Kill | None, parent: Connection) -> None:
    """Run until the end, or until killed."""
    torch.set_num_threads(1)
    warnings.warn = lambda *args, **kwargs: None  # Avalanche undoes every filter
    passed: list[int] = []

    def tell(step: int) -> None:
        if kill is not None and step >= kill.step:
            passed.append(step)
            if kill.moment is None and len(passed) == 1:
                parent.send(step)
            if kill.moment is None and step >= kill.step + MORE:
                signal.pause()

    TELL[:] = [tell]
    if kill is not None and kill.moment is not None:
        die_at(kill.moment, lambda: bool(passed) or not kill.step)
    run(kind, folder)


# ---- in the process that kills

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def attempted(kind: str, folder: Path, kill: Kill | None) -> bool:
    """Run once; return whether the process was killed.

    :param kind: one of :data:`KINDS`.
    :param folder: of the run, which goes on with what is there.
    :param kill: when, None for never.
    :raises AssertionError: if the process ended in another way.
    """
    here, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=attempt, args=(kind, folder, kill, there))
    process.start()
    there.close()
    if kill is not None and kill.moment is None:
        with contextlib.suppress(EOFError):  # it has ended
            here.recv()
            time.sleep(kill.after)
            process.kill()
    process.join()
    here.close()
    assert process.exitcode in (0, -signal.SIGKILL), f"{kind}: see the process's message"
    return process.exitcode != 0


def drawn(kills: int, writing: int, seed: int, steps: int, seconds: float) -> list[Kill]:
    """Return when to kill a run: at random moments, and at moments of writing among them.

    The last kill is at a random moment of the second half.

    :param kills: how many.
    :param writing: how many of them at moments of writing.
    :param seed: of what is drawn.
    :param steps: of the whole run.
    :param seconds: that it takes.
    """
    draw = random.Random(seed)
    found = [
        Kill(draw.randint(1, steps // 2), draw.uniform(0, MORE * seconds / steps))
        for _ in range(kills - 1)
    ]
    for i, moment in zip(
        draw.sample(range(kills - 1), writing), draw.sample(MOMENTS, writing), strict=True
    ):
        found[i] = Kill(found[i].step, moment=moment)
    found.sort(key=lambda kill: kill.step)
    found = [Kill(0, moment=k.moment) if k.moment in ONCE else k for k in found]
    last = draw.randint(steps // 2, steps - MORE - 1)
    return [*found, Kill(last, draw.uniform(0, MORE * seconds / steps))]


def killed(kind: str, folder: Path, kills: list[Kill]) -> Outcome:
    """Run until the end, killed again and again, and read the record each time.

    :param kind: one of :data:`KINDS`.
    :param folder: of the run.
    :param kills: of one attempt each.
    """
    found = Outcome()
    for kill in [*kills, None]:
        found.within += _goes_on_within(folder)
        if attempted(kind, folder, kill) and kill is not None:
            found.killed.append(kill)
        if (folder / "record" / "run.json").exists():
            load_run(folder / "record")
    return found


def _goes_on_within(folder: Path) -> bool:
    index = folder / "state" / "checkpoints.json"
    if not index.exists():
        return False
    return json.loads(index.read_text())["checkpoints"][-1]["midway"] is not None


# ---- what two runs have in common

COSTS = ("Seconds", "Peak_MiB")
TIMES = ("run.json/seconds/", "run.json/evaluation_seconds/", "run.json/peak_memory_mib")


def compare(expected: Path, found: Path) -> tuple[int, list[str]]:
    """Compare all that two runs left, times and memory aside; of these only how many they are.

    :param expected: folder of the run that was not killed.
    :param found: folder of the other one.
    :return: how many numbers and texts were compared, and names of those that differ.
    """
    here, there = dict(contents(expected)), dict(contents(found))
    names = [*here, *(name for name in there if name not in here)]
    differing = [n for n in names if n not in here or n not in there or here[n] != there[n]]
    return len(names), differing


def contents(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield all that a run left: names and values."""
    yield from leaves(torch.load(folder / END, weights_only=True), "end")
    run = json.loads((folder / "record" / "run.json").read_text(encoding="utf-8"))
    for name, value in leaves(run, "run.json"):
        yield name, None if name.startswith(TIMES) else value
    with (folder / "record" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        for number, (_, *cells, value) in enumerate(csv.reader(file)):
            cost = any(cell in cells[2] for cell in COSTS)
            yield from leaves([*cells, None if cost else value], f"metrics.csv/{number}")
    sample = folder / "record" / "features.npz"
    if sample.exists():
        with np.load(sample) as archive:
            yield from leaves({k: torch.from_numpy(archive[k]) for k in archive.files}, "features")
    yield "files", sorted(p.name for p in (folder / "record").iterdir())
    states = sorted(p.name for p in (folder / "state").iterdir())
    yield "checkpoints", [name.split("-")[:2] for name in states]  # then comes a sum


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the numbers and texts within lists, dictionaries and tensors, by their places."""
    if isinstance(value, Tensor):
        yield f"{name}: shape", (str(value.dtype), *value.shape)
        value = value.flatten().tolist()
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, f"{name}/{key}") if not _cost(key) else [(f"{name}/{key}", 0)]
        yield f"{name}: keys", [str(key) for key in value]
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from leaves(part, f"{name}/{i}")
        yield f"{name}: length", len(value)
    else:
        yield name, repr(value)  # of a float all its digits; NaN is equal to itself


def _cost(name: Any) -> bool:
    return any(cost in str(name) for cost in COSTS)
