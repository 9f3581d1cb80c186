"""Plugins that change a network, stopped at every line of opening and closing an experience.

What is trained again then ends where it ends without the interruption, bit for bit.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EWCPlugin, SynapticIntelligencePlugin
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, FixedNormsPlugin, compress, restore_norms
from avalanche_branchtune.lifecycle import ExperiencePlugin
from solo_bridge.plugins import (
    CaSSLePlugin,
    CLRPlugin,
    KaizenPlugin,
    KappaTunePlugin,
    PFRPlugin,
)
from tests import supervised
from tests.interruptions import Stop, every_line, signalled
from tests.selfsupervised import method, strategy, stream

EXPERIENCES = stream(2, None).train_stream
SUPERVISED = supervised.benchmark(2).train_stream


def branch_tuning() -> BranchTuningPlugin:
    return BranchTuningPlugin(verbose=False, norm_mode="eval", linear="full")


class OlderSchedule(SupervisedPlugin):
    """Holds a scheduler that was made before there were branches."""

    schedule: Any = None

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        if self.schedule is None:
            self.schedule = torch.optim.lr_scheduler.LambdaLR(strategy.optimizer, lambda t: 1.0)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.schedule.step()


def bridged(*make: Callable[[], Any]) -> Callable[[], tuple[Any, Any]]:
    def start() -> tuple[Any, Any]:
        plugins = [m() for m in make]
        run = strategy(method(), plugins, lr=0.3, train_epochs=1, train_mb_size=50)
        return run, EXPERIENCES

    return start


def naive(*make: Callable[[], Any]) -> Callable[[], tuple[Any, Any]]:
    def start() -> tuple[Any, Any]:
        run = supervised.strategy([m() for m in make], train_mb_size=24, train_epochs=1)
        return run, SUPERVISED

    return start


RUNS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "branch_tuning": naive(branch_tuning),
    "branches at their own rate": naive(
        lambda: BranchTuningPlugin(verbose=False, lr_factor=4.0), OlderSchedule
    ),
    "branch_tuning+regularisers": naive(
        branch_tuning, lambda: EWCPlugin(0.1), lambda: SynapticIntelligencePlugin(0.1)
    ),
    "fixed_norms": naive(lambda: FixedNormsPlugin("eval", verbose=False)),
    "branch_tuning+cassle": bridged(branch_tuning, lambda: CaSSLePlugin(hidden=4)),
    "cassle": bridged(lambda: CaSSLePlugin(hidden=4)),
    "pfr": bridged(lambda: PFRPlugin(hidden=4)),
    "kaizen": bridged(lambda: KaizenPlugin(hidden=4, classifier_hidden=4)),
    "kappatune": bridged(lambda: KappaTunePlugin(verbose=False, norm_mode="eval", heads=False)),
    "clr": bridged(lambda: CLRPlugin(verbose=False)),
    "clr, frozen norms": bridged(lambda: CLRPlugin(verbose=False, norms="frozen", heads=False)),
}

STEPS = {"branch_tuning+regularisers": 7, "branch_tuning+cassle": 7, "pfr": 3, "kaizen": 3}
"""Every so many lines are tried where what is added to another run's lines is little."""


class Arm(SupervisedPlugin):
    """Says how far training came, and can stop it itself."""

    def __init__(self, stop_at: str | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.learnt = False

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.learnt = True
        self._stop("unfinished")

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self._stop("finished")

    def _stop(self, where: str) -> None:
        if self.stop_at == where:
            self.stop_at = None
            raise KeyboardInterrupt


def train(run: Any, experience: Any) -> None:
    torch.manual_seed(1)
    random.seed(1)
    run.train(experience)


def started(start: Callable[[], tuple[Any, Any]], arm: Arm) -> tuple[Any, Any]:
    """After the first experience, about to train the second."""
    run, experiences = start()
    train(run, experiences[0])
    arm.learnt = False
    run.plugins.insert(len(run.plugins) - 1, arm)  # before Avalanche's clock
    return run, experiences[1]


def shape(model: nn.Module) -> list[Any]:
    """Classes, names, what learns, hooks, modes."""
    return [
        (
            type(m),
            [n for n in vars(m) if n != "trainer"],
            [(n, p.requires_grad) for n, p in m._parameters.items() if p is not None],
            [len(m._forward_pre_hooks), len(m._forward_hooks)],
        )
        for m in model.modules()
    ]


def values(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in model.state_dict().items()}


def optimizer_of(run: Any) -> list[Any]:
    names = {id(p): n for n, p in run.model.named_parameters()}
    held = [
        [names.get(id(p), tuple(p.shape)) for p in g["params"]] for g in run.optimizer.param_groups
    ]
    inner = getattr(run.optimizer, "optim", run.optimizer)
    return [held, sorted(str(names.get(id(p), tuple(p.shape))) for p in inner.state)]


def left(run: Any) -> dict[str, Any]:
    """All that a run leaves, beside its history."""
    found: dict[str, Any] = {
        "shape": shape(run.model),
        "values": values(run.model),
        "optimizer": optimizer_of(run),
    }
    for plugin in run.plugins:
        name = type(plugin).__name__
        if isinstance(plugin, ExperiencePlugin):
            assert plugin.under_way is None
        found[f"{name} instance events"] = sorted(
            n for n in vars(plugin) if hasattr(type(plugin), n)
        )
        if isinstance(plugin, BranchTuningPlugin):
            found["norms"] = plugin.branch_norms
            assert len(plugin.branch_norms) == len(plugin.summaries) and not plugin._joined
        if isinstance(plugin, OlderSchedule):
            held = (plugin.schedule.base_lrs, plugin.schedule.lr_lambdas)
            assert [len(values) for values in held] == [1, 1]
        if isinstance(plugin, CLRPlugin):
            found["tasks"] = plugin.tasks
            found["anchor"] = plugin._anchor
            assert not plugin._joined
        if isinstance(plugin, CLRPlugin | KappaTunePlugin):
            assert not plugin._frozen.parameters
        if getattr(plugin, "teacher", None) is not None:
            found[f"{name} teacher"] = values(plugin.teacher)
            assert not plugin._groups and plugin._watch is None
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[n], b[n]) for n in a)
    if hasattr(a, "__dict__") and not isinstance(a, type):
        return same(vars(a), vars(b))
    return bool(a == b)


