"""Supervised strategies of Avalanche's go on as well."""

from __future__ import annotations

import functools
import random
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metric_results import AlternativeValues
from avalanche.evaluation.metrics import accuracy_metrics, timing_metrics
from avalanche.logging import CSVLogger, TensorboardLogger, TextLogger
from avalanche.training import JointTraining
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, LwFPlugin, ReplayPlugin
from matplotlib.figure import Figure
from torch import nn

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.checkpoints import plugin as plugin_module
from avalanche_branchtune.checkpoints.calls import apart, unpacked
from avalanche_branchtune.errors import CheckpointError
from avalanche_branchtune.metrics.cost import CostMetric
from tests.supervised import Net, benchmark, kernels, strategy


class Weighs(SupervisedPlugin):
    """Learns a factor of the loss by an optimizer and a schedule of its own.

    It takes a step for every three of the strategy's; until then gradients add up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.optimizer = torch.optim.SGD([self.factor], lr=0.01, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.loss = strategy.loss * self.factor

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_iterations % 3 == 0:
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()


class Anneals(SupervisedPlugin):
    """Holds a scheduler that is older than the groups of branches."""

    schedule: Any = None

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if self.schedule is None:
            made = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(strategy.optimizer, 5)
            self.schedule = made

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.schedule.step()


PLUGINS = {
    "none": list,
    "branch_tuning": lambda: [BranchTuningPlugin(verbose=False)],
    "replay, branch_tuning": lambda: [ReplayPlugin(12), BranchTuningPlugin(verbose=False)],
    "branches at their own rate": lambda: [
        Anneals(),
        BranchTuningPlugin(verbose=False, lr_factor=4.0),
    ],
    "ewc": lambda: [EWCPlugin(1.0)],
    "lwf": lambda: [LwFPlugin()],
    "an optimizer of its own": lambda: [Weighs()],
}
AT: dict[str, int | None] = {"step": None}


class Killed(BaseException):
    """The process is no more."""


class Kill(SupervisedPlugin):
    """Ends it after a step's update."""

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_iterations == AT["step"]:
            raise Killed


def run(name: str, folder: Path, *, resume: bool) -> tuple[list[torch.Tensor], list[Any]]:
    checkpoints = Checkpoints(folder, resume=resume, every_epochs=1)
    evaluator = EvaluationPlugin(accuracy_metrics(experience=True, stream=True), loggers=[])
    made = strategy(
        [*PLUGINS[name](), Kill(), checkpoints],
        evaluator=evaluator,
        train_epochs=2,
        train_mb_size=4,
    )
    checkpoints.attach(made)
    torch.manual_seed(1)
    streams, results = benchmark(3), []
    for experience in streams.train_stream:
        made.train(experience)
        results.append(dict(made.eval(streams.test_stream)))
    return [v.clone() for v in made.model.state_dict().values()], results


@pytest.mark.parametrize("name", PLUGINS)
def test_a_run_that_was_killed_ends_as_if_it_was_not(name: str, tmp_path: Path) -> None:
    AT["step"] = None
    weights, results = run(name, tmp_path / "whole", resume=False)
    for number, step in enumerate((2, 6, 13)):
        AT["step"] = step
        with pytest.raises(Killed):
            run(name, tmp_path / "parts", resume=number > 0)
    AT["step"] = None
    found, again = run(name, tmp_path / "parts", resume=True)
    assert all(torch.equal(*pair) for pair in zip(weights, found, strict=True))
    assert again == results


def test_a_strategy_that_is_not_watched_is_refused(tmp_path: Path) -> None:
    made = strategy([Checkpoints(tmp_path)])
    with pytest.raises(CheckpointError, match=r"call checkpoints\.attach\(strategy\)"):
        made.train(benchmark(3).train_stream[0])


