"""Several processes that train one model: the same as one process, but for rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from avalanche_branchtune import ranks
from solo_bridge import SoloMethod, build
from tests.jobs import in_job
from tests.selfsupervised import data, method, small_options, stream

Weights = dict[str, Tensor]


def trained(name: str, spec: str, settings: dict[str, Any]) -> list[Weights]:
    """Train two experiences, and return all weights and buffers after each."""
    model: SoloMethod = method(name, seed=ranks.rank())  # rank 0's are taken
    options = {"train_mb_size": 16, "train_epochs": 2, "optimizer": "sgd", "lr": 0.5}
    strategy = build(
        spec,
        model,
        options=small_options(spec),
        evaluator=None,
        reproducible_views=True,
        **{**options, **settings},
    )
    found = []
    for experience in stream(2, data(64)).train_stream:
        strategy.train(experience)
        found.append({n: w.clone() for n, w in model.state_dict().items()})
    return found


def assert_equal_ranks(by_rank: list[list[Weights]]) -> None:
    """Bit by bit, after every experience."""
    first, *others = by_rank
    for other in others:
        for expected, found in zip(first, other, strict=True):
            assert expected.keys() == found.keys()
            assert all(torch.equal(w, found[n]) for n, w in expected.items())


def assert_close(expected: list[Weights], found: list[Weights]) -> None:
    for one, several in zip(expected, found, strict=True):
        for name, weight in one.items():
            scale = weight.double().abs().max().clamp(min=1e-3)
            far = (weight.double() - several[name].double()).abs().max() / scale
            assert far < 1e-4, f"{name}: {far}"


@pytest.mark.parametrize("spec", ["branch_tuning+cassle", "kaizen+replay"])
def test_two_processes_are_one(spec: str) -> None:
    by_rank = in_job(2, trained, "simclr", spec, {})
    assert_equal_ranks(by_rank)
    assert_close(trained("simclr", spec, {}), by_rank[0])
