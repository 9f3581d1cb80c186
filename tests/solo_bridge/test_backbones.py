"""Backbones by name: solo-learn's, timm's and torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge import SoloMethod
from tests.selfsupervised import ALL_METHODS, VIEW, strategy, stream

needs_main_branch = pytest.mark.skipif(
    "supcon" not in ALL_METHODS, reason="only solo-learn's main branch has this method"
)


@pytest.mark.parametrize(
    ("backbone", "size", "features"),
    [
        ("resnet18", 8, 512),
        ("resnet50", 32, 2048),
        ("vit_tiny", 16, 192),
        ("swin_tiny", 64, 768),
        ("shufflenet_v2_x0_5", 32, 1024),  # torchvision's
        ("mobilenetv3_small_050", 224, 1024),  # timm's
    ],
)
def test_backbones_by_name_and_size(backbone: str, size: int, features: int) -> None:
    model = SoloMethod("simclr", backbone, image_size=size).eval()
    assert model(torch.randn(2, 3, size, size)).shape == (2, features)
    assert model.features_dim == features


def test_images_too_small_for_a_backbone() -> None:
    with pytest.raises(UnknownOptionError, match=r"image_size=16.*cannot take images of this size"):
        SoloMethod("simclr", "vgg11", image_size=16)


@needs_main_branch
@pytest.mark.parametrize(
    ("backbone", "size", "features"),
    [("convnext_tiny", 32, 768), ("poolformer_s12", 32, 512), ("wide_resnet28w2", 32, 128)],
)
def test_backbones_of_the_main_branch(backbone: str, size: int, features: int) -> None:
    model = SoloMethod("simclr", backbone, image_size=size).eval()
    assert model(torch.randn(2, 3, size, size)).shape == (2, features)


def test_torchvision_backbone_in_a_momentum_method() -> None:
    model = SoloMethod("byol", "shufflenet_v2_x0_5", image_size=32)
    online, momentum = model.solo.momentum_pairs[0]
    assert [n for n, _ in online.named_parameters()] == [n for n, _ in momentum.named_parameters()]
    assert isinstance(online.fc, nn.Identity)


def test_vision_transformer_is_branch_tuned_with_linear_branches() -> None:
    torch.manual_seed(0)
    sized = {"img_size": 8, "patch_size": 4}
    model = SoloMethod(
        "simclr", "vit_tiny", image_size=8, augmentations=[VIEW], backbone_kwargs=sized
    )
    plugin = BranchTuningPlugin(
        linear=4, norms=("LayerNorm",), norm_scope="solo", pretrained=True, verbose=False
    )
    run = strategy(model, [plugin], train_epochs=1)
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    run.train(stream().train_stream[0])
    after = model.backbone.state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    summary = plugin.summaries[0]
    assert summary.layers == 1 + 12 * 4, "patch embedding, and qkv, proj, fc1, fc2 of each block"
    assert summary.norms == 25
    assert {k for k in moved if "norm" in k} == set()
    weights = {k for k in before if k.endswith("weight") and "norm" not in k}
    assert weights <= moved
    assert not {k for k in moved if k.endswith("bias")}