def test_no_plugin_misses_an_event(tmp_path: Path) -> None:
    """The plugin goes last; moved while the plugins are called, it would let the next one out."""
    heard: list[str] = []

    class Listens(SupervisedPlugin):
        def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            heard.append("before_training")

    checkpoints = Checkpoints(tmp_path)
    made = strategy([checkpoints, Listens()])
    checkpoints.attach(made)
    made.train(benchmark(3).train_stream[0])
    assert heard == ["before_training"]


class Odd(SupervisedPlugin):
    """Keeps what cannot be written."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.kept = nn.Sequential(Own())


class Own(nn.Module):
    """A user's module, of which the model has none."""


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    made = strategy([Odd(), checkpoints])
    checkpoints.attach(made)
    with pytest.raises(CheckpointError, match=r"Odd\.kept.*Own, which cannot be made anew"):
        made.train(benchmark(3).train_stream[0])


class Changes(SupervisedPlugin):
    """Holds something, and another state of it after an experience; the loss depends on it."""

    def __init__(self, kept: Any, change: Any) -> None:
        super().__init__()
        self.kept, self.change = kept, change

    def one(self) -> float:
        return 1.0

    def half(self) -> float:
        return 0.5

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.change(self)


class Items(deque[float]):
    """Has items and attributes."""


class Slotted:
    __slots__ = ("x",)


class SlottedToo(Slotted):
    """Has a slot and attributes."""


def rise(by: float) -> float:
    return by


def setting(value: Any) -> Any:
    return lambda plugin: setattr(plugin, "kept", value(plugin) if callable(value) else value)


