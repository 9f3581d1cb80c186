"""Backbones for other programs: named as they expect, read back, and compared."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import list_models

from avalanche_branchtune.errors import CheckpointError, UnknownOptionError
from avalanche_branchtune.keeping import looked_at
from avalanche_branchtune.options import one_of
from solo_bridge.backbones import of_timm, of_torchvision
from solo_bridge.checkpoint import load_solo_checkpoint, save_backbone, save_solo_checkpoint
from solo_bridge.compat import load
from solo_bridge.files import CHECKPOINT, WEIGHTS, read_tensors, refuse_suffix
from solo_bridge.trained import Trained, random_images

FORMATS: Mapping[str, tuple[str, ...]] = {
    "solo-learn": CHECKPOINT,
    "torchvision": WEIGHTS,
    "timm": WEIGHTS,
    "safetensors": (".safetensors",),
    "onnx": (".onnx",),
}
"""Format → suffixes of its files."""

CLOSE = 1e-5
"""How far ONNX's outputs may be from torch's, absolutely and relatively."""

OPSET = 18
ARGS = "args.json"
"""File beside solo-learn's checkpoints that says how they are built."""


def export(network: Trained, out: str | Path, form: str, *, generation: str = "main") -> str:
    """Write a backbone for another program, and compare what that computes with what it does.

    The file takes its place only if the outputs on random images are the same: bit for bit for
    weights, to :data:`CLOSE` for ONNX.

    :param network: what is written.
    :param out: the file; its folder is made.
    :param form: one of :data:`FORMATS`.
    :param generation: of solo-learn, see :func:`~solo_bridge.save_solo_checkpoint`.
    :return: how it was compared.
    :raises CheckpointError: for another suffix, for outputs that differ, for a backbone that the
        other program does not have, and for a folder with the ``args.json`` of another one.
    :raises UnknownOptionError: for another format, and one that needs what is not installed.
    """
    path = Path(out)
    one_of("--format", form, FORMATS)
    refuse_suffix(path, FORMATS[form])
    path.parent.mkdir(parents=True, exist_ok=True)
    network.backbone.cpu()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        written = Path(folder) / path.name
        if form == "solo-learn":
            said = _solo_learn(network, written, generation)
        elif form == "onnx":
            said = _onnx(network, written)
        else:
            save_backbone(network.backbone, written)
            build = {"torchvision": _of_torchvision, "timm": _of_timm}.get(form, _of_bridge)
            said = _weights(network, written, build)
        _refuse_others(path, Path(folder) / ARGS)
        for file in sorted(Path(folder).iterdir(), reverse=True):  # args.json after the .ckpt
            os.replace(file, path.with_name(file.name))
    return said


def _refuse_others(path: Path, described: Path) -> None:
    """Refuse to replace what says of other checkpoints how they are to be built."""
    there = path.with_name(ARGS)
    others = sorted(other.name for other in path.parent.glob("*.ckpt") if other.name != path.name)
    if not (others and described.exists() and there.exists()):
        return
    if json.loads(described.read_bytes()) != json.loads(there.read_bytes()):
        raise CheckpointError(
            f"{there} is of {others[0]}, and would be replaced: export to a folder of its own"
        )


def _solo_learn(network: Trained, path: Path, generation: str) -> str:
    names = load().backbone_names()
    if network.name not in names:
        raise CheckpointError(
            f"{network.path}: solo-learn cannot build {network.name}; it has {', '.join(names)}: "
            "export safetensors instead"
        )
    save_solo_checkpoint(network.method, path, generation=generation, only_backbone=True)
    again = network.architecture.build().backbone
    load_solo_checkpoint(again, path, strict=True)
    return _same(network, again)


def _weights(network: Trained, path: Path, build: Callable[[Trained], nn.Module]) -> str:
    again = build(network)
    found, own = read_tensors(path), again.state_dict()
    if {n: t.shape for n, t in found.items()} != {n: t.shape for n, t in own.items()}:
        other = sorted(found.keys() ^ own.keys())[:3]
        raise CheckpointError(
            f"{network.path}: the weights of {network.name} are named or shaped otherwise there "
            f"({', '.join(other) or 'other shapes'}): export safetensors instead"
        )
    again.load_state_dict(found)
    return _same(network, again)


