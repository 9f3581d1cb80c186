"""Stability and plasticity of networks, layer by layer, against features taken by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.models import resnet18

from avalanche_branchtune.analysis import (
    MinibatchCKA,
    analysed_layers,
    layerwise_cka,
    stability_plasticity,
)
from avalanche_branchtune.analysis.stability import cka_of_grams, layer_grams
from avalanche_branchtune.errors import ProbeError, UnknownOptionError


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3)
        self.spare = nn.Conv2d(6, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.bn1(self.conv1(x)).relu()).mean((2, 3))


def images(samples: int = 66, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 3, 8, 8, generator=generator)
    return TensorDataset(x, torch.zeros(samples, dtype=torch.long))


LAYERS = ["conv1", "bn1", "conv2"]


def test_layers_against_features_taken_by_hand() -> None:
    model, other, data = Net(), Net(1), images(64)
    found = layerwise_cka(model, other, data, layers=LAYERS, batch_size=32)
    expected = {name: MinibatchCKA() for name in LAYERS}
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    for batch in data.tensors[0][order].split(32):
        taken = []
        for net in (model.eval(), other.eval()):
            a = net.conv1(batch)
            b = net.bn1(a)
            taken.append((a, b, net.conv2(b.relu())))
        for name, a, b in zip(LAYERS, *taken, strict=True):
            expected[name].update(a, b)
    assert found == pytest.approx({n: e.compute() for n, e in expected.items()}, rel=1e-9)
    mine, theirs = (layer_grams(net, data, LAYERS, batch_size=32) for net in (model, other))
    assert cka_of_grams(mine, theirs) == pytest.approx(found, rel=1e-12)
    assert not any(m._forward_hooks for m in model.modules())


def test_the_order_of_the_images_does_not_matter_much() -> None:
    """Sorted by class, minibatches of one class each would hide what tells classes apart."""
    model, other, data = Net(), Net(1), images(256)
    x = data.tensors[0] + 3 * torch.arange(256).div(64, rounding_mode="floor").view(-1, 1, 1, 1)
    mixed = torch.randperm(256, generator=torch.Generator().manual_seed(5))
    by_class = layerwise_cka(model, other, TensorDataset(x), layers=LAYERS, batch_size=64)
    shuffled = layerwise_cka(model, other, TensorDataset(x[mixed]), layers=LAYERS, batch_size=64)
    assert by_class == pytest.approx(shuffled, abs=0.01)


def test_stability_and_plasticity_point_at_what_changed() -> None:
    before, joint = Net(), Net(5)
    model = copy.deepcopy(before).train()
    with torch.no_grad():
        model.conv2.weight.copy_(joint.conv2.weight)
    result = stability_plasticity(
        model,
        old_reference=before,
        old_data=images(),
        new_reference=joint,
        new_data=images(seed=3),
        layers=LAYERS,
        batch_size=64,
    )
    assert result.stability["conv1"] == pytest.approx(1.0)
    assert result.stability["conv2"] < 0.99
    assert result.plasticity["conv1"] < 0.99
    assert result.mean_stability == pytest.approx(sum(result.stability.values()) / 3)
    assert result.mean_stability > result.mean_plasticity
    assert "66 old and 66 new images" in result.protocol
    assert model.training, "modes are put back"


def test_other_names_in_the_reference() -> None:
    found = layerwise_cka(Net(), Net(), images(), layers={"conv1": "conv1", "bn1": "conv1"})
    assert found["conv1"] == pytest.approx(1.0)
    assert set(found) == {"conv1", "bn1"}


def test_bad_layers_and_data() -> None:
    with pytest.raises(UnknownOptionError, match=r"no \['conv9'\].*conv1"):
        layerwise_cka(Net(), Net(), images(), layers=["conv9"])
    with pytest.raises(ProbeError, match=r"\['spare'\] of Net were not called"):
        layerwise_cka(Net(), Net(), images())
    with pytest.raises(ProbeError, match="at least 4 samples"):
        layerwise_cka(Net(), Net(), images(3), layers=LAYERS)
    with pytest.raises(ProbeError, match="empty"):
        layerwise_cka(Net(), Net(), images(0), layers=LAYERS)


def test_layers_of_a_resnet() -> None:
    names = analysed_layers(resnet18())
    assert names[:2] == ["conv1", "bn1"]
    assert {"layer1.0", "layer4.1", "layer2.0.downsample.0"} <= set(names)
    assert len(names) == 20 + 20 + 8
