"""NaP: norms that stay, what is scale-invariant, and where in a step it acts."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError
from solo_bridge.plugins.partial.kappatune import KappaTunePlugin
from solo_bridge.plugins.partial.nap import Followed, NaPPlugin
from tests.selfsupervised import BACKBONE, backbone, method, strategy, stream

AT_ONCE: dict[str, Any] = {"optimizer_settings": {"warmup_epochs": 0.0}}
"""The full rate from the first step on."""


def norms(model: nn.Module) -> dict[str, float]:
    """Frobenius norms by hand, of all kernels."""
    return {
        n.removesuffix(".weight"): float(p.detach().double().square().sum().sqrt())
        for n, p in model.named_parameters()
        if p.ndim > 1
    }


@pytest.mark.parametrize(
    ("name", "optimizer"), [("simclr", "lars"), ("byol", "sgd"), ("byol", "adamw")]
)
def test_norms_stay_over_three_experiences(name: str, optimizer: str) -> None:
    model = method(name)
    start = norms(model)
    drift: list[float] = []

    class Look(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            now = norms(model)
            assert plugin.norms
            for layer in plugin.norms:
                assert now[layer] == pytest.approx(start[layer], rel=1e-6)
            drift.append(max(abs(now[n] / start[n] - 1) for n in set(now) - set(plugin.norms)))

    plugin = NaPPlugin()
    rate = 0.05 if optimizer == "adamw" else 2.0
    run = strategy(model, [Look(), plugin], optimizer=optimizer, lr=rate, **AT_ONCE)
    before = model.backbone[0].weight.detach().clone()
    for experience in stream(5).train_stream[:3]:
        run.train(experience)
        assert not torch.equal(model.backbone[0].weight, before), "it still learns"
        before = model.backbone[0].weight.detach().clone()
    expected = {f"{BACKBONE}.0"}
    if name == "byol":
        expected |= {"solo.projector.0", "solo.predictor.0"}
    assert set(plugin.norms) == expected
    assert drift[-1] > 1e-4, "norms of the others are free"
    assert plugin.norms[f"{BACKBONE}.0"] == pytest.approx(start[f"{BACKBONE}.0"])


def test_without_the_plugin_norms_do_drift() -> None:
    model = method("byol")
    start = norms(model)
    run = strategy(model, lr=2.0, **AT_ONCE)
    run.train(stream(5).train_stream[0])
    assert abs(norms(model)[f"{BACKBONE}.0"] / start[f"{BACKBONE}.0"] - 1) > 1e-3


class Shapes(nn.Module):
    """Kernels that are, and that only look as if they were, followed by normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.Conv2d(3, 4, 3, bias=True)
        self.bn_norm = nn.BatchNorm2d(4)
        self.group = nn.Conv2d(4, 4, 1, bias=False)
        self.group_norm = nn.GroupNorm(2, 4)
        self.biased_group = nn.Conv2d(4, 4, 1, bias=True)
        self.biased_group_norm = nn.GroupNorm(2, 4)
        self.skip = nn.Conv2d(4, 4, 1, bias=False)
        self.skip_norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 1, bias=False)
        self.twice_norm = nn.BatchNorm2d(4)
        self.inplace = nn.Conv2d(4, 4, 1, bias=False)
        self.inplace_norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 4, bias=False)
        self.fc_norm = nn.LayerNorm(4)
        self.never = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn_norm(self.bn(x)).relu()
        x = self.group_norm(self.group(x)).relu()
        x = self.biased_group_norm(self.biased_group(x)).relu()
        x = self.skip_norm(x + self.skip(x)).relu()
        x = self.twice_norm(self.twice(x)) + self.twice(x)
        x = self.inplace_norm((self.inplace(x) + 0).relu_()).relu()
        x = self.fc_norm(self.fc(x.mean((2, 3)))).relu()
        return self.last(x)


