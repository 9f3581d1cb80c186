"""CKA against closed forms and written-out definitions."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from avalanche_branchtune.analysis import MinibatchCKA, linear_cka
from avalanche_branchtune.analysis.cka import hsic, linear_gram
from avalanche_branchtune.errors import ProbeError


def features(samples: int = 40, width: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("unbiased", [False, True])
def test_identity_rotation_scale_and_shift(unbiased: bool) -> None:
    x = features()
    rotation, _ = torch.linalg.qr(features(6, 6, seed=1))
    for other in (x, x @ rotation, -3.0 * x, x @ rotation + 5.0):
        assert linear_cka(x, other, unbiased=unbiased) == pytest.approx(1.0, abs=1e-9)
    stretched = linear_cka(x, x * torch.tensor([10.0, 1, 1, 1, 1, 1]), unbiased=unbiased)
    assert 0.1 < stretched < 0.9


def test_independent_features_are_unlike_without_bias_only() -> None:
    pairs = [(features(20, 50, i), features(20, 50, 1000 + i)) for i in range(400)]
    biased = torch.stack([linear_cka(a, b) for a, b in pairs]).mean()
    unbiased = torch.stack([linear_cka(a, b, unbiased=True) for a, b in pairs]).mean()
    assert biased > 0.6
    assert abs(unbiased) < 0.01


def test_biased_cka_in_feature_space() -> None:
    """Kornblith et al., Equation 4: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features."""
    x, y = features(), features(width=9, seed=1) + features()[:, :1]
    a, b = x - x.mean(0), y - y.mean(0)
    expected = (b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    assert linear_cka(x, y) == pytest.approx(expected.item(), rel=1e-12)


def test_unbiased_hsic_is_the_u_statistic() -> None:
    """Song et al., Equation 4, written out over all ordered quadruples of different samples."""
    k, l = linear_gram(features(7, 3)), linear_gram(features(7, 4, seed=1))  # noqa: E741
    total, count = 0.0, 0
    for i, j, q, r in itertools.permutations(range(7), 4):
        total += float(k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]))
        count += 1
    assert hsic(k, l).item() == pytest.approx(total / count, rel=1e-10)


def test_minibatches_average_the_terms() -> None:
    x, y = features(120), features(120, 8, seed=1) + features(120)[:, :1]
    whole = MinibatchCKA()
    whole.update(x, y)
    assert whole.compute() == pytest.approx(linear_cka(x, y, unbiased=True).item(), rel=1e-12)
    parts = MinibatchCKA()
    terms = torch.zeros(3, dtype=torch.float64)
    for a, b in zip(x.split(30), y.split(30), strict=True):
        parts.update(a, b)
        k, l = linear_gram(a), linear_gram(b)  # noqa: E741
        terms += torch.stack([hsic(k, l), hsic(k, k), hsic(l, l)])
    assert parts.compute() == pytest.approx((terms[0] / (terms[1] * terms[2]).sqrt()).item())
    assert parts.compute() == pytest.approx(whole.compute(), abs=0.1)


def test_bad_features() -> None:
    with pytest.raises(ProbeError, match="at least 4"):
        linear_cka(features(3), features(3), unbiased=True)
    with pytest.raises(ProbeError, match="one size"):
        linear_cka(features(5), features(6))
    with pytest.raises(ProbeError, match="do not vary"):
        linear_cka(features(8), torch.ones(8, 3))
    with pytest.raises(ProbeError, match="not finite"):
        linear_cka(features(8), features(8) * float("nan"))
    with pytest.raises(ProbeError, match="no minibatch"):
        MinibatchCKA().compute()
