"""KappaTune: condition numbers against numpy, and what really stands still."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError
from solo_bridge import SelfSupervisedMethod
from solo_bridge.plugins.partial.kappatune import KappaTunePlugin, condition_number, weight_tensors
from tests.selfsupervised import BACKBONE, backbone, method, strategy, stream


def deep() -> nn.Sequential:
    """Five weight tensors of mixed kinds, two norms, a bias."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 8, 1, bias=False),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, (1, 3), stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 8),
    )


def state(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def moved(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}


@pytest.mark.parametrize(
    "shape", [(5, 3, 3, 3), (4, 20), (20, 4), (6, 1, 3, 3), (1, 1, 1, 1), (7, 2, 1, 5), (3, 4, 2)]
)
def test_condition_numbers_against_numpy(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    matrix = weight.double().numpy().reshape(shape[0], -1)
    assert condition_number(weight) == pytest.approx(np.linalg.cond(matrix), rel=1e-9)
    values = np.linalg.svd(matrix, compute_uv=False)
    assert condition_number(weight) == pytest.approx(values.max() / values.min(), rel=1e-9)
    assert condition_number(3.0 * weight) == pytest.approx(condition_number(weight), rel=1e-5)


def test_condition_numbers_that_are_known() -> None:
    assert condition_number(torch.eye(4)[:, :, None, None]) == 1.0
    assert condition_number(torch.diag(torch.tensor([8.0, 4.0, 2.0]))) == pytest.approx(4.0)
    deficient = torch.randn(6, 5)
    deficient[3] = 0
    deficient[:, 2] = deficient[:, 1]
    for weight in (deficient, torch.zeros(3, 3), torch.ones(3, 3), torch.full((2, 2), np.nan)):
        assert condition_number(weight) == float("inf")
    near = torch.diag(torch.tensor([1.0, 1e-3], dtype=torch.float64))
    assert condition_number(near) == pytest.approx(1e3)


def test_weight_tensors_are_kernels_and_each_is_named_once() -> None:
    net = deep()
    assert list(weight_tensors(net)) == [f"{i}.weight" for i in (0, 3, 4, 7, 10)]
    attention = nn.MultiheadAttention(4, 2)
    assert list(weight_tensors(attention)) == ["in_proj_weight", "out_proj.weight"]
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert list(weight_tensors(tied)) == ["0.weight"]


@pytest.mark.parametrize(
    ("name", "optimizer"), [("simclr", "lars"), ("byol", "sgd"), ("byol", "adamw")]
)
def test_only_the_roundest_tensors_and_the_heads_move(name: str, optimizer: str) -> None:
    """Three experiences; weight decay and momentum are on, and must not move what is frozen."""
    model = method(name, backbone=deep())
    plugin = KappaTunePlugin(0.4, verbose=False)
    seen: list[tuple[set[str], set[str]]] = []

    class Look(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            self.before = state(model.backbone)
            self.heads = state(model.projector)
            # A second opinion on who is to be chosen: numpy on this moment's weights.
            kappas = {
                n: np.linalg.cond(p.detach().double().flatten(1).numpy())
                for n, p in model.backbone.named_parameters()
                if p.ndim > 1
            }
            self.expected = set(sorted(kappas, key=kappas.__getitem__)[:2])

        def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            seen.append((self.expected, moved(self.before, model.backbone)))
            assert moved(self.heads, model.projector)

    settings = {"momentum": 0.9} if optimizer != "adamw" else {}
    run = strategy(
        model,
        [Look(), plugin],
        optimizer=optimizer,
        lr=1.0 if optimizer != "adamw" else 0.1,
        weight_decay=0.1,
        optimizer_settings=settings,
    )
    for experience in stream(5).train_stream[:3]:
        run.train(experience)
        assert all(p.requires_grad for p in model.backbone.parameters())
        if plugin.summary is not None:
            assert set(plugin.summary.chosen) == seen[-1][0] == seen[-1][1]
    assert {f"{i}.weight" for i in (0, 1, 3, 4, 5, 7, 10)} <= seen[0][1], "first: everything"
    assert plugin.summary is not None and len(plugin.summary.kappas) == 5


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adam", "adamw"])
def test_optimizers_do_not_move_what_has_no_gradient(optimizer: str) -> None:
    run = strategy(optimizer=optimizer, lr=1.0, weight_decay=0.5)
    p = nn.Parameter(torch.ones(3, 3))
    own = run._make_optimizer([{"params": [p]}])
    p.grad = torch.ones(3, 3)
    own.step()
    there = p.detach().clone()
    assert not torch.equal(there, torch.ones(3, 3))
    p.grad = None
    own.step()
    assert torch.equal(p, there), "momentum and weight decay need a gradient to act"


class Probe(SupervisedPlugin):
    """Who requires gradients, and who is in the optimizer, in the middle of an experience."""

    def __init__(self) -> None:
        super().__init__()
        self.learn: set[str] = set()
        self.held: set[str] = set()

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        held = {id(p) for g in strategy.optimizer.param_groups for p in g["params"]}
        named = dict(strategy.model.named_parameters())
        self.learn = {n for n, p in named.items() if p.requires_grad}
        assert all(p.grad is None for p in named.values() if not p.requires_grad)
        self.held = {n for n, p in named.items() if id(p) in held}


def trained(plugin: KappaTunePlugin, name: str = "simclr", **settings: Any) -> tuple[Any, Probe]:
    model, probe = method(name, backbone=deep()), Probe()
    run = strategy(model, [plugin, probe], train_epochs=1, **settings)
    for experience in stream(5).train_stream[:2]:
        run.train(experience)
    return model, probe


def test_options_for_biases_norms_and_heads() -> None:
    prefix = f"{BACKBONE}."
    norms = {prefix + n for n in ("1.weight", "1.bias", "5.weight", "5.bias")}
    biases = {prefix + n for n in ("3.bias", "7.bias", "10.bias")}
    heads = {f"solo.projector.{n}" for n in ("0.weight", "0.bias", "2.weight", "2.bias")}

    def learning(**options: Any) -> set[str]:
        plugin = KappaTunePlugin(number=1, verbose=False, **options)
        model, probe = trained(plugin)
        assert probe.learn == probe.held, "what stands still left the optimizer"
        assert plugin.summary is not None
        assert plugin.summary.trainable_parameters == sum(
            dict(model.named_parameters())[n].numel() for n in probe.learn
        )
        assert plugin.summary.trainable_parameters + plugin.summary.frozen_parameters == sum(
            p.numel() for p in model.backbone.parameters()
        ) + sum(p.numel() for p in model.projector.parameters())
        return probe.learn - {prefix + plugin.summary.chosen[0]}

    assert learning() == heads
    assert learning(biases=True) == heads | biases
    assert learning(norm_mode="none") == heads | norms
    assert learning(norm_mode="none", biases=True, heads=False) == norms | biases
    assert learning(heads=False) == set()


@pytest.mark.parametrize("mode", ["affine", "eval"])
def test_running_statistics(mode: str) -> None:
    plugin = KappaTunePlugin(verbose=False, norm_mode=mode)
    model = method("byol", backbone=deep())
    run = strategy(model, [plugin])
    first, second = stream(5).train_stream[:2]
    run.train(first)
    before = [copy.deepcopy(b) for b in model.buffers()]
    names = [n for n, _ in model.named_buffers()]
    run.train(second)
    same = {
        n
        for n, a, b in zip(names, before, model.buffers(), strict=True)
        if torch.equal(a, b) and BACKBONE in n
    }
    assert bool(same) == (mode == "eval")
    assert all(m.training for m in model.backbone.modules()), "modes are put back"
    hooks = [h for m in model.modules() for h in m._forward_pre_hooks.values()]
    assert not hooks


def test_share_and_number_count_tensors() -> None:
    for options, expected in (
        ({}, 1),
        ({"share": 0.5}, 2),
        ({"share": 1.0}, 5),
        ({"number": 3}, 3),
    ):
        plugin = KappaTunePlugin(verbose=False, **options)
        trained(plugin)
        assert plugin.summary is not None and len(plugin.summary.chosen) == expected
        kappas = [plugin.summary.kappas[n] for n in plugin.summary.chosen]
        assert kappas == sorted(kappas)


def test_rank_deficient_tensors_are_not_chosen(caplog: pytest.LogCaptureFixture) -> None:
    net = deep()
    with torch.no_grad():
        net[10].weight[0] = 0.0
    plugin = KappaTunePlugin(1.0, verbose=False, pretrained=True)
    model, probe = method(backbone=net), Probe()
    run = strategy(model, [plugin, probe], train_epochs=1)
    run.train(stream(5).train_stream[0])
    assert plugin.summary is not None
    assert plugin.summary.kappas["10.weight"] == float("inf")
    assert set(plugin.summary.chosen) == {f"{i}.weight" for i in (0, 3, 4, 7)}
    with torch.no_grad():
        for p in weight_tensors(model.backbone).values():
            p.zero_()
    with caplog.at_level(logging.WARNING):
        run.train(stream(5).train_stream[1])
    assert plugin.summary.chosen == () and "none learns" in caplog.text


def test_printed_and_logged_once_per_experience(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    plugin = KappaTunePlugin()
    with caplog.at_level(logging.INFO, "solo_bridge.plugins.partial.kappatune"):
        trained(plugin)
    printed = capsys.readouterr().out
    assert printed.count("KappaTune, experience 1: 1 of 5 weight tensors learn") == 1
    assert all(line in caplog.text for line in printed.splitlines()) and "κ" in printed


def test_interrupted_experience_is_cleaned_up_by_the_next() -> None:
    class Stop(SupervisedPlugin):
        armed = False

        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            if self.armed:
                raise KeyboardInterrupt

    stop, plugin = Stop(), KappaTunePlugin(verbose=False, norm_mode="eval")
    model = method("byol", backbone=deep())
    run = strategy(model, [plugin, stop])
    experiences = stream(5).train_stream
    run.train(experiences[0])
    stop.armed = True
    with pytest.raises(KeyboardInterrupt):
        run.train(experiences[1])
    assert not all(p.requires_grad for p in model.backbone.parameters())
    stop.armed = False
    run.train(experiences[1])
    assert all(p.requires_grad for p in model.backbone.parameters())
    assert not any(p.requires_grad for p in model.solo.momentum_pairs[0][1].parameters())
    assert plugin._frozen.parameters == []


def test_copies_and_pickles_during_and_after_training() -> None:
    class Copies(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            views = strategy.mb_x[0]
            for other in (
                copy.deepcopy(strategy.model),
                pickle.loads(pickle.dumps(strategy.model)),
            ):
                assert torch.equal(other.eval()(views), strategy.model.eval()(views))
            strategy.model.train()

    model = method(backbone=deep())
    run = strategy(model, [KappaTunePlugin(verbose=False, norm_mode="eval"), Copies()])
    for experience in stream(5).train_stream[:2]:
        run.train(experience)
    other = pickle.loads(pickle.dumps(model))
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(p.requires_grad for p in other.backbone.parameters())


def test_memory_does_not_grow_over_twenty_experiences() -> None:
    plugin, model = KappaTunePlugin(verbose=False), method()
    run = strategy(model, [plugin], train_epochs=1)
    sizes = []
    experiences = stream(5).train_stream
    for i in range(20):
        run.train(experiences[i % 5])
        sizes.append(len(pickle.dumps((model, plugin))))
    assert max(sizes[5:]) - min(sizes[5:]) < 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, r"share=….*in \(0, 1\]; got 0.0"),
        ({"share": 1.5}, "share=….*got 1.5"),
        ({"share": float("nan")}, "share=….*got nan"),
        ({"number": 0}, "number=….*at least 1; got 0"),
        ({"share": 0.2, "number": 3}, "one of the two"),
        ({"norm_mode": "fixed"}, "affine, eval, none; got 'fixed'"),
        (
            {"pretrained": "weights.ckpt"},
            r"KappaTunePlugin\(pretrained=…\): expected True or False",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        KappaTunePlugin(**options)


class NoBackbone(SelfSupervisedMethod):
    def __init__(self) -> None:
        super().__init__()
        self.net = backbone()

    def loss(self, views: Any, **needed: Tensor) -> Tensor:
        return (self.net(views[0]) - self.net(views[1])).square().mean()


def test_a_method_without_backbone_is_refused_before_training() -> None:
    model = NoBackbone()
    run = strategy(model, [KappaTunePlugin()], views=method().default_views())
    with pytest.raises(IncompatiblePluginError, match="no module called backbone"):
        run.train(stream().train_stream[0])