def test_followed_layers_are_those_with_euler_s_gradient() -> None:
    """Oracle: a function that scaling W does not change has ⟨∂L/∂W, W⟩ = 0."""
    torch.manual_seed(0)
    net = Shapes().double()
    for m in net.modules():
        if hasattr(m, "eps"):
            m.eps = 1e-30
    layers = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    watch = Followed(layers, net)
    out = net(torch.rand(6, 3, 7, 7, dtype=torch.float64))
    assert watch.close() == {"bn", "group", "fc"}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    (out * torch.randn_like(out)).sum().backward()
    invariant = set()
    for n, layer in layers.items():
        g = layer.weight.grad
        if g is not None:
            cosine = (g * layer.weight).sum() / (g.norm() * layer.weight.norm())
            if abs(float(cosine.detach())) < 1e-9:
                invariant.add(n)
    # ReLU in between keeps the scale, which is not seen: that errs on the cautious side.
    assert invariant == {"bn", "group", "fc", "inplace"}


def test_an_activation_in_place_is_not_straight() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Sigmoid(), nn.BatchNorm1d(3))
    net[1].forward = lambda x: x.sigmoid_()
    watch = Followed({"0": net[0]}, net)
    net(torch.rand(4, 3))
    assert watch.close() == set()


def test_the_function_is_unchanged_by_projection() -> None:
    """Projecting changes a network in training mode by the normalisation's ε only."""
    model = method()
    run, plugin = strategy(model, lr=2.0, **AT_ONCE), NaPPlugin()
    run.plugins.append(plugin)
    outputs: list[Tensor] = []

    class Around(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            x = strategy.mb_x[0]
            twin = copy.deepcopy(model)
            outputs.append(twin(x))
            with torch.no_grad():
                twin.backbone[0].weight.mul_(1.3)
            outputs.append(twin(x))

    run.plugins.append(Around())
    run.train(stream(5).train_stream[0])
    assert torch.allclose(outputs[0], outputs[1], atol=1e-4)


def test_momentum_networks_average_projected_kernels() -> None:
    """Oracle: the average of kernels that have the norm already, step by step."""
    model = method("byol", tau=(0.5, 0.5))
    online, momentum = model.backbone[0], model.solo.momentum_pairs[0][1][0]
    expected = [momentum.weight.detach().clone()]

    class Average(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            expected[0] = 0.5 * expected[0] + 0.5 * online.weight.detach()
            assert torch.equal(momentum.weight, expected[0])

    run = strategy(model, [NaPPlugin(), Average()], lr=5.0, **AT_ONCE)
    for experience in stream(5).train_stream[:2]:
        run.train(experience)


def test_other_modules_can_be_chosen() -> None:
    def projected(**options: Any) -> set[str]:
        plugin = NaPPlugin(**options)
        strategy(method("byol"), [plugin], train_epochs=1).train(stream(5).train_stream[0])
        return set(plugin.norms)

    assert projected(scope=BACKBONE) == {f"{BACKBONE}.0"}
    assert projected(scope="*.predictor") == {"solo.predictor.0"}
    every = {f"{BACKBONE}.0", f"{BACKBONE}.3", "solo.projector.0", "solo.projector.3"}
    every |= {"solo.predictor.0", "solo.predictor.3"}
    assert projected(only_followed=False) == every


def test_affine_parameters_return_towards_their_start() -> None:
    def distance(decay: float) -> float:
        model = method("byol")
        with torch.no_grad():
            model.backbone[1].weight.fill_(2.0)
        run = strategy(model, [NaPPlugin(affine_decay=decay)], lr=2.0, **AT_ONCE)
        for experience in stream(5).train_stream[:2]:
            run.train(experience)
        return float((model.backbone[1].weight.detach() - 2.0).abs().sum())

    free, held, fixed = distance(0.0), distance(0.5), distance(1.0)
    assert free > held > fixed == 0.0


def test_what_another_plugin_freezes_is_bit_equal() -> None:
    """Also where it has not the norm any more that it had at the start."""
    model, kappa = method(), KappaTunePlugin(number=1, verbose=False)
    nap = NaPPlugin(only_followed=False)
    run = strategy(model, [nap, kappa], **AT_ONCE)
    first, second = stream(5).train_stream[:2]
    run.train(first)
    with torch.no_grad():
        for i in (0, 3):
            model.backbone[i].weight.mul_(1.1)
    before = {n: p.detach().clone() for n, p in model.backbone.named_parameters()}
    run.train(second)
    assert kappa.summary is not None
    for n, p in model.backbone.named_parameters():
        assert torch.equal(p, before[n]) == (n not in kappa.summary.chosen)


def test_a_kernel_of_norm_zero_stays_finite() -> None:
    net = backbone()
    nn.init.zeros_(net[0].weight)
    plugin = NaPPlugin(only_followed=False)
    model = method(backbone=net)
    strategy(model, [plugin]).train(stream(5).train_stream[0])
    assert all(p.isfinite().all() for p in model.parameters())


def test_interruption_copies_and_pickles() -> None:
    class Stop(SupervisedPlugin):
        where = ""

        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            if self.where == "update":
                raise KeyboardInterrupt

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            copy.deepcopy(strategy.model), pickle.loads(pickle.dumps(strategy.model))

        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            if self.where == "forward":
                self.handle = strategy.model.projector[-1].register_forward_hook(_stop)

    model, stop, plugin = method(), Stop(), NaPPlugin()
    start = norms(model)
    run = strategy(model, [plugin, stop], lr=2.0, **AT_ONCE)
    experiences = stream(5).train_stream
    for where in ("forward", "update"):
        stop.where = where
        with pytest.raises(KeyboardInterrupt):
            run.train(experiences[0])
        if where == "forward":
            stop.handle.remove()
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            twin(torch.rand(2, 3, 8, 8))
            hooks = [h for m in twin.modules() for h in m._forward_hooks.values()]
            assert bool(hooks) == (where == "forward")
            assert not any(h.__self__._open for h in hooks), "outputs are not copied"
    stop.where = ""
    run.train(experiences[0])
    name = f"{BACKBONE}.0"
    assert set(plugin.norms) == {name}
    assert norms(model)[name] == pytest.approx(start[name], rel=1e-6)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not run.optimizer._optimizer_step_post_hooks


def _stop(*args: Any) -> None:
    raise KeyboardInterrupt


def test_memory_does_not_grow_over_twenty_experiences() -> None:
    plugin, model = NaPPlugin(affine_decay=0.1), method()
    run = strategy(model, [plugin], train_epochs=1)
    sizes = []
    experiences = stream(5).train_stream
    for i in range(20):
        run.train(experiences[i % 5])
        sizes.append(len(pickle.dumps((model, plugin))))
    assert max(sizes[2:]) - min(sizes[2:]) < 100


def test_networks_without_normalisation_are_refused() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    run = strategy(method(backbone=plain), [NaPPlugin()])
    with pytest.raises(IncompatiblePluginError, match="has no normalisation layer"):
        run.train(stream().train_stream[0])
    run = strategy(method(), [NaPPlugin(scope="solo.projector")])
    before = norms(run.model)
    with pytest.raises(IncompatiblePluginError, match="hands its output straight"):
        run.train(stream().train_stream[0])
    assert norms(run.model) == before, "before the first step"
    with pytest.raises(IncompatiblePluginError, match="no convolution or linear layer"):
        strategy(method(), [NaPPlugin(scope=f"{BACKBONE}.1")]).train(stream().train_stream[0])


@pytest.mark.parametrize("decay", [-0.1, 1.5, float("nan")])
def test_bad_options(decay: float) -> None:
    with pytest.raises(UnknownOptionError, match=r"affine_decay=….*from 0 to 1; got"):
        NaPPlugin(affine_decay=decay)


def test_bad_scope() -> None:
    with pytest.raises(UnknownOptionError, match="no module"):
        strategy(method(), [NaPPlugin(scope="trunk")]).train(stream().train_stream[0])
