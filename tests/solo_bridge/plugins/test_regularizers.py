"""EWC, MAS and SI under SelfSupervised: importances, penalties, and what must stay as it was."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import (
    EWCPlugin,
    LwFPlugin,
    MASPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)
from torch import Tensor

from avalanche_branchtune import BranchTuningPlugin, is_expanded
from avalanche_branchtune.errors import IncompatiblePluginError, LabelError
from avalanche_branchtune.streams import data_incremental, without_labels
from solo_bridge import solo_views
from solo_bridge.plugins.distillation.cassle import CaSSLePlugin
from solo_bridge.plugins.partial.kappatune import KappaTunePlugin
from solo_bridge.plugins.regularizers import (
    L2Plugin,
    SelfSupervisedEWCPlugin,
    SelfSupervisedMASPlugin,
    SelfSupervisedSIPlugin,
)
from tests.oracles import distillation as oracle
from tests.selfsupervised import (
    ALL_METHODS,
    VIEW,
    Bare,
    data,
    method,
    strategy,
    stream,
    weights,
)

EWC = SelfSupervisedEWCPlugin
PLUGINS: dict[str, Callable[[float], Any]] = {
    "EWC separate": lambda strength: EWC(strength),
    "EWC online": lambda strength: EWC(strength, mode="online", decay_factor=0.9),
    "MAS": lambda strength: SelfSupervisedMASPlugin(strength, 0.5),
    "SI": lambda strength: SelfSupervisedSIPlugin(strength),
}


class OneBatch:
    """Views that depend on the image alone, so that a test can make them again."""

    def __call__(self, image: Any) -> list[Tensor]:
        pixels = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)
        view = pixels.permute(2, 0, 1)
        return [view - 0.5, view.flip(2) - 0.4]


def run_of(plugins: list[Any], model: Any = None, **settings: Any) -> Any:
    options: dict[str, Any] = {"train_mb_size": 10, "train_epochs": 1, "lr": 0.5}
    options["optimizer_settings"] = {"scheduler": "none"}
    return strategy(model, plugins, **{**options, **settings})


def few(experiences: int, train: Any = None) -> list[Any]:
    if train is not None:
        return list(data_incremental(train, data(), 5).train_stream)[:experiences]
    return list(stream(5).train_stream)[:experiences]


def importance(plugin: Any) -> dict[str, Any]:
    if isinstance(plugin, EWCPlugin):
        return plugin.importances[max(plugin.importances)]
    return plugin.importance if isinstance(plugin, MASPlugin) else plugin.ewc_data[1]


# ---- importances


@pytest.mark.parametrize(
    ("name", "branches"),
    [("simclr", False), ("byol", True), ("vicreg", False), ("mocov2plus", False)],
)
def test_importances_against_finite_differences(name: str, branches: bool) -> None:
    """One minibatch holds the whole experience; derivatives by moving single parameters."""
    batches: list[list[Tensor]] = []

    class Keep(SupervisedPlugin):
        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            batches.append([v.clone() for v in strategy.mb_x])

        def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            batches.append([])

    ewc, mas = EWC(1.0), SelfSupervisedMASPlugin(1.0, 0.0)
    extra = [BranchTuningPlugin(verbose=False)] if branches else []
    model = method(name)
    run = run_of([Keep(), ewc, mas, *extra], model, train_mb_size=20, views=OneBatch(), lr=0.02)
    for experience in few(2):
        run.train(experience)
    views = [v.double() for v in batches[-2]]
    for plugin, loss in (
        (ewc, lambda net: net.train().loss(views)),
        (mas, lambda net: oracle_norm(net.eval(), views)),
    ):
        found = importance(plugin)
        assert set(found) == {n for n, _ in model.named_parameters()}
        generator = torch.Generator().manual_seed(0)
        checked = 0
        for parameter, p in model.named_parameters():
            values = found[parameter].data
            if not p.requires_grad:
                assert not values.any(), "momentum networks and the online classifier"
                continue
            for i in torch.randint(p.numel(), (1,), generator=generator).tolist():
                derivative = difference(model, parameter, i, loss)
                expected = derivative**2 if plugin is ewc else abs(derivative)
                scale = values.abs().max().item()
                assert abs(values.flatten()[i].item() - expected) < 2e-3 * scale + 1e-6, parameter
                checked += expected > 1e-6
        assert checked >= 5


def difference(model: Any, parameter: str, i: int, loss: Callable[[Any], Any]) -> float:
    values = []
    for step in (1e-6, -1e-6):
        net = copy.deepcopy(model).double()
        with torch.no_grad():
            net.get_parameter(parameter).flatten()[i] += step
            values.append(float(loss(net)))
    return (values[0] - values[1]) / 2e-6


def oracle_norm(net: Any, views: list[Tensor]) -> Tensor:
    return oracle.squared_norm(oracle.numbers([net.backbone(v) for v in views]))


def test_importances_are_means_over_minibatches() -> None:
    """Oracle: gradients of single minibatches in the order that the pass draws."""
    batches: list[tuple[Any, ...]] = []

    class Spy(SelfSupervisedEWCPlugin):
        def compute_importances(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            original = model.loss

            def loss(views: Any, **needed: Any) -> Tensor:
                value = original(views, **needed)
                copied = copy.deepcopy(before)
                copied.train().loss(views).backward()
                batches.append(tuple(p.grad for p in copied.backbone.parameters()))
                return value

            before = copy.deepcopy(model)
            model.loss = loss
            try:
                return super().compute_importances(model, *args, **kwargs)
            finally:
                del model.loss

    plugin = Spy(1.0)
    model = method("simclr")
    run_of([plugin], model, train_mb_size=6).train(few(1)[0])
    assert len(batches) == 3, "20 images: the last 2 are left out, as in training"
    for i, (name, _) in enumerate(model.backbone.named_parameters()):
        expected = torch.stack([b[i].double().square() for b in batches]).mean(0)
        key = next(
            n for n, p in model.named_parameters() if p is model.backbone.get_parameter(name)
        )
        assert torch.allclose(importance(plugin)[key].data.double(), expected, rtol=1e-3, atol=1e-8)


# ---- penalties


class Penalty(SupervisedPlugin):
    """Notes by how much ``strategy.loss`` differs from the method's own on a copy; listed last."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[float]] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.found.append([])

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.model = copy.deepcopy(strategy.model)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        own = self.model.loss(strategy.mb_x, **strategy.minibatch.needed).item()
        self.found[-1].append(strategy.loss.item() - own)


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("which", PLUGINS)
def test_penalty_is_there_from_the_second_experience_on(which: str, branches: bool) -> None:
    plugin, check = PLUGINS[which]({"SI": 1e4}.get(which, 100.0)), Penalty()
    extra = [BranchTuningPlugin(verbose=False)] if branches else []
    model = method("byol")
    run = run_of([plugin, *extra, check], model, train_epochs=2, lr=0.2)
    for experience in few(3):
        run.train(experience)
        assert not is_expanded(model)
    first, second, third = check.found
    assert all(abs(p) < 1e-5 for p in [*first, second[0]]), "nothing to hold, nothing moved yet"
    assert 1e-4 < max(second) < 100 and 1e-4 < max(third) < 100
    assert not any(callable(v) for v in vars(plugin).values()), "callbacks are given back"


