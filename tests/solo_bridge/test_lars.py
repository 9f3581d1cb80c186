from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, expand
from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge.compat import load
from solo_bridge.lars import KernelNormLARS
from tests.selfsupervised import method, strategy, stream

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


@pytest.mark.parametrize("clip", [True, False])
def test_without_branches_it_is_solo_learns(clip: bool) -> None:
    a, b = net(), net()
    settings = {**SETTINGS, "clip": clip}
    ours = steps(a, KernelNormLARS([{"params": list(a.parameters())}], **settings))
    theirs = steps(b, load().lars([{"params": list(b.parameters())}], **settings))
    if load().name == "main branch":
        assert torch.equal(ours, theirs)
    else:  # 1.0.2 multiplies in another order
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_first_steps_of_a_branch_by_hand() -> None:
    model = net()
    expand(model)
    conv: Any = model[0]
    branch = conv.branches["branch_1x3"]
    settings = {**SETTINGS, "momentum": 0.0}
    optimizer = KernelNormLARS(list(model.parameters()), **settings)
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
    moved = [steps(m, KernelNormLARS(list(m.parameters()), **SETTINGS)) for m in (model, twin)]
    assert torch.equal(*moved)


def test_branches_that_were_loaded_in_place_of_others_know_their_kernel() -> None:
    model, twin = net(), net()
    expand(model)
    expand(twin)
    twin.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    moved = [steps(m, KernelNormLARS(list(m.parameters()), **SETTINGS)) for m in (model, twin)]
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
        assert isinstance(run.optimizer, KernelNormLARS) == (trust == "kernel")
    assert grown["branch"] != grown["kernel"]
    with pytest.raises(UnknownOptionError, match="branch, kernel"):
        strategy(optimizer_settings={"trust": "layer"})
