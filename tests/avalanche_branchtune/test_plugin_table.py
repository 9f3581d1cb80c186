"""Branch-tuning beside Avalanche's plugins, listed before and after it, over 3 experiences.

Each row checks the other plugin's own job, not only that nothing crashes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import (
    AGEMPlugin,
    CWRStarPlugin,
    EarlyStoppingPlugin,
    EvaluationPlugin,
    EWCPlugin,
    FromScratchTrainingPlugin,
    GDumbPlugin,
    GEMPlugin,
    LRSchedulerPlugin,
    LwFPlugin,
    MASPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, expand, fix_norms, is_expanded
from avalanche_branchtune.branches import Branched
from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.plain_view import PlainView
from tests.oracles.three_convolutions import merged_kernel, random_branches
from tests.supervised import Net, benchmark, kernels, strategy

ORDERS = ["before", "after"]


def beside(plugin: Any, order: str) -> list[Any]:
    own = BranchTuningPlugin(verbose=False)
    return [plugin, own] if order == "before" else [own, plugin]


def train(plugins: list[Any], **kwargs: Any) -> Any:
    run = strategy(plugins, **kwargs)
    for experience in benchmark().train_stream:
        run.train(experience)
    assert not is_expanded(run.model)
    assert all(torch.isfinite(p).all() for p in run.model.parameters())
    return run


def seeded_net() -> Net:
    torch.manual_seed(0)
    return Net()


def weights(run: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


@pytest.mark.parametrize("order", ORDERS)
def test_replay(order: str) -> None:
    classes: list[set[int]] = []

    class Seen(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            classes.append(set())

        def after_forward(self, strategy: Any, **kwargs: Any) -> None:
            classes[-1] |= set(strategy.mb_y.tolist())

    run = train([*beside(ReplayPlugin(mem_size=12), order), Seen()])
    assert [len(c) for c in classes] == [2, 4, 6], "old classes come back from the memory"
    assert len(run.plugins) > 0


class Drift(SupervisedPlugin):
    """How far the kernels, branches included, move in each experience."""

    def __init__(self) -> None:
        super().__init__()
        self.start = torch.zeros(0)
        self.moved: list[float] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.start = kernels(strategy.model)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.moved.append((kernels(strategy.model) - self.start).norm().item())


REGULARISERS: dict[str, Callable[[float], Any]] = {
    "EWC separate": lambda strength: EWCPlugin(ewc_lambda=strength * 300),
    "EWC online": lambda strength: EWCPlugin(strength * 300, mode="online", decay_factor=0.9),
    "SI": lambda strength: SynapticIntelligencePlugin(si_lambda=strength * 1e5),
    "MAS": lambda strength: MASPlugin(lambda_reg=strength * 100, alpha=0.5),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", REGULARISERS)
def test_regularisers_hold_the_folded_kernels(name: str, order: str) -> None:
    def moved(strength: float) -> list[float]:
        drift, model = Drift(), seeded_net()
        train(
            [*beside(REGULARISERS[name](strength), order), drift],
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
            train_epochs=5,
        )
        return drift.moved

    free, held = moved(0.0), moved(1.0)
    assert held[0] == free[0], "nothing to hold in the first experience"
    assert held[2] < 0.9 * free[2]
    if name != "SI":  # Avalanche 0.6's SI sees nothing on a CPU until kernels are folded
        assert held[1] < 0.9 * free[1]


@pytest.mark.parametrize("name", REGULARISERS)
def test_importances_are_those_of_the_plain_network(name: str) -> None:
    plugin = REGULARISERS[name](1.0)
    run = train(beside(plugin, "before"))
    names = {n for n, _ in run.model.named_parameters()}
    if name == "SI":
        stored = set(plugin.ewc_data[1])
        assert stored == {n for n in names if not n.startswith("features.1.")}, "no BatchNorm"
        assert plugin.ewc_data[1]["features.0.weight"].data.abs().sum() > 0
    elif name == "MAS":
        assert set(plugin.importance) == names
    else:
        assert all(set(v) == names for v in plugin.importances.values() if v)
        last = plugin.importances[max(plugin.importances)]
        assert last["features.0.weight"].data.abs().sum() > 0
    assert not any(callable(v) for v in vars(plugin).values()), "callbacks are given back"


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_ewc_penalty_and_its_gradient_against_the_plain_network(mode: str) -> None:
    """Oracle: EWC on a plain network that has the merged kernels; gradients cropped to branches."""
    decay = 0.5 if mode == "online" else None
    plugin = EWCPlugin(ewc_lambda=3.0, mode=mode, decay_factor=decay)
    run = strategy([plugin])
    stream = list(benchmark().train_stream)
    run.train(stream[0])
    model = run.model.double()
    plain = copy.deepcopy(model)
    expand(model)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, Branched)}
    for i, layer in enumerate(layers.values()):
        random_branches(list(layer.branches.values()), i)
    for name, layer in layers.items():
        merged = merged_kernel(layer.weight, [b.detach() for b in layer.branches.values()])
        plain.get_submodule(name).weight.data.copy_(merged)

    def penalty(shown: Any) -> Tensor:
        run.model = shown
        run.loss = torch.zeros(())
        type(plugin).before_backward(plugin, run)
        run.loss.backward()
        return run.loss.detach()

    assert run.clock.train_exp_counter == 1
    expected, got = penalty(plain), penalty(PlainView(model))
    assert expected > 0
    assert torch.allclose(got, expected, rtol=1e-6)
    for name, layer in layers.items():
        full = plain.get_submodule(name).weight.grad
        row, column = full[:, :, 1:2, :], full[:, :, :, 1:2]
        assert torch.allclose(layer.branches["branch_1x3"].grad, row)
        assert torch.allclose(layer.branches["branch_3x1"].grad, column)


def test_view_shows_gradients_of_the_folded_kernel_to_si() -> None:
    torch.manual_seed(0)
    model = Net().double()
    plain = copy.deepcopy(model)
    expand(model)
    fix_norms(model)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    model(x).square().sum().backward()
    plain(x).square().sum().backward()
    with torch.no_grad():
        shown = dict(PlainView(model).named_parameters())
    real = dict(plain.named_parameters())
    assert list(shown) == list(real)
    assert all(p.requires_grad for p in shown.values())
    mask = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.float64)
    for name in ("features.0.weight", "features.3.weight"):
        assert torch.allclose(shown[name].grad, real[name].grad * mask)
    assert torch.allclose(shown["fc.weight"].grad, real["fc.weight"].grad)
    assert not shown["features.1.weight"].grad.any()


def test_si_beside_low_rank_branches_is_refused() -> None:
    class Deep(Net):
        def __init__(self) -> None:
            super().__init__()
            self.features.append(nn.Linear(32, 32))

    own = BranchTuningPlugin(linear=2, pretrained=True, verbose=False)
    run = strategy([SynapticIntelligencePlugin(1.0), own], Deep())
    with pytest.raises(IncompatiblePluginError, match=r"Synaptic.*low-rank"):
        run.train(benchmark().train_stream[0])
    assert not is_expanded(run.model)


@pytest.mark.parametrize("order", ORDERS)
def test_lwf(order: str) -> None:
    def old_outputs_moved(alpha: float) -> float:
        plugin, model = LwFPlugin(alpha=alpha, temperature=2), seeded_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        run = strategy(beside(plugin, order), model, optimizer, train_epochs=5)
        stream = list(benchmark().train_stream)
        run.train(stream[0])
        old = sorted(stream[0].classes_in_this_experience)
        x = torch.stack([stream[1].dataset[i][0] for i in range(16)])
        before = model.train()(x)[:, old].softmax(1)
        run.train(stream[1])
        assert not is_expanded(plugin.lwf.prev_model)
        assert torch.equal(kernels(plugin.lwf.prev_model), kernels(model))
        moved = (model.train()(x)[:, old].softmax(1) - before).abs().mean().item()
        run.train(stream[2])
        return moved

    assert old_outputs_moved(100.0) < 0.7 * old_outputs_moved(0.0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["GEM", "AGEM"])
def test_gradient_projections(name: str, order: str) -> None:
    plugin = GEMPlugin(6, 0.0) if name == "GEM" else AGEMPlugin(12, 12)
    products: list[tuple[float, float]] = []

    def gradient(model: nn.Module) -> Tensor:
        parts = [
            torch.zeros(p.numel()) if p.grad is None else p.grad.flatten()
            for p in model.parameters()
        ]
        return torch.cat(parts)

    class Around(SupervisedPlugin):
        def __init__(self, first: bool) -> None:
            super().__init__()
            self.first = first

        def after_backward(self, strategy: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_counter == 0:
                return
            reference = plugin.G if name == "GEM" else plugin.reference_gradients[None]
            g = gradient(strategy.model)
            worst = (torch.mv(reference, g) / reference.norm(dim=1) / g.norm()).min().item()
            if self.first:
                products.append((worst, 0.0))
            else:
                products[-1] = (products[-1][0], worst)

    train([Around(True), *beside(plugin, order), Around(False)])
    assert min(before for before, _ in products) < -0.05, "there was something to project"
    assert all(after > -1e-3 for _, after in products)


@pytest.mark.parametrize("order", ORDERS)
def test_lr_scheduler(order: str) -> None:
    rates: list[float] = []

    class Rates(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            rates.append(strategy.optimizer.param_groups[0]["lr"])

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    train([*beside(LRSchedulerPlugin(scheduler), order), Rates()], model=model, optimizer=optimizer)
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05] * 3)


@pytest.mark.parametrize("order", ORDERS)
def test_early_stopping_reloads_the_best_branches(order: str) -> None:
    stopping = EarlyStoppingPlugin(2, "test_stream", mode="max", peval_mode="epoch")
    states: list[dict[str, Tensor]] = []
    epochs: list[int] = []

    class Ends(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            if strategy._stop_training:
                states.append(copy.deepcopy(strategy.model.state_dict()))
                epochs.append(strategy.clock.train_exp_epochs)

    evaluator = EvaluationPlugin(accuracy_metrics(stream=True))
    run = strategy(
        [*beside(stopping, order), Ends()], train_epochs=30, evaluator=evaluator, eval_every=1
    )
    for experience in benchmark().train_stream:
        run.train(experience, eval_streams=[benchmark().test_stream])
        assert not is_expanded(run.model)
    assert len(epochs) == 3
    assert max(epochs) < 30
    branches = [[n for n in s if "branch" in n] for s in states]
    assert [len(b) for b in branches] == [0, 4, 4]
    assert all(torch.equal(v, stopping.best_state[k]) for k, v in states[-1].items())


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReplayPlugin(mem_size=12),
        lambda: LwFPlugin(1, 2),
        lambda: EWCPlugin(1.0),
        lambda: EWCPlugin(1.0, mode="online", decay_factor=0.9),
        lambda: SynapticIntelligencePlugin(1.0),
        lambda: MASPlugin(1.0, 0.5),
        lambda: GEMPlugin(6, 0.5),
    ],
)
def test_order_of_the_plugins_does_not_matter(make: Callable[[], Any]) -> None:
    results = [weights(train(beside(make(), order))) for order in ORDERS]
    assert torch.equal(*results)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "make",
    [
        lambda model: FromScratchTrainingPlugin(),
        lambda model: GDumbPlugin(mem_size=8),
        lambda model: CWRStarPlugin(model, "fc"),
    ],
    ids=["from scratch", "GDumb", "CWR*"],
)
def test_what_would_leave_kernels_or_branches_without_learning_is_refused(
    make: Any, order: str
) -> None:
    model = seeded_net()
    run = strategy(beside(make(model), order), model)
    with pytest.raises(IncompatiblePluginError, match="beside BranchTuningPlugin: it"):
        run.train(benchmark().train_stream[0])
    assert not is_expanded(run.model)


def test_cwr_that_freezes_nothing_works() -> None:
    model = seeded_net()
    plugins = beside(CWRStarPlugin(model, "fc", freeze_remaining_model=False), "before")
    run = train(plugins, model=model)
    norms = next(p for p in run.plugins if isinstance(p, BranchTuningPlugin)).branch_norms
    assert len(norms) == 2 and all(v > 0 for norm in norms.values() for v in norm.values())