def _of_bridge(network: Trained) -> nn.Module:
    return network.architecture.build().backbone


def _of_torchvision(network: Trained) -> nn.Module:
    if network.name not in list_models(module=models):
        raise _unknown(network, "torchvision")
    return _with_stem(of_torchvision(network.name, network.architecture.kwargs), network)


def _of_timm(network: Trained) -> nn.Module:
    import timm

    name = network.name  # solo-learn makes its own transformers known to timm
    if not timm.is_model(name) or not timm.model_entrypoint(name).__module__.startswith("timm."):
        raise _unknown(network, "timm")
    return _with_stem(of_timm(name, network.size, network.architecture.kwargs), network)


def _unknown(network: Trained, program: str) -> CheckpointError:
    return CheckpointError(
        f"{network.path}: {program} has no model {network.name}: export safetensors instead"
    )


def stem_of(network: Trained) -> str:
    """Return what must be done to another program's ResNet before it takes the weights.

    :param network: with a stem for small images.
    :return: Python statements for a ``model``; nothing for a usual stem.
    """
    conv = getattr(network.backbone, "conv1", None)
    if not isinstance(getattr(network.backbone, "maxpool", None), nn.Identity):
        return ""
    assert isinstance(conv, nn.Conv2d)
    size, stride, padding = (values[0] for values in (conv.kernel_size, conv.stride, conv.padding))
    return (
        f"model.conv1 = nn.Conv2d({conv.in_channels}, {conv.out_channels}, {size}, {stride}, "
        f"{padding}, bias={conv.bias is not None}); model.maxpool = nn.Identity()"
    )


def _with_stem(made: nn.Module, network: Trained) -> nn.Module:
    if stem_of(network):
        made.conv1 = deepcopy(network.backbone.conv1)
        made.maxpool = nn.Identity()
    return made


def _same(network: Trained, again: nn.Module) -> str:
    images = random_images(network.size)
    expected, found = _outputs(network.backbone, images), _outputs(again, images)
    if not torch.equal(expected, found):
        most = (expected - found).abs().max() if expected.shape == found.shape else "another shape"
        raise CheckpointError(
            f"{network.path}: read back, {network.name} gives other outputs there (difference: "
            f"{most}): export safetensors instead"
        )
    return f"read back: outputs bit-equal on {len(images)} random images of {network.size} pixels"


def _outputs(backbone: nn.Module, images: Tensor) -> Tensor:
    with looked_at(backbone):
        outputs: Tensor = backbone(images)
    return outputs


def _onnx(network: Trained, path: Path) -> str:
    lacking = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if lacking:
        raise UnknownOptionError(
            f"--format onnx: {' and '.join(lacking)} not installed: pip install "
            "'avalanche-branchtune[onnx]'"
        )
    if "dynamo" not in signature(torch.onnx.export).parameters:
        raise UnknownOptionError(
            f"--format onnx: needs torch 2.5 or later; this is {torch.__version__}"
        )
    images = random_images(network.size)
    backbone = deepcopy(network.backbone).eval()
    options: dict[str, Any] = {
        "input_names": ["images"],
        "output_names": ["features"],
        "opset_version": OPSET,
        "dynamo": True,
        "external_data": False,
        "dynamic_shapes": ({0: torch.export.Dim("batch")},),
        "verbose": False,
    }
    try:
        torch.onnx.export(backbone, (images,), path, **options)
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{network.path}: torch cannot write {network.name} as ONNX: {reason}"
        ) from error
    if find_spec("onnxruntime") is None:
        return "not compared: onnxruntime is not installed"
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = random_images(network.size, 3)  # another number of images than it was traced with
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    expected = _outputs(network.backbone, images)
    most = (found - expected).abs().max().item()
    if not torch.allclose(found, expected, rtol=CLOSE, atol=CLOSE):
        raise CheckpointError(f"{network.path}: as ONNX its outputs differ by up to {most:.2g}")
    return f"by onnxruntime {onnxruntime.__version__}: outputs differ by up to {most:.2g}"
