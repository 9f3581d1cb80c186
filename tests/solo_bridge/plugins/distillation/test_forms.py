"""Distances of the distilling plugins against restatements over single entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from avalanche_branchtune.errors import LabelError, UnknownOptionError
from solo_bridge.defaults import DEFAULTS
from solo_bridge.plugins.distillation import forms
from solo_bridge.plugins.distillation.forms import FORM_OF, FORMS, form_of
from solo_bridge.plugins.distillation.kaizen import classification, soft_cross_entropy
from solo_bridge.plugins.distillation.lwf import soft_divergence
from solo_bridge.plugins.distillation.pfr import one_minus_cosine
from solo_bridge.plugins.distillation.teacher import in_full_precision
from solo_bridge.plugins.regularizers import squared_norm
from tests.oracles import distillation as oracle

PAIRS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], dict[str, float]]] = {
    "contrastive": (forms.contrastive, oracle.contrastive, {}),
    "contrastive T 0.7": (forms.contrastive, oracle.contrastive, {"temperature": 0.7}),
    "contrastive, one half": (forms.contrastive_half, oracle.contrastive_half, {}),
    "cosine": (forms.negative_cosine, oracle.negative_cosine, {}),
    "mse": (forms.mse, oracle.mse, {}),
    "cross-correlation": (forms.cross_correlation, oracle.cross_correlation, {}),
    "cross-correlation, other settings": (
        forms.cross_correlation,
        oracle.cross_correlation,
        {"off_diagonal": 0.3, "scale": 2.0},
    ),
    "prototypes": (forms.cross_entropy, oracle.cross_entropy, {}),
    "prototypes T 0.5": (forms.cross_entropy, oracle.cross_entropy, {"temperature": 0.5}),
    "Kaizen's classes": (soft_cross_entropy, oracle.soft_cross_entropy, {}),
    "PFR": (one_minus_cosine, oracle.one_minus_cosine, {}),
    "LwF": (soft_divergence, oracle.soft_divergence, {}),
    "LwF T 5": (soft_divergence, oracle.soft_divergence, {"temperature": 5.0}),
}


def outputs(views: int, seed: int, samples: int = 5, entries: int = 4) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = (samples, entries)
    return [
        torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_() for _ in range(views)
    ]


def same(distance: Tensor, restated: Tensor, leaves: list[Tensor]) -> None:
    assert distance.shape == ()
    assert abs(float(distance.detach() - restated.detach())) < 1e-10
    gradients = torch.autograd.grad(distance, leaves)
    for got, expected in zip(gradients, torch.autograd.grad(restated, leaves), strict=True):
        assert expected.abs().max() > 1e-4
        assert (got - expected).abs().max() < 1e-8


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("name", PAIRS)
def test_distances_and_their_gradients(name: str, views: int) -> None:
    distance, restated, settings = PAIRS[name]
    p, z = outputs(views, 0), outputs(views, 1)
    same(
        distance(p, z, **settings),
        restated(oracle.numbers(p), oracle.numbers(z), **settings),
        [*p, *z],
    )


@pytest.mark.parametrize("labels", [[0, 3, 1, 1, 2], [-1, 3, -1, 0, -1]])
def test_classification_leaves_out_samples_without_label(labels: list[int]) -> None:
    logits = outputs(2, 0)
    same(
        classification(logits, torch.tensor(labels)),
        oracle.classification(oracle.numbers(logits), labels),
        logits,
    )


def test_classification_without_any_label_is_zero_and_moves_nothing() -> None:
    logits = outputs(2, 0)
    loss = classification(logits, torch.full((5,), -1))
    assert loss.item() == 0.0
    assert not any(g.any() for g in torch.autograd.grad(loss, logits))


@pytest.mark.parametrize("label", [4, 7, -2])
def test_a_label_that_is_no_class(label: int) -> None:
    with pytest.raises(LabelError, match=rf"label {label} lies outside the classifier's 4 classes"):
        classification(outputs(2, 0), torch.tensor([0, 1, label, -1, 2]))


def test_squared_norm() -> None:
    features = outputs(3, 0)
    same(squared_norm(features), oracle.squared_norm(oracle.numbers(features)), features)


def test_views_that_do_not_match_are_an_error() -> None:
    p, z = outputs(2, 0), outputs(3, 1)
    for name, (distance, _, settings) in PAIRS.items():
        if not name.startswith("contrastive"):
            with pytest.raises(ValueError, match="zip"):
                distance(p, z, **settings)


@pytest.mark.parametrize("name", PAIRS)
def test_distances_are_taken_in_full_precision_where_autocasting_is_on(name: str) -> None:
    distance, _, settings = PAIRS[name]

    def measure(p: Any, z: Any) -> Tensor:
        return distance(p, z, **settings)

    half = [[v.detach().bfloat16() for v in outputs(2, seed, 8, 64)] for seed in (0, 1)]
    exact = measure(*[[v.float() for v in views] for views in half])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(in_full_precision(measure, *half), exact)


def test_teacher_without_difference_costs_nothing() -> None:
    z = [v.detach() for v in outputs(2, 0)]
    for name in ("cosine", "mse", "PFR", "LwF"):
        distance, _, settings = PAIRS[name]
        assert abs(distance(z, z, **settings).item()) < 1e-12


def test_every_method_with_a_projector_has_a_form() -> None:
    assert set(FORM_OF) == set(DEFAULTS) - {"mae"}
    assert {name: (f.weight, f.on_prototypes) for name, f in FORMS.items()} == {
        "contrastive": (1.0, False),
        "cosine": (1.0, False),
        "mse": (25.0, False),
        "cross-correlation": (1.0, False),
        "prototypes": (1.0, True),
    }
    for name, distance in oracle.FORM.items():
        assert form_of(name).distance.__name__ == distance.__name__
        assert form_of(name).weight == oracle.WEIGHT.get(name, 1.0)
    with pytest.raises(UnknownOptionError, match="distillation form of 'mae'"):
        form_of("mae")
