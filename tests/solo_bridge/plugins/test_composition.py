"""Branch-tuning beside the neighbouring methods, in any order, over three experiences."""

from __future__ import annotations

import copy
import pickle
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avalanche_branchtune import is_expanded
from avalanche_branchtune.errors import IncompatiblePluginError
from solo_bridge import specification
from solo_bridge.comparison import COMBINATIONS
from tests.selfsupervised import method, small_options, stream, weights

METHODS = ("simclr", "byol", "barlow_twins", "mocov2plus", "vicreg", "swav")
PARTS = ("cassle", "kaizen", "replay")


def train(spec: str, name: str) -> Any:
    model = method(name, **({"queue_size": 40} if name == "mocov2plus" else {}))
    run = specification.build(
        spec,
        model,
        options=small_options(spec, remembered=20),
        optimizer="sgd",
        lr=0.05,
        train_mb_size=20,
        train_epochs=2,
        evaluator=None,
    )
    torch.manual_seed(0)
    run.starts = []
    for experience in stream(5).train_stream[:3]:
        run.starts.append(copy.deepcopy(run.model.backbone.state_dict()))
        run.train(experience)
    return run


@cache
def weights_of(spec: str, name: str) -> Tensor:
    return weights(train(spec, name).model)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        pytest.param(part, name, marks=[] if i % len(PARTS) == j else pytest.mark.slow)
        for i, name in enumerate(METHODS)
        for j, part in enumerate(PARTS)
    ],
)
def test_branch_tuning_beside_it_in_both_orders(part: str, name: str) -> None:
    one, other = train(f"branch_tuning+{part}", name), train(f"{part}+branch_tuning", name)
    assert torch.equal(weights(one.model), weights(other.model))
    for alone in ("branch_tuning", part):
        assert not torch.equal(weights(one.model), weights_of(alone, name)), "each has an effect"
    assert torch.isfinite(weights(one.model)).all()
    assert not is_expanded(one.model)
    for t in (1, 2):
        after = one.starts[t + 1] if t < 2 else one.model.backbone.state_dict()
        norms = [n for n, m in one.model.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms and all(
            torch.equal(one.starts[t][f"{n}.{p}"], after[f"{n}.{p}"])
            for n in norms
            for p in ("weight", "bias")
        ), "fixed by Branch-tuning, whatever else trains"
        kernels = [n for n in after if n.endswith("weight") and after[n].ndim == 4]
        assert all(not torch.equal(one.starts[t][n], after[n]) for n in kernels)
    assert not any(m._forward_hooks for m in one.model.modules())
    held = {id(p) for g in one.optimizer.param_groups for p in g["params"]}
    assert held == {id(p) for g in one.model.parameter_groups() for p in g["params"]}
    assert torch.equal(weights(pickle.loads(pickle.dumps(one.model))), weights(one.model))


@pytest.mark.parametrize("spec", [s for s in COMBINATIONS if s.count("+")])
def test_further_combinations_train(spec: str) -> None:
    run = train(spec, "simclr")
    assert torch.isfinite(weights(run.model)).all() and not is_expanded(run.model)
    assert not any(m._forward_hooks for m in run.model.modules())
    backwards = train("+".join(reversed(spec.split("+"))), "simclr")
    assert torch.equal(weights(run.model), weights(backwards.model))


@pytest.mark.parametrize("part", ["kappatune", "clr", "nap"])
def test_what_cannot_be_combined_says_why(part: str) -> None:
    with pytest.raises(IncompatiblePluginError, match=r"beside .*: .{20,}"):
        train(f"{part}+branch_tuning", "simclr")


@pytest.mark.parametrize(
    "spec", [s for s in specification.names() if s not in ("joint", "kaizen_paper")]
)
def test_every_name_trains_by_itself(spec: str) -> None:
    assert torch.isfinite(weights_of(spec, "simclr")).all()
