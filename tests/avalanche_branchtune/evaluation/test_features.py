"""Features of a frozen network: what gives none, and when they are computed again."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation import FeatureCache, extract_features, knn_probe
from avalanche_branchtune.evaluation.features import fingerprint
from tests.avalanche_branchtune.evaluation.labelled import TEST, TRAIN


class Counting(nn.Flatten):
    """Features are the pixels; counts the images that it has seen."""

    images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return super().forward(x)


def test_features_are_computed_once_for_each_model_and_data_set() -> None:
    model, cache = Counting(), FeatureCache()
    for _ in range(3):
        knn_probe(model, TRAIN[0], TEST[0], k=3, cache=cache)
        knn_probe(model, TRAIN[0], TEST[0], k=5, distance="euclidean", cache=cache)
    assert model.images == 40 + 30 and len(cache) == 2
    knn_probe(model, TRAIN[0], TEST[0], k=3)
    assert model.images == 2 * 70, "without a cache nothing is kept"


def test_a_trained_model_is_another_one() -> None:
    model, cache = nn.Sequential(nn.Flatten(), nn.Linear(8, 4)), FeatureCache()
    before = cache.features(model, TRAIN[0])[0].clone()
    with torch.no_grad():
        model[1].weight[0, 0] += 1e-3
    after = cache.features(model, TRAIN[0])[0]
    assert not torch.equal(before, after)
    assert torch.equal(after, extract_features(model, TRAIN[0])[0])
    assert fingerprint(nn.Conv2d(1, 1, 1, stride=1)) != fingerprint(nn.Conv2d(1, 1, 1, stride=2))


def test_the_cache_is_bounded() -> None:
    cache = FeatureCache(max_mib=50 * 8 * 4 / 1024**2)  # 50 samples of 8 features, labels extra
    for data in TRAIN:
        cache.features(nn.Flatten(), data)
    assert len(cache) == 1
    cache.features(nn.Flatten(), TRAIN[-1])
    assert cache.mib == (40 * 8 * 4 + 40 * 8) / 1024**2


def test_a_data_set_at_the_address_that_another_had() -> None:
    """As in a run that goes on in another process, with the cache of the one that ended."""
    model, cache = nn.Flatten(), FeatureCache()
    features = cache.features(model, TRAIN[0])
    ((key, _),) = cache._kept
    cache._kept = OrderedDict({(key, id(TRAIN[1])): (TRAIN[0], *features)})
    expected = extract_features(model, TRAIN[1])
    assert not torch.equal(features[0], expected[0])
    found = cache.features(model, TRAIN[1])
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_images_that_are_no_tensors() -> None:
    images = [(Image.new("RGB", (4, 4)), 0)] * 4
    with pytest.raises(ProbeError, match="eval_transform"):
        knn_probe(nn.Flatten(), images, images, k=1)


def test_a_list_of_views_is_refused() -> None:
    views = [([torch.zeros(3, 4, 4)] * 2, 0)] * 4
    with pytest.raises(ProbeError, match="one view"):
        extract_features(nn.Flatten(), views)


def test_features_of_networks_that_are_gone_are_dropped() -> None:
    model, cache = nn.Sequential(nn.Flatten(), nn.Linear(8, 4)), FeatureCache()
    data = [TensorDataset(torch.randn(6, 8), torch.arange(6)) for _ in range(3)]
    for _ in range(5):
        nn.init.normal_(model[1].weight)  # it is trained
        first = [cache.features(model, d)[0] for d in data]
        assert all(cache.features(model, d)[0] is f for d, f in zip(data, first, strict=True))
    assert len(cache) == 2 * len(data), "of two networks"
