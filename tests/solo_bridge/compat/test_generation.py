"""Methods as the adapters build them, whatever the generation."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from solo_bridge import SoloMethod
from tests.selfsupervised import METHODS, backbone, method


@pytest.mark.parametrize("name", METHODS)
def test_method_can_be_copied_and_pickled(name: str) -> None:
    model = method(name).eval()
    views = [torch.randn(6, 3, 8, 8) for _ in range(2)]
    expected = model.loss(views)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.loss(views), expected)
        with torch.no_grad():
            twin.backbone[0].weight.zero_()
        assert torch.equal(model.loss(views), expected)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("size", "stem"), [(32, (3, 3)), (96, (7, 7))])
def test_resnet_stem_follows_the_image_size(name: str, size: int, stem: tuple[int, int]) -> None:
    net = SoloMethod(name, "resnet18", image_size=size, num_classes=10)
    assert net.backbone.conv1.kernel_size == stem
    assert net.features_dim == 512
    assert net.eval()(torch.randn(2, 3, size, size)).shape == (2, 512)


def test_own_backbone_is_used_itself_and_copied_for_momentum() -> None:
    own = backbone()
    model = SoloMethod("byol", own, image_size=8)
    assert model.backbone is own
    online, momentum = model.solo.momentum_pairs[0]
    assert online is own
    assert momentum is not own
    pairs = zip(own.parameters(), momentum.parameters(), strict=True)
    assert all(torch.equal(a, b) and b is not a for a, b in pairs)
    assert model.features_dim == 8
