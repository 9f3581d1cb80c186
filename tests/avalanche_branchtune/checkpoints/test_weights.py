"""The network of a run, from its checkpoints alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_branchtune import BranchTuningPlugin, folded_state_dict, is_expanded
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.checkpoints.weights import saved_weights
from avalanche_branchtune.errors import CheckpointError
from avalanche_branchtune.surgery import without_branches
from tests.supervised import benchmark, strategy


class Killed(BaseException):
    """The process is no more."""


class Watches(SupervisedPlugin):
    """Keeps the network as it is between two steps, and ends the process in the second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.expanded: dict[str, Tensor] = {}
        self.folded: dict[str, Tensor] = {}

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_counter == 1 and strategy.clock.train_exp_epochs == 1:
            assert is_expanded(strategy.model)
            self.expanded = {n: t.clone() for n, t in strategy.model.state_dict().items()}
            self.folded = {n: t.clone() for n, t in folded_state_dict(strategy.model).items()}
            raise Killed


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) for n in a)


def test_weights_of_a_run_between_experiences_and_within_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run", every_epochs=1)
    watches = Watches()
    made = strategy([BranchTuningPlugin(verbose=False), watches, checkpoints])
    checkpoints.attach(made)
    first, second, *_ = benchmark().train_stream
    made.train(first)
    assert same(saved_weights(tmp_path / "run"), dict(made.model.state_dict()))
    with pytest.raises(Killed):
        made.train(second)
    found = saved_weights(tmp_path / "run")
    assert same(dict(sorted(found.items())), dict(sorted(watches.expanded.items())))
    assert same(without_branches(found), watches.folded), "as the network computes, bit for bit"


def test_folders_without_a_trained_network(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there are no checkpoints of a run"):
        saved_weights(tmp_path)
    checkpoints = Checkpoints(tmp_path / "run")
    made = strategy([checkpoints])
    checkpoints.attach(made)
    checkpoints._save([])
    with pytest.raises(CheckpointError, match="nothing was trained yet"):
        saved_weights(tmp_path / "run")
