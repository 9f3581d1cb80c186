"""CLR: the maps against explicit loops, what stands still, and the tasks' own layers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import ExpansionError, IncompatiblePluginError, UnknownOptionError
from solo_bridge import SelfSupervisedMethod
from solo_bridge.plugins.partial.clr import (
    CLRPlugin,
    identity_maps,
    put_maps,
    reprogrammed,
)
from tests.selfsupervised import BACKBONE, backbone, method, strategy, stream

IMAGES = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def loops(y: Tensor, maps: Tensor) -> Tensor:
    """Depthwise linear maps, entry by entry; nothing beyond the border."""
    n, channels, height, width = y.shape
    k = maps.shape[-1]
    rows = []
    for i in range(n):
        for c in range(channels):
            for a in range(height):
                for b in range(width):
                    total = y.new_zeros(())
                    for u in range(k):
                        for v in range(k):
                            p, q = a + u - k // 2, b + v - k // 2
                            if 0 <= p < height and 0 <= q < width:
                                total = total + maps[c, 0, u, v] * y[i, c, p, q]
                    rows.append(total)
    return torch.stack(rows).reshape(y.shape)


def answers(model: Any) -> Tensor:
    training = model.training
    model.eval()
    with torch.no_grad():
        out: Tensor = model(IMAGES)
    model.train(training)
    return out


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("kernel", [{"kernel_size": 3}, {"kernel_size": (1, 2), "stride": 2}])
def test_maps_against_explicit_loops(size: int, kernel: dict[str, Any]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, **kernel, dtype=torch.float64)
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    plain = conv(x)
    maps = torch.randn(3, 1, size, size, dtype=torch.float64)
    put_maps(conv, nn.Parameter(maps.clone()))
    out = conv(x)
    oracle_maps = maps.clone().requires_grad_()
    oracle = loops(plain, oracle_maps)
    assert torch.allclose(out, oracle, atol=1e-13)
    head = torch.randn_like(out)
    ours = torch.autograd.grad((out * head).sum(), [conv.clr_map, x, conv.weight, conv.bias])
    theirs = torch.autograd.grad((oracle * head).sum(), [oracle_maps, x, conv.weight, conv.bias])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    put_maps(conv, None)
    assert torch.equal(conv(x), plain) and not conv._forward_hooks
    assert list(dict(conv.named_parameters())) == ["weight", "bias"]


def test_one_image_without_batch_axis() -> None:
    conv = nn.Conv2d(2, 3, 3)
    put_maps(conv, nn.Parameter(torch.randn(3, 1, 3, 3)))
    x = torch.randn(2, 6, 6)
    assert torch.allclose(conv(x), conv(x[None])[0], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_identity_start_is_bit_equal(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for i in range(40):
        channels, size = 1 + 3 * i % 29, 1 + 2 * (i % 4)
        conv = nn.Conv2d(3, channels, 1 + i % 4, stride=1 + i % 2, padding=i % 3).to(dtype)
        x = torch.randn(1 + i % 3, 3, 6 + i % 5, 9, dtype=dtype)
        plain = conv(x)
        put_maps(conv, nn.Parameter(identity_maps(conv, size)))
        assert torch.equal(conv(x), plain)


class AtStart(SupervisedPlugin):
    """What the network gives when an experience begins."""

    def __init__(self, record: list[Tensor]) -> None:
        super().__init__()
        self.record = record

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.record.append(answers(strategy.model))
        own = {id(p) for p in strategy.model.parameters()}
        held = {id(p) for g in strategy.optimizer.param_groups for p in g["params"]}
        assert held <= own, "maps of earlier tasks left the optimizer"


def kernels(model: Any) -> dict[str, Tensor]:
    return {
        n: p.detach().clone()
        for n, p in model.backbone.named_parameters()
        if "clr_map" not in n and not n.startswith("1.")
    }


@pytest.mark.parametrize(
    ("name", "optimizer"), [("simclr", "lars"), ("byol", "sgd"), ("byol", "adamw")]
)
def test_kernels_stand_still_and_maps_learn(name: str, optimizer: str) -> None:
    record: list[Tensor] = []
    model = method(name)
    plugin = CLRPlugin(verbose=False)
    names = list(model.state_dict())
    run = strategy(
        model,
        [plugin, AtStart(record)],
        optimizer=optimizer,
        weight_decay=0.1,
        lr=1.0 if optimizer != "adamw" else 0.05,
        optimizer_settings={"warmup_epochs": 0.0},
    )
    experiences = stream(5).train_stream
    run.train(experiences[0])
    assert not reprogrammed(model) and list(model.state_dict()) == names
    anchor, anchor_kernels = answers(model), kernels(model)
    for i in (1, 2):
        heads = [p.detach().clone() for p in model.projector.parameters()]
        run.train(experiences[i])
        assert torch.equal(record[-1], anchor), "each task starts from the anchor, bit for bit"
        assert all(torch.equal(p, anchor_kernels[n]) for n, p in kernels(model).items())
        for m in reprogrammed(model.backbone).values():
            assert not torch.equal(m.clr_map, identity_maps(m, 3)), "maps learnt"
            assert not m.clr_map.requires_grad and m.weight.requires_grad
        assert not torch.equal(answers(model), anchor)
        pairs = zip(heads, model.projector.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs)
        assert [n for n in model.state_dict() if "clr_map" not in n] == names
    for group in run.optimizer.param_groups:
        assert not any(
            p is m.clr_map for m in reprogrammed(model).values() for p in group["params"]
        )


def test_momentum_maps_average_the_online_ones() -> None:
    """Oracle: the exponential moving average, step by step, from the identity."""
    model = method("byol", tau=(0.5, 0.5))
    online, momentum = model.backbone[0], model.solo.momentum_pairs[0][1][0]
    expected: list[Tensor] = []

    class Average(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            if hasattr(online, "clr_map"):
                if not expected:
                    expected.append(identity_maps(online, 3))
                expected[0] = 0.5 * expected[0] + 0.5 * online.clr_map.detach()
                assert torch.allclose(momentum.clr_map, expected[0], atol=1e-6)
                assert not momentum.clr_map.requires_grad

    run = strategy(model, [CLRPlugin(verbose=False), Average()])
    for experience in stream(5).train_stream[:2]:
        run.train(experience)
    assert not torch.equal(expected[0], identity_maps(online, 3))


def four_tasks(name: str = "simclr", **options: Any) -> tuple[Any, CLRPlugin, list[Tensor]]:
    """Train four experiences; what the model gave after each, as it stood."""
    model, plugin, after = method(name), CLRPlugin(verbose=False, **options), []
    run = strategy(model, [plugin], optimizer_settings={"warmup_epochs": 0.0})
    for experience in stream(5).train_stream[:4]:
        run.train(experience)
        after.append(answers(model))
    return model, plugin, after


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_no_task_is_forgotten_when_its_identity_is_known(name: str) -> None:
    model, plugin, after = four_tasks(name)
    assert torch.equal(answers(model), after[3]), "the latest task stays in place"
    twin = pickle.loads(pickle.dumps(model))
    for network in (model, twin, copy.deepcopy(model)):
        for task in (2, 0, 3, 1):
            plugin.select(network, task)
            assert torch.equal(answers(network), after[task])
        plugin.select(network, None)
        assert torch.equal(answers(network), after[0]) and not reprogrammed(network)
        fresh = method(name)
        fresh.load_state_dict(network.state_dict())
        assert torch.equal(answers(fresh), after[0]), "the anchor is a plain network"
        plugin.select(network, 3)
        with plugin.selected(network, 1) as shown:
            assert shown is network and torch.equal(answers(network), after[1])
            with plugin.selected(network, None):
                assert torch.equal(answers(network), after[0])
            assert torch.equal(answers(network), after[1])
        assert torch.equal(answers(network), after[3])


def test_copies_do_not_share_maps_with_tasks_or_models() -> None:
    model, plugin, after = four_tasks()
    twin = copy.deepcopy(model)
    plugin.select(twin, 2)
    with torch.no_grad():
        for network in (twin, model):
            for m in reprogrammed(network).values():
                m.clr_map.add_(1.0)
            for m in network.backbone.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.weight.add_(1.0)
    plugin.select(model, 2)
    assert torch.equal(answers(model), after[2])
    plugin.select(model, 3)
    assert torch.equal(answers(model), after[3])


def test_shared_norms_change_what_earlier_tasks_give() -> None:
    model, plugin, after = four_tasks(norms="shared")
    plugin.select(model, 1)
    assert not torch.equal(answers(model), after[1])
    assert plugin.extra_parameters(1) == 144


def test_frozen_norms_are_those_of_the_anchor() -> None:
    model, plugin, after = four_tasks("byol", norms="frozen")
    plugin.select(model, 1)
    assert torch.equal(answers(model), after[1])
    plugin.select(model, None)
    assert torch.equal(answers(model), after[0])
    assert all(m.training and not m._forward_pre_hooks for m in model.backbone.modules())
    assert all(p.requires_grad for p in model.backbone.parameters())


def test_extra_parameters_by_hand() -> None:
    """Two convolutions to 8 channels, one BatchNorm2d(8)."""
    _, plugin, _ = four_tasks("byol")
    maps, affine, statistics = 2 * 8 * 9, 2 * 8, 2 * 8 + 1
    assert [plugin.extra_parameters(t) for t in range(4)] == [0, *[maps + affine] * 3]
    assert plugin.extra_parameters() == 3 * (maps + affine)
    assert plugin.extra_parameters(statistics=True) == 3 * (maps + affine + statistics)
    _, plugin, _ = four_tasks(size=5, scope="3", norms="frozen")
    assert plugin.extra_parameters(1) == 8 * 25


def test_pointwise_convolutions_can_be_left_out() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1))
    net.append(nn.Flatten())
    for pointwise, expected in ((True, {"0", "1"}), (False, {"1"})):
        model = method(backbone=copy.deepcopy(net))
        plugin = CLRPlugin(verbose=False, pointwise=pointwise, pretrained=True)
        strategy(model, [plugin], train_epochs=1).train(stream(5).train_stream[0])
        assert set(reprogrammed(model.backbone)) == expected


def test_extra_parameters_beside_branch_tuning() -> None:
    """The same small backbone: branches are merged, maps stay and add up."""
    branches, clr = BranchTuningPlugin(verbose=False), CLRPlugin(verbose=False)
    grown = []
    for plugin in (branches, clr):
        model = method()
        plain = sum(p.numel() for p in model.backbone.parameters())
        run = strategy(model, [plugin], train_epochs=1)
        for experience in stream(5).train_stream[:4]:
            run.train(experience)
        grown.append(sum(p.numel() for p in model.backbone.parameters()) - plain)
    # 1×3 and 3×1 branches of the 3→8 and the 8→8 convolution, while an experience is trained.
    assert [s.branch_parameters for s in branches.summaries] == [6 * 8 * (3 + 8)] * 3
    assert grown == [0, 144], "in the network afterwards"
    assert clr.extra_parameters() == 3 * (144 + 16), "and those that earlier tasks keep"


class Stop(SupervisedPlugin):
    armed = False

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        if self.armed and strategy.clock.train_exp_iterations == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("norms", ["task", "frozen"])
def test_an_interrupted_experience_is_discarded(norms: str) -> None:
    model, stop = method("byol"), Stop()
    plugin, record = CLRPlugin(verbose=False, norms=norms), []
    run = strategy(model, [plugin, AtStart(record), stop])
    experiences = stream(5).train_stream
    run.train(experiences[0])
    anchor = answers(model)
    for i in (1, 2):
        stop.armed = True
        with pytest.raises(KeyboardInterrupt):
            run.train(experiences[i])
        copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        stop.armed = False
        run.train(experiences[i])
        assert torch.equal(record[-1], anchor)
        assert sorted(plugin.tasks) == list(range(1, i + 1))
        assert all(p.requires_grad for n, p in model.backbone.named_parameters() if "map" not in n)
        assert len(model.backbone[0]._forward_hooks) == 1
    plugin.select(model, None)
    assert torch.equal(answers(model), anchor)


def test_copies_pickles_and_other_tasks_while_training() -> None:
    seen = []

    class During(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            net = strategy.model
            if strategy.clock.train_exp_counter < 2:
                return
            now = answers(net)
            maps = [m.clr_map for m in reprogrammed(net).values()]
            for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
                assert torch.equal(answers(other), now)
                plugin.select(other, 1)
                seen.append(answers(other))
            with plugin.selected(net, 1):
                assert torch.equal(answers(net), seen[-1])
            with pytest.raises(ExpansionError, match="being trained"):
                plugin.select(net, 1)
            assert torch.equal(answers(net), now)
            assert all(
                a is b.clr_map for a, b in zip(maps, reprogrammed(net).values(), strict=True)
            )

    model, plugin = method(), CLRPlugin(verbose=False)
    run = strategy(model, [plugin, During()], train_epochs=1)
    experiences = stream(5).train_stream
    for experience in experiences[:3]:
        run.train(experience)
    plugin.select(model, 1)
    assert seen and all(torch.equal(s, answers(model)) for s in seen)


def test_heads_can_stand_still_and_maps_have_their_own_rate() -> None:
    rates: list[tuple[float, float, float]] = []

    class Rates(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            groups = {g.get("name"): g for g in strategy.optimizer.param_groups}
            own = groups.get("CLRPlugin")
            if own:
                rates.append(
                    (
                        own["initial_lr"],
                        own["weight_decay"],
                        groups[BACKBONE.partition(".")[2]]["lr"],
                    )
                )

    model = method()
    plugin = CLRPlugin(verbose=False, heads=False, lr=2.56, weight_decay=0.01)
    run = strategy(model, [plugin, Rates()], train_epochs=1)
    first, second = stream(5).train_stream[:2]
    run.train(first)
    before = [p.detach().clone() for p in model.projector.parameters()]
    run.train(second)
    pairs = zip(before, model.projector.parameters(), strict=True)
    assert all(torch.equal(a, b) and b.requires_grad for a, b in pairs)
    assert rates[0][0] == pytest.approx(0.2) and rates[0][1] == 0.01


def test_memory_grows_by_the_tasks_only() -> None:
    plugin, model = CLRPlugin(verbose=False), method()
    run = strategy(model, [plugin], train_epochs=1)
    sizes, tasks = [], []
    for experience in [e for _ in range(4) for e in stream(5).train_stream]:
        run.train(experience)
        tasks.append(len(pickle.dumps(plugin.tasks)))
        sizes.append(len(pickle.dumps((model, plugin))))
    rest = [a - b for a, b in zip(sizes, tasks, strict=True)]
    assert max(rest[5:]) - min(rest[5:]) < 400
    assert plugin.extra_parameters() == 19 * 160
    assert len(model.backbone[0]._forward_hooks) == 1


def test_summary_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run = strategy(plugins=[CLRPlugin()], train_epochs=1)
    for experience in stream(5).train_stream[:2]:
        run.train(experience)
    assert "CLR, experience 1: 2 convolutions reprogrammed, 144 scalars" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 2}, "size=2.*odd"),
        ({"size": 0}, "size=0.*odd"),
        ({"size": 3.0}, "size=3.0.*odd"),
        ({"norms": "own"}, "task, shared, frozen; got 'own'"),
        ({"lr": -1.0}, r"lr=….*at least 0; got -1.0"),
        ({"pretrained": "weights.ckpt"}, r"CLRPlugin\(pretrained=…\): expected True or False"),
        ({"weight_decay": -1.0}, r"weight_decay=….*at least 0; got -1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        CLRPlugin(**options)


def test_bad_tasks_and_models() -> None:
    model, plugin, _ = four_tasks()
    with pytest.raises(UnknownOptionError, match="None, 0, 1, 2, 3; got 4"):
        plugin.select(model, 4)
    with pytest.raises(UnknownOptionError, match="got 9"):
        plugin.extra_parameters(9)
    with pytest.raises(UnknownOptionError, match=f"no layer '{BACKBONE}.0'"):
        plugin.select(backbone(), 1)
    with pytest.raises(UnknownOptionError, match=r"scope \['9'\]"):
        strategy(method(), [CLRPlugin(scope="9")]).train(stream().train_stream[0])


class Flat(SelfSupervisedMethod):
    def __init__(self, name: str) -> None:
        super().__init__()
        setattr(self, name, nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))

    def loss(self, views: Any, **needed: Tensor) -> Tensor:
        raise AssertionError("refused before")


@pytest.mark.parametrize(
    ("name", "message"), [("backbone", "no 2-D convolution"), ("net", "no module called backbone")]
)
def test_networks_that_cannot_be_reprogrammed(name: str, message: str) -> None:
    run = strategy(Flat(name), [CLRPlugin()], views=method().default_views())
    with pytest.raises(IncompatiblePluginError, match=message):
        run.train(stream().train_stream[0])