STRENGTH = {"EWC separate": 300.0, "EWC online": 300.0, "MAS": 30.0, "SI": 1e4}


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("which", PLUGINS)
def test_what_matters_moves_less(which: str, branches: bool) -> None:
    def moved(strength: float) -> list[float]:
        plugin = PLUGINS[which](strength)
        extra = [BranchTuningPlugin(verbose=False)] if branches else []
        model = method("simclr")
        run = run_of([*extra, plugin], model, train_epochs=5, lr=0.1)
        random.seed(1)
        torch.manual_seed(1)
        distances = []
        for experience in few(2):
            before = kernels(model)
            run.train(experience)
            distances.append((kernels(model) - before).norm().item())
        return distances

    free, held = moved(0.0), moved(STRENGTH[which])
    assert held[0] == free[0], "nothing to hold in the first experience"
    assert held[1] < 0.9 * free[1]


def kernels(model: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.backbone.parameters() if p.ndim > 1])


@pytest.mark.parametrize("which", PLUGINS)
def test_order_beside_branch_tuning_does_not_matter(which: str) -> None:
    results = []
    for first in (True, False):
        plugin, own = PLUGINS[which](10.0), BranchTuningPlugin(verbose=False)
        run = run_of([plugin, own] if first else [own, plugin], method("byol"))
        random.seed(1)
        torch.manual_seed(1)
        for experience in few(3):
            run.train(experience)
        names = {n for n, _ in run.model.named_parameters()}
        assert set(importance(plugin)) <= names
        again = pickle.loads(pickle.dumps(plugin))
        assert set(importance(again)) == set(importance(plugin))
        results.append(weights(run.model))
    assert torch.equal(*results)


