"""Parts of every method, found by solo-learn's names for them."""

from __future__ import annotations

import pytest
import torch

from solo_bridge.compat import parts
from tests.selfsupervised import ALL_METHODS, method, small

PROTOTYPES = {"deepclusterv2": [5, 5], "dino": [12], "swav": [6]}


@pytest.mark.parametrize("name", ALL_METHODS)
def test_projector_and_prototypes_have_the_sizes_that_were_asked_for(name: str) -> None:
    model = method(name)
    projector = parts.projector(model.solo)
    assert (projector is None) == (name == "mae")
    if projector is None:
        return
    embeddings = projector(torch.randn(4, model.features_dim))
    assert embeddings.shape == (4, small(name)["proj_output_dim"])
    scores = [head(embeddings) for head in parts.prototype_heads(model.solo)]
    assert [s.shape for s in scores] == [(4, n) for n in PROTOTYPES.get(name, [])]


@pytest.mark.parametrize("name", ALL_METHODS)
def test_momentum_networks_start_alike_and_get_no_gradient(name: str) -> None:
    solo = method(name).solo
    pairs = parts.momentum_pairs(solo)
    there = {n for n, _ in solo.named_children() if n.startswith("momentum_")}
    assert len(pairs) == len(there - {"momentum_classifier", "momentum_updater"})
    for online, momentum in pairs:
        twins = zip(online.parameters(), momentum.parameters(), strict=True)
        assert all(torch.equal(a, b) and not b.requires_grad for a, b in twins)


@pytest.mark.parametrize("name", ALL_METHODS)
def test_everything_with_a_gradient_is_trained_but_the_classifier(name: str) -> None:
    solo = method(name).solo
    grouped = [p for group in parts.trained_groups(solo) for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped})
    learning = {id(p) for p in solo.parameters() if p.requires_grad}
    assert learning <= {id(p) for p in grouped}
    assert not {id(p) for p in solo.classifier.parameters()} & {id(p) for p in grouped}
