"""L2 to the weights of the experience before: against a restatement, also through branches."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, compress, is_expanded
from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError
from avalanche_branchtune.streams import data_incremental
from solo_bridge import solo_views
from solo_bridge.plugins import L2Plugin
from tests.selfsupervised import VIEW, Bare, data, method, strategy, stream, weights


def run_of(plugins: list[Any], model: Any, **settings: Any) -> Any:
    options: dict[str, Any] = {"train_mb_size": 10, "train_epochs": 1, "lr": 2.0}
    options["optimizer_settings"] = {"scheduler": "none"}
    return strategy(model, plugins, **{**options, **settings})


def few(experiences: int) -> list[Any]:
    return list(stream(5).train_stream)[:experiences]


def plain(model: nn.Module) -> nn.Module:
    """A copy with merged kernels."""
    merged = copy.deepcopy(model)
    compress(merged)
    return merged


class Check(SupervisedPlugin):
    """Recomputes the penalty entry by entry on the merged network, and its gradient."""

    def __init__(self, weight: float, scope: str) -> None:
        super().__init__()
        self.weight, self.scope = weight, scope
        self.old: nn.Module | None = None
        self.penalties: list[list[float]] = []
        self.expanded: list[bool] = []

    def module(self, model: Any) -> nn.Module:
        return model.backbone if self.scope == "backbone" else model

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.penalties.append([])

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.model = copy.deepcopy(strategy.model)
        self.plain = plain(strategy.model)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            own = self.model.loss(strategy.mb_x, **strategy.minibatch.needed).item()
        expected = 0.0
        if self.old is not None:
            new = dict(self.module(self.plain).named_parameters())
            for name, p in self.module(self.old).named_parameters():
                if p.requires_grad:
                    for x, y in zip(
                        new[name].flatten().tolist(), p.flatten().tolist(), strict=True
                    ):
                        expected += (x - y) ** 2
        expected *= self.weight / 2
        assert strategy.loss.item() == pytest.approx(own + expected, rel=2e-5)
        self.penalties[-1].append(expected)
        self.expanded.append(is_expanded(strategy.model))

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.old = plain(strategy.model)


@pytest.mark.parametrize("scope", ["backbone", "method"])
@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("name", ["byol", "swav"])
def test_penalty_against_single_entries(name: str, branches: bool, scope: str) -> None:
    check = Check(50.0, scope)
    extra = [BranchTuningPlugin(verbose=False)] if branches else []
    run = run_of([L2Plugin(50.0, scope=scope), *extra, check], method(name), lr=0.5)
    for experience in few(3):
        run.train(experience)
    first, *later = check.penalties
    assert first == [0.0] * 2
    assert all(p[0] == 0.0 and min(p[1:]) > 1e-6 for p in later)
    assert any(check.expanded) == branches


def test_gradient_reaches_the_branches() -> None:
    plugin = L2Plugin(1.0)
    run = run_of([plugin, BranchTuningPlugin(verbose=False), Stop()], method("simclr"))
    first, second = few(2)
    run.train(first)
    with pytest.raises(KeyboardInterrupt):
        run.train(second)
    model = run.model
    assert is_expanded(model)
    layer: Any = model.backbone[0]
    model.zero_grad()
    plugin.penalty(model).backward()
    moved = layer.folded_weight().detach() - plugin.anchor["0.weight"]
    assert moved.abs().max() > 0
    branches = layer.branches
    assert torch.allclose(branches["branch_1x3"].grad, moved[:, :, 1:2, :])
    assert torch.allclose(branches["branch_3x1"].grad, moved[:, :, :, 1:2])
    run.train(second)  # merges what was learnt and starts anew
    assert not is_expanded(model)


class Stop(SupervisedPlugin):
    done = False

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_counter == 1 and not self.done:
            self.done = True
            raise KeyboardInterrupt


@pytest.mark.parametrize("branches", [False, True])
def test_weights_move_less(branches: bool) -> None:
    def moved(weight: float) -> float:
        model = method("simclr")
        extra = [BranchTuningPlugin(verbose=False)] if branches else []
        run = run_of([*extra, L2Plugin(weight)], model, train_epochs=6, lr=0.2)
        first, second = few(2)
        torch.manual_seed(1)
        run.train(first)
        before = kernels(model)
        run.train(second)
        return (kernels(model) - before).norm().item()

    assert moved(20.0) < 0.7 * moved(0.0)


def kernels(model: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.backbone.parameters()])


def test_one_copy_of_the_backbone_in_any_order() -> None:
    results = []
    for first in (True, False):
        plugin, own = L2Plugin(1.0), BranchTuningPlugin(verbose=False)
        run = run_of([plugin, own] if first else [own, plugin], method("byol"))
        torch.manual_seed(1)
        for experience in few(3):
            run.train(experience)
            assert set(plugin.anchor) == {n for n, _ in run.model.backbone.named_parameters()}
            for name, p in run.model.backbone.named_parameters():
                assert torch.equal(plugin.anchor[name], p)
                assert plugin.anchor[name].data_ptr() != p.data_ptr()
        pickle.loads(pickle.dumps(plugin))
        results.append(weights(run.model))
    assert torch.equal(*results)
    plugin = L2Plugin(1.0)
    run = run_of([plugin], method("simclr"), train_mb_size=5)
    sizes = []
    for experience in data_incremental(data(), data(), 20).train_stream:
        run.train(experience)
        sizes.append((len(plugin.anchor), sum(p.numel() for p in plugin.anchor.values())))
    assert len(set(sizes)) == 1


def test_frozen_parameters_are_left_out() -> None:
    model = method("byol")
    model.backbone[0].requires_grad_(False)
    plugin = L2Plugin(1.0, scope="method")
    run = run_of([plugin], model)
    run.train(few(1)[0])
    assert set(plugin.anchor) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert not any("momentum" in n or "classifier" in n for n in plugin.anchor)
    assert any("predictor" in n for n in plugin.anchor)


def test_bad_input() -> None:
    with pytest.raises(UnknownOptionError, match=r"L2Plugin\(scope=…\).*got 'head'"):
        L2Plugin(scope="head")
    run = run_of([L2Plugin()], Bare(), views=solo_views([VIEW]))
    with pytest.raises(
        IncompatiblePluginError, match=r'Bare has no module called backbone.*scope="'
    ):
        run.train(few(1)[0])
    run = run_of([L2Plugin(scope="method")], Bare(), views=solo_views([VIEW]), lr=0.1)
    for experience in few(2):
        run.train(experience)