# ---- the importance pass only looks


def settings_of(name: str) -> dict[str, Any]:
    if name == "wmse":
        return {"train_mb_size": 20}
    return {"train_epochs": 2} if name == "deepclusterv2" else {}


def state_of(run: Any) -> dict[str, Any]:
    model = run.model
    return {
        "weights": {k: v.clone() for k, v in model.state_dict().items()},
        "buffers": {k: v.clone() for k, v in model.named_buffers()},
        "modes": [m.training for m in model.modules()],
        "learning": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),
        "data": (run.adapted_dataset, run.mbatch, run.minibatch),
        "optimizer": [len(run.optimizer.state), len(run.optimizer.param_groups)],
        "steps": model.trainer.global_step,
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a is b or a == b)


QUICK = {"mocov2plus", "swav", "dino", "deepclusterv2", "supcon", "mae", "nnclr", "wmse"}


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ALL_METHODS]
)
def test_importance_pass_leaves_everything_as_it_was(name: str) -> None:
    compared: list[str] = []

    def watched(kind: type) -> Any:
        class Watched(kind):  # type: ignore[misc, valid-type]
            def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
                modules = list(strategy.model.modules())
                modules[-1].eval()  # a mode that a plain train() would not give back
                before = state_of(strategy)
                super().after_training_exp(strategy, **kwargs)
                after = state_of(strategy)
                for part, value in before.items():
                    assert same(value, after[part]), part
                copy.deepcopy(strategy.model)
                compared.append(kind.__name__)

        return Watched

    plugins = [watched(SelfSupervisedEWCPlugin)(1.0), watched(SelfSupervisedMASPlugin)(1.0, 0.5)]
    run = run_of(plugins, method(name), lr=0.05, **settings_of(name))
    for experience in few(3):
        run.train(experience)
    assert len(compared) == 6
    for plugin in plugins:
        found = importance(plugin)
        assert all(v.data.isfinite().all() and (v.data >= 0).all() for v in found.values())
        learning = {n for n, p in run.model.named_parameters() if p.requires_grad}
        assert any(found[n].data.any() for n in learning)
        assert not any(v.data.any() for n, v in found.items() if n not in learning)


@pytest.mark.skipif("deepclusterv2" not in ALL_METHODS, reason="not in this solo-learn")
def test_a_loss_without_targets_gives_no_importance() -> None:
    plugin = EWC(1.0)
    run = run_of([plugin], method("deepclusterv2"))
    run.train(few(1)[0])
    assert all(v.data.isfinite().all() for v in importance(plugin).values())


