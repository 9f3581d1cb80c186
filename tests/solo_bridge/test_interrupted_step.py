"""A strategy whose step was interrupted is as good as another one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from solo_bridge import specification
from tests.selfsupervised import method, stream, weights


class Interrupted(SupervisedPlugin):
    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_iterations == 6:
            raise KeyboardInterrupt


@pytest.mark.parametrize("spec", ["branch_tuning+cassle", "kaizen", "der"])
def test_it_can_be_copied(spec: str) -> None:
    benchmark = stream(5)
    made = specification.build(
        spec,
        method("byol"),
        plugins=[Interrupted()],
        optimizer="sgd",
        lr=0.05,
        train_mb_size=5,
        evaluator=None,
    )
    made.train(benchmark.train_stream[0])
    with pytest.raises(KeyboardInterrupt):
        made.train(benchmark.train_stream[1])
    other = copy.deepcopy(made)
    for one in (made, other):
        torch.manual_seed(0)
        one.clock.train_iterations = 100
        one.train(benchmark.train_stream[1])
    assert torch.equal(weights(made.model), weights(other.model))
