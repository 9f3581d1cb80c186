"""Every method in a continual stream: what starts anew, what is kept, what is refused."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin

from avalanche_branchtune import BranchTuningPlugin, is_expanded
from avalanche_branchtune.errors import (
    BatchSizeError,
    IncompatiblePluginError,
    LabelError,
    UnknownOptionError,
    ViewsError,
)
from avalanche_branchtune.streams import data_incremental, hide_labels
from solo_bridge import Augmentation, available_methods
from solo_bridge.compat import load
from solo_bridge.compat.parts import momentum_pairs
from solo_bridge.defaults import DEFAULTS
from solo_bridge.strategy import loss_evaluator
from tests.selfsupervised import ALL_METHODS, METHODS, VIEW, data, method, strategy, stream, weights

QUEUES = ["mocov2plus", "nnclr", "nnbyol", "nnsiam", "ressl", "all4one"]
QUEUES = [n for n in QUEUES if n in ALL_METHODS]
MULTICROP = sorted(load().multicrop)
needs_main_branch = pytest.mark.skipif(
    "supcon" not in ALL_METHODS, reason="only solo-learn's main branch has this method"
)


class Watch(SupervisedPlugin):
    """What a callback of ours sees at each step."""

    def __init__(self, look: Any) -> None:
        super().__init__()
        self.look = look
        self.seen: list[Any] = []

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        self.seen.append(self.look(strategy))


@pytest.mark.parametrize("name", ALL_METHODS)
def test_two_experiences_with_branches(name: str) -> None:
    """Counters restart, weights stay finite, the module can be copied afterwards."""
    model = method(name)
    watch = Watch(lambda s: (s.model.solo.current_epoch, s.model.solo.trainer.global_step))
    run = strategy(model, [watch, BranchTuningPlugin(verbose=False)], lr=0.1)
    for experience in stream().train_stream:
        before = weights(model.backbone)
        run.train(experience)
        assert not torch.equal(weights(model.backbone), before)
        assert torch.isfinite(weights(model)).all()
    assert not is_expanded(model)
    assert watch.seen == [(0, 0), (0, 1), (1, 2), (1, 3)] * 2
    twin = copy.deepcopy(model)
    x = torch.randn(4, 3, 8, 8)
    assert torch.allclose(twin.eval()(x), model.eval()(x), atol=1e-5)  # MAE permutes its patches
    with torch.no_grad():
        next(twin.backbone.parameters()).zero_()
    assert not torch.equal(twin(x), model(x))


@pytest.mark.parametrize("name", [n for n in ALL_METHODS if DEFAULTS[n].tau != (0.99, 1.0)])
def test_momentum_schedule_of_the_method(name: str) -> None:
    model = method(name)
    watch = Watch(lambda s: s.model.solo.momentum_updater.cur_tau)
    run = strategy(model, [watch])
    for experience in stream().train_stream:
        run.train(experience)
    first, last = DEFAULTS[name].tau
    assert watch.seen[:4] == watch.seen[4:]
    assert watch.seen[0] == first
    assert model.solo.momentum_updater.cur_tau == pytest.approx(last)


@pytest.mark.parametrize("policy", ["keep", "clear"])
@pytest.mark.parametrize("name", QUEUES)
def test_queues_follow_the_policy(name: str, policy: str) -> None:
    model = method(name, queues=policy)
    run = strategy(model)
    stored: list[torch.Tensor] = []

    class AtStart(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            stored.append(model.solo.queue.clone())

    run.plugins.append(AtStart())
    experiences = list(stream().train_stream)
    run.train(experiences[0])
    left = model.solo.queue.clone()
    run.train(experiences[1])
    assert torch.equal(stored[1], left) == (policy == "keep")
    assert torch.allclose(stored[1].norm(dim=1), torch.ones(()), atol=1e-5)
    if policy == "clear":
        assert not (stored[1] == left).any()


def test_swav_queue_starts_anew() -> None:
    model = method("swav")
    run = strategy(model)
    filled: list[float] = []

    class AtStart(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            filled.append(model.solo.queue.abs().sum().item())

    run.plugins.append(AtStart())
    for experience in stream().train_stream:
        run.train(experience)
        assert model.solo.queue.abs().sum() > 0
    assert filled == [0.0, 0.0]


@pytest.mark.parametrize("policy", ["keep", "clear"])
@pytest.mark.parametrize("name", ["swav", "dino"])
def test_prototypes_follow_the_policy(name: str, policy: str) -> None:
    model = method(name, prototypes=policy)
    layer = model.solo.prototypes if name == "swav" else model.solo.head.last_layer
    weight = layer.weight_v if hasattr(layer, "weight_v") else layer.weight
    run = strategy(model)
    stored: list[torch.Tensor] = []

    class AtStart(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            stored.append(weight.detach().clone())

    run.plugins.append(AtStart())
    experiences = list(stream().train_stream)
    run.train(experiences[0])
    left = weight.detach().clone()
    run.train(experiences[1])
    assert torch.equal(stored[1], left) == (policy == "keep")


def test_prototypes_hold_still_in_the_first_epoch_of_each_experience() -> None:
    for name, look in (
        ("swav", lambda s: s.model.solo.prototypes.weight_v.grad is None),
        ("dino", lambda s: all(p.grad is None for p in s.model.solo.head.last_layer.parameters())),
    ):
        watch = Watch(look)
        run = strategy(method(name), [watch])
        for experience in stream().train_stream:
            run.train(experience)
        assert watch.seen == [True, True, False, False] * 2, name


def test_dino_temperature_starts_anew() -> None:
    watch = Watch(lambda s: s.model.solo.dino_loss_func.epoch)
    run = strategy(method("dino"), [watch])
    for experience in stream().train_stream:
        run.train(experience)
    assert watch.seen == [0, 0, 1, 1] * 2


def test_deepcluster_memory_is_rebuilt_for_each_experience() -> None:
    model = method("deepclusterv2")
    watch = Watch(lambda s: (s.model.solo.dataset_size, int(s.model.solo.assignments.max() >= 0)))
    run = strategy(model, [watch], evaluator=loss_evaluator())
    sizes = []
    for part in (80, 40):
        benchmark = data_incremental(data(part), data(), 1)
        run.train(benchmark.train_stream[0])
        sizes.append(sorted(model.solo.local_memory_index.tolist()))
    assert watch.seen == [(80, 0)] * 4 + [(80, 1)] * 4 + [(40, 0)] * 2 + [(40, 1)] * 2
    assert sizes == [list(range(80)), list(range(40))], "indices 0 … n − 1 of this experience"
    with pytest.raises(ViewsError, match="evaluate with a probe"):
        run.eval(benchmark.test_stream, loss=True)
    losses = [v for n, v in run.eval(benchmark.test_stream).items() if "eval_phase" in n]
    assert losses and all(math.isnan(v) for v in losses), "what was not evaluated is no number"
    with pytest.raises(IncompatiblePluginError, match="replayed samples"):
        strategy(method("deepclusterv2"), [ReplayPlugin(10)])


@pytest.mark.parametrize("name", [n for n in ALL_METHODS if DEFAULTS[n].evaluates])
def test_evaluation_leaves_every_tensor_alone(name: str) -> None:
    if name == "supcon":
        pytest.skip("its views are evaluated with labels, like in training")
    model = method(name)
    run = strategy(model)
    benchmark = stream()
    run.train(benchmark.train_stream[0])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    if name == "wmse":
        with pytest.raises(
            BatchSizeError, match="whitens 20 samples at once, the minibatch has 10"
        ):
            run.eval(stream(10).test_stream)
    run.eval(benchmark.test_stream)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(v, after[k]) for k, v in before.items())


@needs_main_branch
def test_supcon_learns_from_labels_and_asks_for_them() -> None:
    def train(dataset: Any) -> torch.Tensor:
        torch.manual_seed(0)
        run = strategy(method("supcon"), lr=0.1)
        run.train(data_incremental(dataset, data(), 1).train_stream[0], shuffle=False)
        return weights(run.model)

    other = data()
    other.targets = [0 if y < 5 else 1 for y in other.targets]
    import random

    random.seed(0)
    first = train(data())
    random.seed(0)
    assert torch.equal(train(data()), first)
    random.seed(0)
    assert not torch.equal(train(other), first)
    with pytest.raises(LabelError, match="without a label"):
        train(hide_labels(data(), 0.5))


@pytest.mark.parametrize("name", ["simsiam", "nnsiam"])
def test_predictor_keeps_its_rate(name: str) -> None:
    watch = Watch(lambda s: [g["lr"] for g in s.optimizer.param_groups])
    settings = {"warmup_epochs": 0.0}
    run = strategy(method(name), [watch], lr=2.56, optimizer_settings=settings, train_epochs=4)
    run.train(stream().train_stream[0])
    backbone, predictor = ([rates[i] for rates in watch.seen] for i in (0, -1))
    assert backbone[-1] < 0.1 * backbone[1]
    assert predictor == pytest.approx([0.2] * 8)


@pytest.mark.parametrize("name", MULTICROP)
def test_small_views_where_the_method_takes_them(name: str) -> None:
    pipelines = [VIEW, Augmentation(crop_size=6, num_crops=2)]
    run = strategy(method(name, small_views=2, augmentations=pipelines))
    run.train(stream().train_stream[0])
    assert run.clock.train_iterations == 4


@pytest.mark.parametrize("name", [n for n in ALL_METHODS if n not in MULTICROP])
def test_small_views_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(UnknownOptionError, match="cannot compare small views"):
        method(name, small_views=2)


def test_minibatches_that_a_queue_or_a_whitening_cannot_take_are_refused() -> None:
    with pytest.raises(
        BatchSizeError, match=r"queue of 40 takes at most as many samples at once, .* has 50"
    ):
        strategy(method("mocov2plus"), train_mb_size=50).train(stream().train_stream[0])
    with pytest.raises(
        BatchSizeError,
        match=r"whitens 20 samples at once, the minibatch has 10.*20 is the smallest",
    ):
        strategy(method("wmse"), train_mb_size=10).train(stream().train_stream[0])
    with pytest.raises(
        BatchSizeError, match=r"has 50,.* 40 and 60 are the nearest that fit: change"
    ):
        strategy(method("wmse"), train_mb_size=50).train(stream().train_stream[0])


@pytest.mark.parametrize("option", ["queues", "prototypes"])
def test_unknown_policies(option: str) -> None:
    with pytest.raises(UnknownOptionError, match="keep, clear"):
        method("mocov2plus", **{option: "drop"})


@pytest.mark.parametrize("name", ALL_METHODS)
def test_optimizer_of_the_method_by_default(name: str) -> None:
    run = strategy(method(name), optimizer=None, lr=None)
    kind = type(getattr(run.optimizer, "optim", run.optimizer)).__name__.lower()
    assert kind in (DEFAULTS[name].optimizer, "lars", "sgd")
    assert run.optimizer_settings.name == DEFAULTS[name].optimizer
    assert run.optimizer_settings.lr == pytest.approx(DEFAULTS[name].lr * 20 / 256)


def test_available_methods() -> None:
    methods = available_methods()
    assert {n for n, why in methods.items() if why is None} >= set(METHODS)
    assert "base" not in methods
    assert "linear" not in methods
    assert len(methods) == {"release 1.0.2": 14, "main branch": 19}[load().name]


@pytest.mark.parametrize("name", ALL_METHODS)
def test_the_momentum_backbone_is_the_one_that_follows_the_online_one(name: str) -> None:
    model = method(name)
    pairs = momentum_pairs(model.solo)
    followers = [follower for online, follower in pairs if online is model.backbone]
    assert followers == ([] if model.momentum_backbone is None else [model.momentum_backbone])