@pytest.mark.parametrize("which", ["EWC separate", "MAS"])
def test_training_is_the_same_with_strength_zero(which: str) -> None:
    def trained(plugins: list[Any]) -> Tensor:
        run = run_of(plugins, method("mocov2plus"))
        random.seed(1)
        torch.manual_seed(1)
        for experience in few(3):
            run.train(experience)
        return weights(run.model)

    assert torch.equal(trained([PLUGINS[which](0.0)]), trained([]))


@pytest.mark.parametrize("which", PLUGINS)
def test_other_company(which: str) -> None:
    """Beside a teacher, without labels, in bf16, with a last minibatch that is left out."""
    plugin, teacher = PLUGINS[which](1.0), CaSSLePlugin(hidden=16)
    model = method("swav")
    run = run_of([plugin, teacher], model, train_mb_size=8, precision="bf16")
    for experience in few(3, without_labels(data())):
        run.train(experience)
    assert torch.isfinite(weights(model)).all()
    assert all(v.data.isfinite().all() for v in importance(plugin).values())


@pytest.mark.parametrize("which", PLUGINS)
def test_replay(which: str) -> None:
    plugin = PLUGINS[which](1.0)
    run = run_of([plugin, ReplayPlugin(mem_size=20, batch_size_mem=10)], method("simclr"))
    for experience in few(3):
        run.train(experience)
    assert all(v.data.isfinite().all() for v in importance(plugin).values())


def test_online_memory_is_constant() -> None:
    plugin = PLUGINS["EWC online"](1.0)
    run = run_of([plugin], method("simclr"), train_mb_size=5)
    for experience in data_incremental(data(), data(), 20).train_stream:
        run.train(experience)
        kept = [v for v in plugin.saved_params.values() if v]
        assert len(kept) == 1
        assert len([v for v in plugin.importances.values() if v]) == 1


# ---- SI


@pytest.mark.parametrize("branches", [False, True])
def test_avalanche_s_own_si_sees_nothing_on_a_cpu(branches: bool) -> None:
    """Why there is a subclass; if this fails, Avalanche was mended and it can go."""

    class AsItIs(SynapticIntelligencePlugin):
        self_supervised = True

    def trained(plugin: Any) -> Any:
        extra = [BranchTuningPlugin(verbose=False)] if branches else []
        model = method("simclr")
        run = run_of([plugin, *extra], model)
        for experience in few(2):
            run.train(experience)
        name = next(n for n, p in model.named_parameters() if p is model.backbone[3].weight)
        projector = next(n for n, p in model.named_parameters() if p is model.projector[0].weight)
        stored = importance(plugin)
        return stored[name].data.any().item(), stored[projector].data.any().item()

    assert trained(AsItIs(1.0)) == (branches, False)
    assert trained(SelfSupervisedSIPlugin(1.0)) == (True, True)


