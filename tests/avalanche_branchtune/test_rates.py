"""Branches at a multiple of their kernels' rate, under every schedule, and no trace of it left."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import LRSchedulerPlugin
from torch.optim import lr_scheduler

from avalanche_branchtune import BranchConv2d, BranchTuningPlugin
from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.rates import schedulers_of
from tests.supervised import Net, benchmark, strategy

SETTINGS = ("momentum", "weight_decay", "dampening", "nesterov", "max_lr")


class Rates(SupervisedPlugin):
    """In every step: rate and momentum of the kernels' groups, and of their branches' groups."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[list[Any]] = []
        self.branches: list[list[Any]] = []

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        groups = strategy.optimizer.param_groups
        group = {id(p): g for g in groups for p in g["params"]}
        layers = [m for m in strategy.model.modules() if isinstance(m, BranchConv2d)]
        kernels = [group[id(m.weight)] for m in layers]
        branches = [group[id(b)] for m in layers for b in list(m.branches.values())[:1]]
        for mine, theirs in zip(branches, kernels, strict=True):
            assert all(mine.get(s) == theirs.get(s) for s in SETTINGS)
        self.kernels.append([(g["lr"], g["momentum"]) for g in kernels or groups[:2]])
        self.branches.append([(g["lr"], g["momentum"]) for g in branches])


def two_groups(model: Net) -> torch.optim.SGD:
    first = {"params": list(model.features[0].parameters()), "lr": 0.01, "weight_decay": 0.1}
    rest = [p for n, p in model.named_parameters() if not n.startswith("features.0")]
    return torch.optim.SGD([first, {"params": rest}], lr=0.05, momentum=0.9)


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "4", True])
def test_factors_that_are_none(value: Any) -> None:
    with pytest.raises(UnknownOptionError, match=r"BranchTuningPlugin: lr_factor: .* above 0"):
        BranchTuningPlugin(lr_factor=value)


@pytest.mark.parametrize("named", [False, True], ids=["parameters", "named parameters"])
def test_one_step_moves_branches_by_the_factor_and_nothing_else_otherwise(named: bool) -> None:
    moved = []
    for factor in (1.0, 4.0):
        model = Net()
        torch.manual_seed(0)
        model.load_state_dict(Net().state_dict())
        optimizer: Any = torch.optim.SGD(
            model.named_parameters() if named else model.parameters(), lr=0.05
        )
        plugin = BranchTuningPlugin(pretrained=True, verbose=False, lr_factor=factor)
        after: dict[str, torch.Tensor] = {}

        class After(SupervisedPlugin):
            def after_update(self, strategy: Any, **kwargs: Any) -> None:
                state = strategy.model.state_dict()
                after.update({n: v.clone() for n, v in state.items()})  # noqa: B023

        run = strategy([plugin, After()], model, optimizer, train_mb_size=16, train_epochs=1)
        run.train(benchmark().train_stream[0])
        moved.append(dict(after))
        assert len(optimizer.param_groups) == 1 and not optimizer.state
    assert list(moved[0]) == list(moved[1])
    for name, value in moved[0].items():
        by = 4 if ".branch_" in name else 1
        assert torch.equal(by * value, moved[1][name])
    assert sum(".branch_" in name and bool(value.any()) for name, value in moved[0].items()) == 4


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, [lambda t: 0.9**t, lambda t: 0.8**t]),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.9),
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 3, eta_min=0.004),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, eta_min=0.004),
    "cycles": lambda o: lr_scheduler.CyclicLR(o, 0.001, [0.01, 0.05], 2),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, [0.02, 0.1], total_steps=40),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, "max", patience=0, min_lr=[1e-5, 1e-4]),
    "warm-up, then steps": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=4), lr_scheduler.StepLR(o, 2)], [4]
    ),
    "two at once": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.PolynomialLR(o, 40), lr_scheduler.LambdaLR(o, lambda t: 0.9**t)]
    ),
}


def rates_of(make: Callable[[Any], Any], factor: float) -> tuple[Rates, Any, list[Any]]:
    torch.manual_seed(0)
    model, rates = Net(), Rates()
    optimizer = two_groups(model)
    made = make(optimizer)
    metric = "train_loss" if isinstance(made, lr_scheduler.ReduceLROnPlateau) else None
    schedule = LRSchedulerPlugin(
        made, metric=metric, step_granularity="iteration", reset_lr=False, reset_scheduler=False
    )
    plugin = BranchTuningPlugin(verbose=False, lr_factor=factor)
    run = strategy([schedule, rates, plugin], model, optimizer)
    lists = [copy.copy(vars(s)) for s in schedulers_of(run)]
    for experience in benchmark().train_stream:
        run.train(experience)
    return rates, run, lists


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # Avalanche's mean
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_factor_holds_in_every_step_of_schedules_that_are_older(name: str) -> None:
    torch.manual_seed(0)
    expected, _, _ = rates_of(SCHEDULERS[name], 1.0)
    found, run, before = rates_of(SCHEDULERS[name], 4.0)
    assert len(found.kernels) == 12 and len({str(k) for k in found.kernels}) > 2
    if name != "plateau":  # it goes by the loss, which is another one
        assert found.kernels == expected.kernels, "the kernels' rates are as they were"
    for branches, kernels in zip(found.branches[4:], found.kernels[4:], strict=True):
        assert branches == [(4 * lr, momentum) for lr, momentum in kernels]
    assert len(run.optimizer.param_groups) == 2
    for scheduler, earlier in zip(schedulers_of(run), before, strict=True):
        for key, value in earlier.items():
            if isinstance(value, list) and key != "_last_lr":
                assert len(getattr(scheduler, key)) == len(value), key


def test_an_experience_that_was_interrupted_leaves_no_group() -> None:
    class Interrupt(SupervisedPlugin):
        at: int | None = None

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_iterations == self.at:
                raise KeyboardInterrupt

    model, interrupt, rates = Net(), Interrupt(), Rates()
    optimizer = two_groups(model)
    schedule = lr_scheduler.LambdaLR(optimizer, [lambda t: 0.9**t, lambda t: 0.8**t])
    plugin = BranchTuningPlugin(verbose=False, lr_factor=2.0)
    plugins = [LRSchedulerPlugin(schedule, step_granularity="iteration"), plugin, rates, interrupt]
    run = strategy(plugins, model, optimizer)
    experiences = benchmark().train_stream
    run.train(experiences[0])
    held = [[id(p) for p in g["params"]] for g in optimizer.param_groups]
    interrupt.at = 1
    with pytest.raises(KeyboardInterrupt):
        run.train(experiences[1])
    assert len(optimizer.param_groups) == len(schedule.base_lrs) == 4
    for _ in range(2):
        plugin.close(run, finished=False)
        assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == held
        assert len(schedule.base_lrs) == len(schedule.lr_lambdas) == 2
    interrupt.at = None
    rates.kernels, rates.branches = [], []
    run.train(experiences[1])
    assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == held
    assert rates.branches == [[(2 * r, m) for r, m in step] for step in rates.kernels]
    assert set(optimizer.state) <= set(model.parameters())
