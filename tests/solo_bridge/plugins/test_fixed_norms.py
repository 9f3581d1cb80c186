"""``fixed_norms`` under self-supervised methods, beside the neighbours."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solo_bridge import specification
from tests.selfsupervised import method, small_options, stream, weights


def train(spec: str, name: str) -> tuple[Any, list[dict[str, Tensor]]]:
    run = specification.build(
        spec,
        method(name),
        options=small_options(spec),
        optimizer="sgd",
        lr=0.5,
        train_mb_size=20,
        train_epochs=1,
        evaluator=None,
    )
    torch.manual_seed(0)
    states = []
    for experience in stream(5).train_stream[:3]:
        run.train(experience)
        states.append({n: t.detach().clone() for n, t in run.model.state_dict().items()})
    return run, states


@pytest.mark.parametrize(("part", "name"), [("cassle", "byol"), ("replay", "simclr")])
def test_norms_of_all_networks_are_fixed_in_both_orders(part: str, name: str) -> None:
    run, states = train(f"fixed_norms+{part}", name)
    norms = {n: m for n, m in run.model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    momentum = {n for n in norms if "momentum" in n}
    assert len(norms) == (2 if name == "byol" else 1) and len(momentum) == len(norms) - 1
    fixed = next(p for p in run.plugins if type(p).__name__ == "FixedNormsPlugin")
    assert set(fixed.summary.norms) == set(norms)
    for before, after in pairwise(states):
        for norm in norms.keys() - momentum:
            assert torch.equal(before[f"{norm}.weight"], after[f"{norm}.weight"])
            assert torch.equal(before[f"{norm}.bias"], after[f"{norm}.bias"])
            assert not torch.equal(before[f"{norm}.running_mean"], after[f"{norm}.running_mean"])
        kernels = [n for n in after if n.endswith("weight") and after[n].ndim == 4]
        assert kernels and not any(torch.equal(before[n], after[n]) for n in kernels)
    learns = [p.requires_grad for p in run.model.parameters()]
    assert learns == [p.requires_grad for p in method(name).parameters()]
    assert torch.equal(weights(run.model), weights(train(f"{part}+fixed_norms", name)[0].model))


def test_titles() -> None:
    assert specification.title("fixed_norms") == "fixed BN"
    assert specification.title("fixed_norms+replay") == "fixed BN + replay"
