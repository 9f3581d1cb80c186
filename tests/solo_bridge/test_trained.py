"""Backbones of checkpoints: whose they are, and that all of their tensors are the checkpoint's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avalanche_branchtune import compress, expand
from avalanche_branchtune.errors import CheckpointError, UnknownOptionError
from solo_bridge import SoloMethod, save_solo_checkpoint
from solo_bridge.backbones import small_resnet
from solo_bridge.checkpoint import save_backbone
from solo_bridge.trained import Architecture, _told, trained
from tests.solo_bridge.states import lightning_file, values

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def small(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return small_resnet(4).eval()


def resnet18(size: int = 8, **settings: Any) -> SoloMethod:
    torch.manual_seed(1)
    sizes = {"proj_hidden_dim": 4, "proj_output_dim": 4}
    return SoloMethod("simclr", "resnet18", image_size=size, **sizes, **settings).eval()


def features(backbone: nn.Module) -> Tensor:
    with torch.no_grad():
        return backbone.eval()(X)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_small_resnet_is_known_by_its_tensors(tmp_path: Path, suffix: str) -> None:
    backbone = small()
    found = trained(save_backbone(backbone, tmp_path / f"a.{suffix}"), size=8)
    assert (found.name, found.size) == ("small_resnet(4)", 8)
    assert torch.equal(features(found.backbone), features(backbone))


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["main", "1.0.2"])
@pytest.mark.parametrize("stem", [True, False])
def test_a_resnet_of_solo_learn_with_either_stem(
    tmp_path: Path, generation: str, stem: bool
) -> None:
    method = resnet18(cifar_stem=stem)
    path = save_solo_checkpoint(method, tmp_path / "a.ckpt", generation=generation)
    assert _told(path).name == "resnet18"
    (tmp_path / "args.json").unlink()
    found = trained(path)
    assert (found.name, found.size) == ("resnet18", 32), "by its tensors"
    assert torch.equal(features(found.backbone), features(method.backbone))


def test_what_is_said_beside_a_file_and_in_it(tmp_path: Path) -> None:
    """As solo-learn's main branch, its release and CaSSLe write it."""
    said = {"encoder": "resnet18", "crop_size": [8], "cifar": True, "method": "byol"}
    path = lightning_file(tmp_path / "a.ckpt", {"x": torch.ones(1)}, hyper_parameters=said)
    assert _told(path) == Architecture("resnet18", 8, method="byol")
    kwargs = {"patch_size": 4}
    args = {
        "backbone": {"name": "vit_tiny", "kwargs": kwargs},
        "augmentations": [{"crop_size": 16, "mean": [0.1] * 3, "std": [0.2] * 3}],
    }
    (tmp_path / "args.json").write_text(json.dumps(args))
    normalised = ((0.1,) * 3, (0.2,) * 3)
    assert _told(path) == Architecture("vit_tiny", 16, kwargs, normalised=normalised)
    args = {"encoder": "resnet18", "crop_size": 8, "dataset": "imagenet100"}
    (tmp_path / "args.json").write_text(json.dumps(args))
    of_data = _told(path).normalised
    assert of_data is not None and of_data[0] == (0.485, 0.456, 0.406)
    args = {"encoder": "vit_tiny", "backbone_args": {"img_size": 8, "cifar": True}}
    (tmp_path / "args.json").write_text(json.dumps(args))
    assert _told(path) == Architecture("vit_tiny", 8, {"img_size": 8})
    for unknown in ("{", "[]", '{"backbone": "Sequential"}'):
        (tmp_path / "args.json").write_text(unknown)
        assert _told(path) == Architecture()


def test_an_expanded_network_is_compressed(tmp_path: Path) -> None:
    backbone = small()
    expand(backbone)
    with torch.no_grad():
        for name, p in backbone.named_parameters():
            if "branch_" in name:
                p.normal_(generator=torch.Generator().manual_seed(len(name)))
    torch.save(backbone.state_dict(), tmp_path / "a.pt")
    found = trained(tmp_path / "a.pt", size=8).backbone
    compress(backbone)
    assert torch.equal(features(found), features(backbone))
    broken = dict(torch.load(tmp_path / "a.pt"))
    broken["0.branch_1x1"] = torch.zeros(3)
    torch.save(broken, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"b.pt: 0.weight: .*branch_1x1 cannot be merged"):
        trained(tmp_path / "b.pt")


def test_another_backbones_file_is_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"of which backbone\?.*a.weight.*\(--backbone\)"):
        trained(tmp_path / "a.pt")
    torch.save({**values(small()), "8.conv1.weight": torch.ones(1)}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"unknown to the model: 8.conv1.weight"):
        trained(tmp_path / "b.pt", size=8)
    torch.save({**values(small()), "0.clr_map": torch.ones(1)}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"a network that CLR reprogrammed"):
        trained(tmp_path / "b.pt", size=8)
    path = save_backbone(small(), tmp_path / "c.pt")
    with pytest.raises(UnknownOptionError, match="nobody"):
        trained(path, backbone="nobody")
    lacking = values(small())
    del lacking["5.conv2.weight"]
    torch.save(lacking, tmp_path / "d.pt")
    with pytest.raises(CheckpointError, match=r"missing in the file: 5.conv2.weight"):
        trained(tmp_path / "d.pt", size=8)
    with pytest.raises(UnknownOptionError, match="device 'nowhere' cannot be used"):
        trained(path, size=8).to("nowhere")
