"""optimizer_per="stream": optimizer, schedule and momentum networks go on over the stream."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import OptimizerMismatchError, UnknownOptionError
from avalanche_branchtune.streams import class_incremental, online
from solo_bridge import EvalTransform, specification
from solo_bridge.plugins import CaSSLePlugin
from tests.selfsupervised import Bare, data, method, small_options, strategy, stream, weights

WHOLE = {"optimizer_per": "stream"}


TAKE_ALL = ("joint", "kaizen_paper")
"""One takes the whole stream at once; the other has the settings of a paper."""


class Seen(SupervisedPlugin):
    """Keeps the views, rates and momentum networks' rates of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.views: list[Any] = []
        self.rates: list[float] = []
        self.taus: list[float] = []

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.views.append([view.clone() for view in strategy.mb_x])
        self.rates.append(strategy.optimizer.param_groups[0]["lr"])
        updater = getattr(getattr(strategy.model, "solo", None), "momentum_updater", None)
        self.taus.append(0.0 if updater is None else updater.cur_tau)


def cosine(step: float, steps: int, warmup: int, lr: float) -> float:
    if step < warmup:
        return 3e-5 + step / max(1, warmup - 1) * (lr - 3e-5)
    return lr * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def unequal() -> Any:
    """Experiences of 50, 20 and 30 samples."""
    sizes: Any = [5, 2, 3]
    return class_incremental(data(), data(train=False), sizes, eval_transform=EvalTransform(8))


@pytest.mark.parametrize(
    "scheduler", ["warmup_cosine", pytest.param("none", marks=pytest.mark.slow)]
)
def test_it_is_one_training_by_one_optimizer(scheduler: str) -> None:
    seen, settings = Seen(), {"scheduler": scheduler}
    made = strategy(plugins=[seen], train_mb_size=10, optimizer_settings=settings, **WHOLE)
    twin = method()
    for experience in unequal().train_stream:
        made.train(experience)
    steps = 2 * (5 + 2 + 3)
    rate = 10 / 256
    expected = [
        cosine(t, steps, 2, rate) if scheduler == "warmup_cosine" else rate for t in range(steps)
    ]
    assert seen.rates == pytest.approx(expected, rel=1e-12, abs=1e-15)
    twin.train()
    plain = torch.optim.SGD(
        [p for group in twin.parameter_groups() for p in group["params"]],
        lr=rate,
        momentum=0.9,
        weight_decay=made.optimizer_settings.weight_decay,
    )
    for rate, views in zip(seen.rates, seen.views, strict=True):
        plain.param_groups[0]["lr"] = rate
        plain.zero_grad()
        twin.loss(views).backward()
        plain.step()
    assert torch.equal(weights(twin.backbone), weights(made.model.backbone))


def test_each_experience_by_itself_is_the_default() -> None:
    found = []
    for options in ({}, {"optimizer_per": "experience"}, WHOLE):
        seen = Seen()
        made = strategy(method("byol"), [seen], train_mb_size=10, train_epochs=1, **options)
        torch.manual_seed(1)
        for experience in stream(2).train_stream:
            made.train(experience)
        found.append((weights(made.model), seen))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][0], found[2][0])
    alone, over = found[0][1], found[2][1]
    assert alone.rates[:5] == alone.rates[5:] and alone.taus[:5] == alone.taus[5:]
    taus = [1 - 0.01 * (math.cos(math.pi * t / 10) + 1) / 2 for t in range(10)]
    assert over.taus == pytest.approx(taus, abs=1e-12)


