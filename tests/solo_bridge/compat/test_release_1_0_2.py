"""What release 1.0.2 needs on a current torch, without leaving it changed for others."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from solo_bridge.compat import load
from solo_bridge.interface import Plan
from tests.selfsupervised import method

pytestmark = pytest.mark.skipif(
    load().name != "release 1.0.2", reason="solo-learn's main branch whitens as it is"
)


def test_solo_learns_own_module_stays_as_it_is() -> None:
    from solo.utils import whitening

    kept = dict(vars(whitening))
    model = method("wmse")
    model.start_experience(Plan(1, 1, 20, 20))
    views = [torch.randn(20, 3, 8, 8) for _ in range(2)]
    assert torch.isfinite(model.loss(views))
    assert vars(whitening) == kept and whitening.torch is torch


@pytest.mark.parametrize(
    "copied", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_whitening_is_the_inverse_of_cholesky(copied: Any) -> None:
    layer = copied(method("wmse")).solo.whitening
    x = torch.randn(20, 8, dtype=torch.float64)
    centred = x - x.mean(0)
    lower = torch.linalg.cholesky(centred.T @ centred / 19)
    expected = torch.linalg.solve_triangular(lower, centred.T, upper=False).T
    assert torch.allclose(layer(x), expected)
    assert torch.allclose(layer(x).T @ layer(x) / 19, torch.eye(8, dtype=torch.float64))