CHANGES: dict[str, tuple[Any, Any]] = {
    "Random": (random.Random(0), lambda plugin: plugin.kept.random()),
    "Items": (Items([1.0]), lambda plugin: plugin.kept.append(2.0)),
    "SlottedToo": (SlottedToo(), lambda plugin: setattr(plugin.kept, "x", 1.0)),
    "MaskedArray": (None, setting(np.ma.masked_array([1.0, 2.0], [0, 1]))),
    "ndarray": (None, setting(np.array([1.0], ">f8"))),
    "function, rise": (print, setting(lambda plugin: rise)),
    "function, rise, ": (
        functools.partial(rise, 1.0),
        setting(lambda _: functools.partial(rise, 2.0)),
    ),
    "function, Changes.half": (Changes.one, setting(lambda plugin: plugin.half)),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_would_silently_be_lost_is_refused(kind: str, tmp_path: Path) -> None:
    """State outside an object's attributes, and functions that another one has replaced."""
    made = strategy([Changes(*CHANGES[kind]), checkpoints := Checkpoints(tmp_path)], train_epochs=1)
    checkpoints.attach(made)
    with pytest.raises(CheckpointError, match=rf"Changes\.kept is a .*{kind.strip(', ')}"):
        made.train(benchmark(3).train_stream[0])


class Hooks(SupervisedPlugin):
    """Changes what the model computes after an experience."""

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.model.fc.register_forward_hook(lambda module, inputs, output: output / 2)


def test_a_hook_that_is_lost_is_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def train(experiences: int) -> None:
        checkpoints = Checkpoints(tmp_path, resume=True)
        made = strategy([Hooks(), checkpoints], train_epochs=1)
        checkpoints.attach(made)
        for experience in benchmark(3).train_stream[:experiences]:
            made.train(experience)

    train(1)
    train(2)
    assert "model.fc has 0 hooks here, in the run it had 1" in caplog.text


def test_an_experience_is_given_by_its_name(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    made = strategy([checkpoints], train_epochs=1)
    checkpoints.attach(made)
    streams = benchmark(3)
    made.train(num_workers=0, eval_streams=[], experiences=streams.train_stream[0])
    made.eval(num_workers=0, exp_list=streams.test_stream)
    found = [unpacked(call, "a run") for call in apart(checkpoints.folder.newest()[0]["calls"], "")]
    assert [(c["call"], c["experiences"]) for c in found] == [("train", [0]), ("eval", [0, 1, 2])]


def test_results_that_cannot_be_written_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = AlternativeValues(Figure(), 3)
    counts = torch.zeros(2)
    results = {"figure": figure, "accuracy": 0.5, "counts": counts}
    monkeypatch.setattr(EvaluationPlugin, "get_last_metrics", lambda self: results)
    made = attached(tmp_path, resume=False)
    assert made.train(benchmark(3).train_stream[0]) == results
    assert "when the run goes on, it lacks figure" in caplog.text
    counts += 1  # a metric's own, which goes on counting
    made.eval(benchmark(3).test_stream)
    again = attached(tmp_path, resume=True).train(benchmark(3).train_stream[0])
    assert again.keys() == {"accuracy", "counts"} and again["counts"].tolist() == [0, 0]


def attached(folder: Path, *plugins: Any, resume: bool, **settings: Any) -> Any:
    checkpoints = Checkpoints(folder, resume=resume)
    made = strategy([*plugins, checkpoints], **settings)
    checkpoints.attach(made)
    return made


def test_times_are_those_of_the_training_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)

    def timed(folder: Path, *, resume: bool) -> Any:
        cost = CostMetric()
        timing = timing_metrics(epoch=True, experience=True)
        evaluator = EvaluationPlugin(cost, timing, loggers=[])
        checkpoints = Checkpoints(folder, resume=resume, every_epochs=1)
        plugins = [Clock(), Kill(), checkpoints]
        made = strategy(plugins, evaluator=evaluator, train_mb_size=4)
        checkpoints.attach(made)
        results: dict[str, Any] = {}
        for experience in benchmark(3).train_stream:
            made.train(experience)
            results = made.eval(benchmark(3).test_stream)
        times = {k: v for k, v in results.items() if "Time" in k or "Seconds" in k}
        return cost.training, cost.evaluation, times

    AT["step"] = None
    expected = timed(tmp_path / "whole", resume=False)
    assert expected[0] == [8, 8, 8] and min(expected[1]) > 0 and len(expected[2]) > 3
    for number, step in enumerate((6, 13)):
        AT["step"] = step
        with pytest.raises(Killed):
            timed(tmp_path / "parts", resume=number > 0)
        Clock.now -= 1000.0  # another machine's
    AT["step"] = None
    assert timed(tmp_path / "parts", resume=True) == expected


class Clock(SupervisedPlugin):
    """A second passes in each step, and in each minibatch of an evaluation."""

    now = 5000.0

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        Clock.now += 1

    def after_eval_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        Clock.now += 1


def test_logs_go_on(tmp_path: Path) -> None:
    """Avalanche's loggers empty their files when they are made."""

    def logged(folder: Path, *, resume: bool) -> dict[str, str]:
        folder.mkdir(exist_ok=True)
        with (folder / "log.txt").open("w") as text, (folder / "more.txt").open("a") as more:
            csv = CSVLogger(folder / "csv")
            loggers = [csv, TextLogger(text), TextLogger(more), TensorboardLogger(folder)]
            metrics = accuracy_metrics(epoch=True, experience=True, stream=True)
            evaluator = EvaluationPlugin(metrics, loggers=loggers)
            try:
                checkpoints = Checkpoints(folder / "state", resume=resume, every_epochs=1)
                plugins = [Kill(), checkpoints]
                made = strategy(plugins, evaluator=evaluator, train_mb_size=4)
                checkpoints.attach(made)
                for experience in benchmark(3).train_stream:
                    made.train(experience)
                    made.eval(benchmark(3).test_stream)
            finally:
                csv.close()
        files = [*(folder / "csv").iterdir(), folder / "log.txt", folder / "more.txt"]
        return {file.name: file.read_text() for file in files}

    AT["step"] = None
    expected = logged(tmp_path / "whole", resume=False)
    assert len(expected) == 4 and all(t.count("\n") > 3 for t in expected.values())
    for number, step in enumerate((6, 13)):
        AT["step"] = step
        with pytest.raises(Killed):
            logged(tmp_path / "parts", resume=number > 0)
    AT["step"] = None
    assert logged(tmp_path / "parts", resume=True) == expected


class Begins(SupervisedPlugin):
    """Counts the events of a run, and draws a random number at each."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, float]] = []

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.heard.append(("call", float(torch.rand(()))))

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        index = strategy.experience.current_experience
        self.heard.append((f"experience {index}", float(torch.rand(()))))

    def after_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.heard.append(("end", float(torch.rand(()))))


@pytest.mark.parametrize("each", ["epoch", "experience"])
def test_a_call_with_several_experiences_goes_on(
    each: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_module, "SPACING", 0)

    def several(folder: Path, *, resume: bool) -> Any:
        begins, listed = Begins(), []
        evaluator = EvaluationPlugin(accuracy_metrics(experience=True), loggers=[])
        checkpoints = Checkpoints(
            folder, resume=resume, every_epochs=1 if each == "epoch" else None
        )
        plugins = [BranchTuningPlugin(verbose=False), ReplayPlugin(12), begins, Kill(), checkpoints]
        made = strategy(plugins, evaluator=evaluator, train_mb_size=4, eval_every=1)
        checkpoints.attach(made)
        stream = benchmark(3).train_stream
        listed.append(dict(made.train(stream[:2])))
        listed.append(dict(made.train(stream[2])))
        weights = [v.clone() for v in made.model.state_dict().values()]
        return weights, begins.heard, listed

    AT["step"] = None
    weights, heard, listed = several(tmp_path / "whole", resume=False)
    assert [name for name, _ in heard].count("call") == 2
    steps = (2, 10, 14, 19)
    for number, step in enumerate(steps):
        AT["step"] = step
        with pytest.raises(Killed):
            several(tmp_path / "parts", resume=number > 0)
    assert list((tmp_path / "parts").glob("between-000000-*"))
    AT["step"] = None
    found = several(tmp_path / "parts", resume=True)
    assert all(torch.equal(*pair) for pair in zip(weights, found[0], strict=True))
    assert found[1:] == (heard, listed)


def test_joint_training_goes_on(tmp_path: Path) -> None:
    def joint(folder: Path, *, resume: bool) -> Any:
        checkpoints = Checkpoints(folder, resume=resume, every_epochs=1)
        torch.manual_seed(0)
        model = Net()
        sgd = torch.optim.SGD(model.parameters(), lr=0.05)
        evaluator = EvaluationPlugin(accuracy_metrics(epoch=True), loggers=[])
        made = JointTraining(
            model=model,
            optimizer=sgd,
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=12,
            train_epochs=3,
            plugins=[Kill(), checkpoints],
            evaluator=evaluator,
        )
        checkpoints.attach(made)
        result = made.train(benchmark(3).train_stream)
        return [v.clone() for v in model.state_dict().values()], dict(result)

    AT["step"] = None
    weights, result = joint(tmp_path / "whole", resume=False)
    for number, step in enumerate((6, 11)):
        AT["step"] = step
        with pytest.raises(Killed):
            joint(tmp_path / "parts", resume=number > 0)
    assert list((tmp_path / "parts").glob("midway-*"))
    AT["step"] = None
    found, again = joint(tmp_path / "parts", resume=True)
    assert all(torch.equal(*pair) for pair in zip(weights, found, strict=True))
    assert again == result


def test_a_stream_that_can_be_gone_through_once(tmp_path: Path) -> None:
    def online(plugins: list[Any]) -> Any:
        made = strategy(plugins, train_epochs=1)
        for plugin in plugins:
            plugin.attach(made)
        torch.manual_seed(1)
        made.train(split_online_stream(benchmark(3).train_stream, experience_size=8, seed=0))
        return made

    expected, found = online([]), online([Checkpoints(tmp_path)])
    assert found.clock.train_iterations == expected.clock.train_iterations == 6
    assert torch.equal(kernels(found.model), kernels(expected.model))