def difference(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [n for n in a if n not in b or not same(a[n], b[n])] + [n for n in b if n not in a]


@pytest.fixture(scope="module")
def references() -> dict[str, Any]:
    return {}


def known(name: str, references: dict[str, Any]) -> dict[str, Any]:
    """What a run leaves that was not stopped, and ones that our code did not stop in."""
    if name not in references:
        found = {}
        for stop_at in (None, "unfinished", "finished"):
            arm = Arm(stop_at)
            run, experience = started(RUNS[name], arm)
            found["before"] = (shape(run.model), values(run.model))
            try:
                train(run, experience)
            except KeyboardInterrupt:
                train(run, experience)
            found[str(stop_at)] = left(run)
        run, experience = started(RUNS[name], Arm())
        train(run, experience)
        found["after"] = (shape(run.model), values(run.model))
        run.clock.train_exp_counter = 1
        train(run, experience)
        assert not difference(left(run), found["finished"]), "trained twice without interruption"
        references[name] = found
    return references[name]


def check(name: str, stop: Any, references: dict[str, Any], by_hand: bool = False) -> bool:
    """Train, be stopped, train again, compare; return whether it was stopped."""
    expected, arm = known(name, references), Arm()
    run, experience = started(RUNS[name], arm)
    stop.arm(run)
    try:
        train(run, experience)
        stopped = False
    except KeyboardInterrupt:
        stopped = True
    stop.disarm(run)
    learnt = arm.learnt
    if by_hand and stopped:
        compress(run.model)
        restore_norms(run.model)
        shape_then, values_then = expected["after" if learnt else "before"]
        assert shape(run.model) == shape_then, "by hand: classes, names or requires_grad"
        assert same(values(run.model), values_then), "by hand: values"
    if stopped:
        train(run, experience)
    outcomes = ["None"] if not (stopped and learnt) else ["finished", "unfinished"]
    differences = {o: difference(left(run), expected[o]) for o in outcomes}
    assert not all(differences.values()), str(differences)
    return stopped


EVENTS = (
    "before_training",
    "before_train_dataset_adaptation",
    "before_training_exp",
    "after_training_exp",
)


class AtLine:
    """Stops at a line of ours in the events that open and close."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.events: list[Any] = []

    def arm(self, run: Any) -> None:
        for plugin in run.plugins:
            if isinstance(plugin, ExperiencePlugin):
                for event in EVENTS:
                    setattr(plugin, event, self.stop.during(getattr(plugin, event)))
                    self.events.append((plugin, event))

    def disarm(self, run: Any) -> None:
        for plugin, event in self.events:
            delattr(plugin, event)


@pytest.mark.slow
@pytest.mark.parametrize("by_hand", [False, True], ids=["again", "by hand"])
@pytest.mark.parametrize("name", RUNS)
def test_stopped_at_every_line(name: str, by_hand: bool, references: dict[str, Any]) -> None:
    if by_hand and name != "branch_tuning":
        pytest.skip("branches can be merged by hand, what other plugins did is undone by train")
    step = 7 if by_hand else STEPS.get(name, 1)
    lines, failed = every_line(lambda stop: check(name, AtLine(stop), references, by_hand), step)
    print(f"{name}{' by hand' * by_hand}: {lines} lines, {len(failed)} failed")
    assert lines > 50 and not failed, "\n".join(failed)


class AtSignal:
    """Stops by a signal some time after the events began, see :func:`signalled`."""

    def __init__(self, after: float = float("inf")) -> None:
        self.left = after
        self.spent = 0.0
        self.events: list[Any] = []

    def arm(self, run: Any) -> None:
        def timed(operation: Any) -> Any:
            def event(*args: Any, **kwargs: Any) -> Any:
                begin, after = time.perf_counter(), self.left
                self.left = float("inf")  # if it is stopped here
                if after == float("inf"):
                    found = operation(*args, **kwargs)
                    self.spent += time.perf_counter() - begin
                    return found
                with signalled(after):
                    found = operation(*args, **kwargs)
                self.left = max(after - (time.perf_counter() - begin), 1e-6)
                return found

            return event

        for plugin in run.plugins:
            if isinstance(plugin, ExperiencePlugin):
                for name in EVENTS:
                    setattr(plugin, name, timed(getattr(plugin, name)))
                    self.events.append((plugin, name))

    def disarm(self, run: Any) -> None:
        for plugin, event in self.events:
            delattr(plugin, event)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["branch_tuning", "branch_tuning+cassle", "kappatune", "clr"])
def test_stopped_by_a_signal(name: str, references: dict[str, Any]) -> None:
    failed, stopped = [], 0
    for _ in range(2):
        whole = AtSignal()
        check(name, whole, references)
    for i in range(100):
        try:
            stopped += check(name, AtSignal((i + 1) / 100 * whole.spent), references)
        except Exception as error:
            if torch.is_grad_enabled():  # else torch's own no_grad was cut in two
                failed.append(f"{i}: {type(error).__name__}: {str(error)[:300]}")
        torch.set_grad_enabled(True)
    print(f"{name}: {stopped} stopped, {len(failed)} failed")
    assert stopped > 30 and not failed, "\n".join(failed)
