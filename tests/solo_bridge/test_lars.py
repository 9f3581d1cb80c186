from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, expand
from avalanche_branchtune.branches import Branched
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge import optim
from solo_bridge.compat import load
from solo_bridge.lars import LARS
from tests.oracles.lars import SlowLARS, solo_learns
from tests.readings import Readings
from tests.selfsupervised import method, strategy, stream, weights

SETTINGS: dict[str, Any] = {
    "lr": 0.5,
    "weight_decay": 1e-2,
    "momentum": 0.9,
    "eta": 0.02,
    "clip": True,
    "exclude": True,
}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))


def steps(model: nn.Module, optimizer: Any, count: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(8, 3, 8, 8, generator=generator)).square().mean().backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups, one with its own rate and decay."""
    first, second = list(model.parameters())[:3], list(model.parameters())[3:]
    return [{"params": first}, {"params": second, "lr": 0.2, "weight_decay": 0.0}]


def random_steps(model: nn.Module, optimizer: Any, count: int = 40) -> list[Tensor]:
    """Gradients of all sizes, now and then zero or none, and rates that change."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        next(iter(model.parameters())).zero_()
    for step in range(count):
        for i, p in enumerate(model.parameters()):
            size = 10 ** float(torch.randint(-6, 3, (), generator=generator))
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype) * size
            if (step + i) % 7 == 3:
                p.grad = torch.zeros_like(p) if step % 2 else None
        for group in optimizer.param_groups:
            group["lr"] *= 0.97
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


CASES = [
    {},
    {"clip": False},
    {"exclude": False},
    {"momentum": 0.0},
    {"weight_decay": 0.0},
    {"lr": 30.0},
]


@pytest.mark.parametrize("change", CASES, ids=str)
@pytest.mark.parametrize("of", ["solo-learn", "main"])
def test_it_is_solo_learns_bit_by_bit(of: str, change: dict[str, Any]) -> None:
    a, b, settings = net(), net(), {**SETTINGS, **change}
    theirs = solo_learns if of == "solo-learn" else SlowLARS
    rounding = load().short if of == "solo-learn" else of
    got = random_steps(a, LARS(groups(a), rounding=rounding, **settings))
    expected = random_steps(b, theirs(groups(b), **settings))
    assert all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(got, net().parameters(), strict=True))


def test_by_the_norm_of_kernels_it_is_the_slow_one_bit_by_bit() -> None:
    found = []
    for kind in (LARS, SlowLARS):
        model = net()
        expand(model, linear=2, scope=["0", "3"])
        optimizer = kind(list(model.parameters()), trust="kernel", **SETTINGS)
        found.append(steps(model, optimizer, 10))
    assert torch.equal(*found)


@pytest.mark.parametrize("writer", ["solo-learn", "own", "sgd"])
def test_states_of_what_was_used_before_are_gone_on_with(writer: str) -> None:
    """Checkpoints of solo-learn's LARS, and of SGD inside of it, say less of their groups."""
    model = net()
    made = {
        "solo-learn": lambda m: solo_learns(groups(m), **SETTINGS),
        "own": lambda m: LARS(groups(m), rounding=load().short, **SETTINGS),
        "sgd": lambda m: torch.optim.SGD(groups(m), 0.5, momentum=0.9, weight_decay=1e-2),
    }
    before = made[writer](model)
    steps(model, before)
    twin = copy.deepcopy(model)
    after = LARS(groups(twin), rounding=load().short, **SETTINGS)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    going_on = before
    if writer == "sgd":  # under LARS from here on
        going_on = solo_learns(groups(model), **SETTINGS)
        going_on.load_state_dict(before.state_dict())
    assert torch.equal(steps(twin, after), steps(model, going_on))
    assert pickle.loads(pickle.dumps(after)).param_groups[1]["rounding"] == load().short


def test_a_step_reads_no_number_and_leaves_gradients_alone() -> None:
    model = net()
    expand(model)
    for trust in ("branch", "kernel"):
        optimizer = LARS(list(model.parameters()), trust=trust, **SETTINGS)
        steps(model, optimizer, 1)
        gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        with Readings() as readings:
            optimizer.step()
        assert readings.count == 0
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            assert (p.grad is None and gradient is None) or torch.equal(p.grad, gradient)
        kernels = [m.weight for m in model.modules() if isinstance(m, Branched)]
        assert kernels and all(k.grad is None and k not in optimizer.state for k in kernels)