def test_si_importance_against_the_path() -> None:
    """Oracle: −Σ gradient · step, over the squared way, written down along the way."""
    steps: list[tuple[Tensor, Tensor]] = []

    class Path(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            p = strategy.model.backbone[0].weight
            self.before, self.gradient = p.detach().double().clone(), p.grad.double().clone()

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            p = strategy.model.backbone[0].weight.detach().double()
            steps.append((self.gradient, p - self.before))

    plugin = SelfSupervisedSIPlugin(1.0, eps=1e-3)
    model = method("simclr")
    run = run_of([plugin, Path()], model, train_epochs=3)
    expected = torch.zeros(1)
    name = next(n for n, p in model.named_parameters() if p is model.backbone[0].weight)
    for experience in few(2):
        steps.clear()
        run.train(experience)
        work = sum(g * d for g, d in steps)
        way = sum(d for _, d in steps)
        expected = expected + work / (way.square() + 1e-3)
        omega = (-expected).clamp(max=0.001).flatten()
        assert torch.allclose(plugin.ewc_data[1][name].data.double(), omega, rtol=1e-3, atol=1e-7)
        end = plugin.ewc_data[0][name].data
        assert torch.equal(end, model.backbone[0].weight.detach().flatten())
    assert expected.abs().max() > 0


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_si_where_a_method_holds_parameters_still(name: str) -> None:
    plugin = SelfSupervisedSIPlugin(10.0)
    run = run_of([plugin, BranchTuningPlugin(verbose=False)], method(name), lr=0.05)
    for experience in few(3):
        run.train(experience)
    assert all(v.data.isfinite().all() for v in plugin.ewc_data[1].values())


# ---- what is refused


@pytest.mark.parametrize(
    ("plugin", "instead"),
    [
        (EWCPlugin(1.0), "SelfSupervisedEWCPlugin"),
        (MASPlugin(1.0, 0.5), "SelfSupervisedMASPlugin"),
        (SynapticIntelligencePlugin(1.0), "SelfSupervisedSIPlugin"),
        (LwFPlugin(1, 2), r"solo_bridge\.plugins\.LwFPlugin"),
    ],
)
def test_avalanche_s_own_are_refused_with_the_name_of_what_to_use(
    plugin: Any, instead: str
) -> None:
    with pytest.raises(IncompatiblePluginError, match=rf"under SelfSupervised: .*use .*{instead}"):
        run_of([plugin])


def test_a_method_without_features() -> None:
    own = {"views": solo_views([VIEW]), "lr": 0.1}
    run = run_of([SelfSupervisedMASPlugin(1.0, 0.5)], Bare(), **own)
    before = weights(run.model)
    with pytest.raises(IncompatiblePluginError, match="MASPlugin: Bare has no forward"):
        run.train(few(1)[0])
    assert torch.equal(weights(run.model), before)
    run = run_of([EWC(1.0), SelfSupervisedSIPlugin(1.0)], Bare(), **own)
    for experience in few(2):
        run.train(experience)


@pytest.mark.skipif("supcon" not in ALL_METHODS, reason="not in this solo-learn")
def test_labels_are_needed_as_in_training() -> None:
    with pytest.raises(LabelError, match="sample without a label"):
        run_of([EWC(1.0)], method("supcon")).train(few(1, without_labels(data()))[0])


# ---- beside others that freeze or leave out steps


def test_si_forgets_gradients_of_what_stands_still() -> None:
    si = SelfSupervisedSIPlugin(1.0)
    run = run_of([si, KappaTunePlugin(number=1, verbose=False)], lr=0.05)
    for experience in few(3):
        run.train(experience)
        assert all(v.data.min() > -1e-6 for v in importance(si).values() if v.data.numel())


def test_si_adds_nothing_of_a_step_that_was_left_out() -> None:
    """A loss scaler that overflows leaves weights alone and gradients infinite."""

    class Overflow(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            for p in strategy.model.parameters():
                if p.grad is not None:
                    p.grad.fill_(float("inf"))

    si = SelfSupervisedSIPlugin(1.0)
    run = run_of([Overflow(), si])
    for experience in few(2):
        run.train(experience)
    assert all((v.data == 0).all() for v in importance(si).values())


@pytest.mark.parametrize("order", [1, -1])
def test_l2_holds_what_kappatune_froze(order: int) -> None:
    l2, kappa = L2Plugin(), KappaTunePlugin(number=1, verbose=False)
    run = run_of([l2, kappa][::order])
    for experience in few(2):
        run.train(experience)
    backbone = dict(run.model.part("backbone").named_parameters())
    assert set(l2.anchor) == set(backbone) and run.plugins[0] is kappa


@pytest.mark.parametrize("size", [25, 20])
def test_l2_learns_of_an_end_that_no_part_is_marked_as(size: int) -> None:
    l2 = L2Plugin()
    run = run_of([l2], train_mb_size=5)
    parts = split_online_stream(stream(2).train_stream, size, access_task_boundaries=True)
    anchored = []
    for part in parts:
        run.train(part)
        anchored.append((part.origin_experience.current_experience, bool(l2.anchor)))
    assert set(anchored) >= {(0, False), (1, True)} and (1, False) not in anchored
