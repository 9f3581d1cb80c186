"""Backbones for other programs: their own readers take the files, and compute the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from avalanche_branchtune.errors import CheckpointError, UnknownOptionError
from solo_bridge import SoloMethod, exporting, save_solo_checkpoint
from solo_bridge.checkpoint import save_backbone
from solo_bridge.exporting import export, stem_of
from solo_bridge.trained import Trained, trained
from tests.solo_bridge.test_trained import resnet18, small

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("exported")
    return trained(save_backbone(resnet18(cifar_stem=False).backbone, folder / "a.pt"))


@pytest.fixture(scope="module")
def with_stem(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("exported")
    return trained(save_backbone(resnet18().backbone, folder / "a.pt"), size=8)


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(X)


@pytest.mark.slow
def test_torchvision_and_timm_read_what_is_written_for_them(
    network: Trained, tmp_path: Path
) -> None:
    for form, suffix in (("torchvision", "pth"), ("timm", "safetensors")):
        said = export(network, tmp_path / f"{form}.{suffix}", form)
        assert said == "read back: outputs bit-equal on 4 random images of 32 pixels"
    model = torchvision.models.resnet18()
    lacking = model.load_state_dict(torch.load(tmp_path / "torchvision.pth"), strict=False)
    assert lacking.missing_keys == ["fc.weight", "fc.bias"] and not lacking.unexpected_keys
    model.fc = nn.Identity()
    assert torch.equal(outputs(model), outputs(network.backbone))
    path = str(tmp_path / "timm.safetensors")
    other = timm.create_model("resnet18", num_classes=0, checkpoint_path=path)
    assert torch.equal(outputs(other), outputs(network.backbone))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["timm.safetensors", "torchvision.pth"]


def test_a_stem_for_small_images_is_told_as_code(with_stem: Trained, tmp_path: Path) -> None:
    export(with_stem, tmp_path / "a.pt", "torchvision")
    model = torchvision.models.resnet18()
    assert stem_of(with_stem).startswith("model.conv1 = nn.Conv2d(3, 64, 3, 1, 2, bias=False);")
    exec(stem_of(with_stem), {"model": model, "nn": nn})
    model.load_state_dict(torch.load(tmp_path / "a.pt"), strict=False)
    model.fc = nn.Identity()
    assert torch.equal(outputs(model), outputs(with_stem.backbone))


@pytest.mark.parametrize(
    ("generation", "key"),
    [("main", "backbone"), pytest.param("1.0.2", "encoder", marks=pytest.mark.slow)],
)
def test_solo_learn_gets_a_checkpoint_of_the_backbone_alone(
    with_stem: Trained, tmp_path: Path, generation: str, key: str
) -> None:
    export(with_stem, tmp_path / "a.ckpt", "solo-learn", generation=generation)
    state = torch.load(tmp_path / "a.ckpt", weights_only=False)["state_dict"]
    assert {n.split(".")[0] for n in state} == {key}
    own = with_stem.backbone.state_dict()
    assert all(torch.equal(state[f"{key}.{n}"], t) for n, t in own.items())
    args = json.loads((tmp_path / "args.json").read_text())
    assert "resnet18" in (args.get("encoder"), args.get("backbone", {}).get("name"))
    export(with_stem, tmp_path / "b.ckpt", "solo-learn", generation=generation)
    (tmp_path / "args.json").write_text(json.dumps({**args, "wandb": True}))
    with pytest.raises(CheckpointError, match=r"args.json is of a.ckpt, and would be replaced"):
        export(with_stem, tmp_path / "b.ckpt", "solo-learn", generation=generation)


def test_nothing_is_written_that_another_program_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = trained(save_backbone(small(), tmp_path / "small.pt"), size=8)
    for form, name in (("torchvision", "a.pt"), ("timm", "a.pt"), ("solo-learn", "a.ckpt")):
        with pytest.raises(CheckpointError, match=r"small_resnet\(4\).*export safetensors instead"):
            export(other, tmp_path / "out" / name, form)
    with pytest.raises(CheckpointError, match=r"expected a name ending in .safetensors"):
        export(other, tmp_path / "out" / "a.pt", "safetensors")
    with pytest.raises(UnknownOptionError, match=r"did you mean timm\?"):
        export(other, tmp_path / "out" / "a.pt", "tim")
    build = exporting._of_bridge

    def wrong(network: Trained) -> nn.Module:
        model: Any = build(network)
        model[2] = nn.Tanh()
        return model

    monkeypatch.setattr(exporting, "_of_bridge", wrong)
    with pytest.raises(CheckpointError, match="gives other outputs there"):
        export(other, tmp_path / "out" / "a.safetensors", "safetensors")
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    said = export(other, tmp_path / "out" / "a.safetensors", "safetensors")
    assert said == "read back: outputs bit-equal on 4 random images of 8 pixels"


def test_onnx_needs_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained(save_backbone(small(), tmp_path / "small.pt"), size=8)
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(UnknownOptionError, match=r"onnx and onnxscript not installed: .*\[onnx\]"):
        export(network, tmp_path / "a.onnx", "onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["small.pt"]


@pytest.mark.slow
def test_transformers_of_timm_and_of_solo_learn(tmp_path: Path) -> None:
    """solo-learn makes its own known to timm, which has none of them by itself."""
    name, size = "vit_tiny_patch16_224", {"img_size": 32}
    made = timm.create_model(name, num_classes=0, **size)
    path = save_backbone(made, tmp_path / "a.pt")
    found = trained(path, backbone=name, size=32)
    assert torch.equal(outputs(found.backbone), outputs(made))
    export(found, tmp_path / "b.pt", "timm")
    again = timm.create_model(name, num_classes=0, checkpoint_path=str(tmp_path / "b.pt"), **size)
    assert torch.equal(outputs(again), outputs(made))
    own = SoloMethod("simclr", "vit_tiny", image_size=32, proj_hidden_dim=4, proj_output_dim=4)
    other = trained(save_solo_checkpoint(own, tmp_path / "c.ckpt"))
    with pytest.raises(CheckpointError, match="timm has no model vit_tiny: export safetensors"):
        export(other, tmp_path / "d.pt", "timm")
    export(other, tmp_path / "d" / "d.ckpt", "solo-learn")


@pytest.mark.slow
def test_onnx_computes_what_torch_does(with_stem: Trained, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    said = export(with_stem, tmp_path / "a.onnx", "onnx")
    assert said.startswith("by onnxruntime")
    session = runtime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = with_stem.backbone.eval()(x)
    found = torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