@pytest.mark.parametrize("boundaries", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_online_stream_is_trained_in_one_pass(boundaries: bool) -> None:
    """Parts of one step: with an optimizer for each there is no schedule."""
    benchmark = online(stream(2), 10, boundaries=boundaries)
    found = {}
    for options in ({}, WHOLE):
        seen, branches = Seen(), BranchTuningPlugin(verbose=False)
        how = {"train_mb_size": 10, "train_epochs": 1, **options}
        made = strategy(method("byol"), [branches, seen], **how)
        for part in benchmark.train_stream:
            made.train(part)
        found[bool(options)] = seen
        assert len(branches.summaries) == (1 if boundaries else 9), "all but the first"
    assert set(found[False].rates) == {10 / 256} and set(found[False].taus) == {0.99}
    seen = found[True]
    assert seen.rates == pytest.approx([cosine(t, 10, 0, 10 / 256) for t in range(10)])
    assert seen.taus == pytest.approx(
        [1 - 0.01 * (math.cos(math.pi * t / 10) + 1) / 2 for t in range(10)], abs=1e-12
    )


def test_what_plugins_add_joins_and_leaves() -> None:
    plugins = [BranchTuningPlugin(verbose=False, lr_factor=2.0), CaSSLePlugin(hidden=16)]
    made = strategy(plugins=plugins, train_mb_size=10, **WHOLE)
    groups = len(made.model.parameter_groups())
    optimizer, inside = None, []

    class Look(SupervisedPlugin):
        def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            inside.append(len(strategy.optimizer.param_groups))

    made.plugins.insert(2, Look())
    kernel = made.model.backbone[0].weight
    buffers = []
    for experience in online(stream(2), 25).train_stream:
        made.train(experience)
        optimizer = optimizer or made.optimizer
        assert made.optimizer is optimizer
        buffers.append(optimizer.state[kernel]["momentum_buffer"].clone())
        if experience.current_experience == 2:  # CaSSLe's predictor stays for the other part
            [(predictor, _)] = plugins[1]._groups
            assert all(p in optimizer.state for p in predictor.parameters())
        held = [p for group in optimizer.param_groups for p in group["params"]]
        if experience.is_last_subexp:
            assert {id(p) for p in held} <= {id(p) for p in made.model.parameters()}
            assert set(map(id, optimizer.state)) <= set(map(id, held))
            assert len(optimizer.param_groups) == groups
        assert len(set(map(id, held))) == len(held)
    assert len(inside) == 16 and set(inside[:8]) == {groups} and min(inside[8:]) > groups
    same = [torch.equal(a, b) for a, b in pairwise(buffers)]
    assert same == [False, True, True], "a kernel in branches stands still, with its momentum"


@pytest.mark.slow
@pytest.mark.parametrize("spec", [n for n in specification.names() if n not in TAKE_ALL])
def test_every_plugin_leaves_an_optimizer_that_goes_on(spec: str) -> None:
    made = specification.build(
        spec,
        method(),
        options=small_options(spec),
        optimizer="sgd",
        lr=0.05,
        train_mb_size=10,
        evaluator=None,
        **WHOLE,
    )
    for whole in (online(stream(2), 25), online(stream(2), 25, boundaries=False), stream(2)):
        for experience in whole.train_stream:
            made.train(experience)
            if getattr(experience, "is_last_subexp", True):
                groups = made.model.parameter_groups()
                there = [g for g in made.optimizer.param_groups if g["params"]]
                held = {id(p) for group in there for p in group["params"]}
                assert len(there) == len(groups), "what a plugin left behind"
                assert {id(p) for p in made.optimizer.state} <= held
                assert held <= {id(p) for group in groups for p in group["params"]}


def test_a_longer_loader_does_not_shift_what_follows() -> None:
    """Replay makes loaders longer than an experience's own samples."""
    seen = Seen()
    replay = ReplayPlugin(mem_size=80, batch_size=5, batch_size_mem=5)
    made = strategy(plugins=[replay, seen], train_mb_size=10, train_epochs=1, **WHOLE)
    starts = []
    for experience in unequal().train_stream:
        starts.append(len(seen.rates))
        made.train(experience)
    assert starts[2] - starts[1] > 2, "longer than planned"
    assert [seen.rates[i] for i in starts] == pytest.approx(
        [cosine(t, 10, 0, 10 / 256) for t in (0, 5, 7)]
    )
    assert seen.rates == sorted(seen.rates, reverse=True)


def test_another_stream_begins_anew() -> None:
    seen = Seen()
    made = strategy(plugins=[seen], train_mb_size=25, train_epochs=1, **WHOLE)
    made.train(stream(2).train_stream)
    first = made.optimizer
    made.train(stream(2).train_stream[0])
    assert made.optimizer is not first and seen.rates[4:] == seen.rates[:2]


def test_what_cannot_last_is_refused() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean stream"):
        strategy(optimizer_per="steam")
    lazy = split_online_stream(stream(2).train_stream, 10, seed=0)
    with pytest.raises(UnknownOptionError, match=r"does not say how long.*online instead"):
        strategy(**WHOLE).train(next(iter(lazy)))
    made = strategy(
        method("byol"),
        [seen := Seen()],
        optimizer_settings={"scheduler": "none"},
        train_mb_size=10,
        train_epochs=1,
        **WHOLE,
    )
    for part in split_online_stream(stream(2).train_stream, 10, seed=0):
        made.train(part)
    assert len(seen.rates) == 10 and len(set(seen.rates)) == 1 and set(seen.taus) == {0.99}

    def merged(groups: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for group in groups for p in group["params"]], lr=0.1)

    with pytest.raises(OptimizerMismatchError, match="optimizer_per='experience'"):
        strategy(optimizer=merged, **WHOLE).train(stream(2).train_stream[0])


def test_a_method_of_ones_own() -> None:
    seen = Seen()
    views = method().default_views()
    made = strategy(Bare(), [seen], train_mb_size=10, views=views, **WHOLE)
    made.train(stream(2).train_stream)
    assert len(seen.rates) == 20 and made.record_settings()["optimizer per"] == "stream"