def test_first_steps_of_a_branch_by_hand() -> None:
    model = net()
    expand(model)
    conv: Any = model[0]
    branch = conv.branches["branch_1x3"]
    settings = {**SETTINGS, "momentum": 0.0}
    optimizer = LARS(list(model.parameters()), trust="kernel", **settings)
    expected = torch.zeros_like(branch)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(8, 3, 8, 8, generator=generator)).square().mean().backward()
        g, w = branch.grad, conv.weight.norm()
        rate = min(0.02 * w / (g.norm() + w * 1e-2 + 1e-8) / 0.5, 1)
        expected = expected - 0.5 * rate * (g + 1e-2 * expected)
        optimizer.step()
        assert torch.allclose(branch, expected, rtol=1e-6)
    assert not torch.equal(branch, torch.zeros_like(branch))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_an_expanded_network_learns_as_the_network_does(again: Any) -> None:
    """Copies lose what is kept as an attribute of a parameter."""
    model = net()
    expand(model, linear=2, scope=["0", "3"])
    twin = again(again(model))
    both = [LARS(list(m.parameters()), trust="kernel", **SETTINGS) for m in (model, twin)]
    moved = [steps(m, lars) for m, lars in zip((model, twin), both, strict=True)]
    assert torch.equal(*moved)


def test_branches_that_were_loaded_in_place_of_others_know_their_kernel() -> None:
    model, twin = net(), net()
    expand(model)
    expand(twin)
    twin.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    both = [LARS(list(m.parameters()), trust="kernel", **SETTINGS) for m in (model, twin)]
    moved = [steps(m, lars) for m, lars in zip((model, twin), both, strict=True)]
    assert torch.equal(*moved)


def test_option_of_the_strategy() -> None:
    grown = {}
    for trust in ("branch", "kernel"):
        torch.manual_seed(0)
        model = method()
        own = BranchTuningPlugin(pretrained=True, verbose=False)
        run = strategy(model, [own], optimizer="lars", lr=3.0, optimizer_settings={"trust": trust})
        before = model.backbone[0].weight.detach().clone()
        run.train(stream().train_stream[0])
        grown[trust] = (model.backbone[0].weight - before).norm().item()
        assert isinstance(run.optimizer, LARS) and run.optimizer.defaults["trust"] == trust
    assert grown["branch"] != grown["kernel"]
    with pytest.raises(UnknownOptionError, match="branch, kernel"):
        strategy(optimizer_settings={"trust": "layer"})


@pytest.mark.skipif(load().short != "1.0.2", reason="its LARS is a wrapper")
def test_a_run_that_the_wrapper_began_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kill(SupervisedPlugin):
        def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if strategy.clock.train_iterations == at:
                raise KeyboardInterrupt

    def run(folder: str, resume: bool = False) -> Tensor:
        torch.manual_seed(0)
        branches = BranchTuningPlugin(pretrained=True, verbose=False)
        checkpoints = Checkpoints(tmp_path / folder, resume=resume, every_minutes=1e-9)
        made = strategy(
            method(), [branches, Kill()], lr=3.0, optimizer="lars", checkpoints=checkpoints
        )
        torch.manual_seed(1)
        made.train(stream().train_stream[0])
        return weights(made.model)

    def wrapped(groups: Any, trust: str, rounding: str, **settings: Any) -> Any:
        return solo_learns(groups, **settings)

    at = -1
    expected = run("whole")
    at = 3
    with monkeypatch.context() as before, pytest.raises(KeyboardInterrupt):
        before.setattr(optim, "LARS", wrapped)
        run("parts")
    at = -1
    assert torch.equal(run("parts", resume=True), expected)


def test_branches_with_a_rate_of_their_own_have_the_norm_of_their_kernels() -> None:
    moved = {}
    for trust, factor in (("branch", 1.0), ("kernel", 1.0), ("kernel", 4.0)):
        found: list[Tensor] = []

        class Branches(SupervisedPlugin):
            def after_update(self, strategy: Any, **kwargs: Any) -> None:
                layers = [m for m in strategy.model.modules() if isinstance(m, Branched)]
                found.extend(b.detach().clone() for m in layers for b in m.branches.values())  # noqa: B023

        plugin = BranchTuningPlugin(pretrained=True, verbose=False, lr_factor=factor)
        settings = {"trust": trust, "clip": False, "momentum": 0.0, "scheduler": "none"}
        run = strategy(
            plugins=[plugin, Branches()],
            optimizer="lars",
            optimizer_settings=settings,
            train_mb_size=50,
            train_epochs=1,
        )
        torch.manual_seed(1)
        run.train(stream(2).train_stream[0])
        moved[trust, factor] = found
    pairs = zip(moved["kernel", 1.0], moved["kernel", 4.0], strict=True)
    assert all(a.any() and torch.equal(4 * a, b) for a, b in pairs)
    assert not torch.equal(moved["branch", 1.0][0], moved["kernel", 1.0][0])
