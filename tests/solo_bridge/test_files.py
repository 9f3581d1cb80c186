"""Files as they are read and written: hostile, damaged and interrupted ones."""

from __future__ import annotations

import argparse
import builtins
import collections
import functools
import io
import os
import pathlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from avalanche_branchtune.errors import CheckpointError
from solo_bridge.checkpoint import (
    load_solo_checkpoint,
    save_backbone,
    save_solo_checkpoint,
)
from tests.interruptions import full_disk
from tests.selfsupervised import backbone
from tests.solo_bridge.states import lightning_file, same, trained, values

# ---- reading


def test_old_file_format(tmp_path: Path) -> None:
    source, model = backbone(), backbone()
    torch.save(source.state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    load_solo_checkpoint(model, tmp_path / "a.pt", strict=True)
    assert same(values(model), values(source))


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def hostile(marker: Path) -> dict[str, tuple[Any, str]]:
    """Objects that make a file when they are unpickled, and the name that gives them away."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "system": (Calls(os.system, f"touch {marker}"), "system"),
        "exec": (Calls(exec, code), "builtins.exec"),
        "eval": (Calls(eval, code), "builtins.eval"),
        "open": (Calls(open, str(marker), "w"), "open"),
        "import": (Calls(builtins.__import__, "antigravity"), "__import__"),
        "partial": (Calls(functools.partial(os.system, f"touch {marker}")), "system"),
        "nested": ({"a": [argparse.Namespace(b=Calls(exec, code))]}, "builtins.exec"),
    }


@pytest.mark.parametrize("place", ["beside", "inside", "instead", "raw", "raw_4", "safetensors"])
@pytest.mark.parametrize("kind", list(hostile(Path())))
def test_hostile_files_are_refused_and_run_nothing(tmp_path: Path, kind: str, place: str) -> None:
    marker = tmp_path / "was_run"
    payload, name = hostile(marker)[kind]
    path, state = tmp_path / "a.ckpt", values(backbone())
    if place == "beside":
        lightning_file(path, state, hyper_parameters=payload)
    elif place == "inside":
        lightning_file(path, {**state, "0.weight": payload})
    elif place == "instead":
        torch.save(payload, path)
    else:
        path = path.with_suffix(".safetensors") if place == "safetensors" else path
        path.write_bytes(pickle.dumps(payload, protocol=4 if place == "raw_4" else 2))
    model = backbone()
    before = values(model)
    with pytest.raises(CheckpointError) as error:
        load_solo_checkpoint(model, path)
    assert not marker.exists() and same(values(model), before)
    assert str(path) in str(error.value)
    if not place.startswith(("raw", "safe")):
        assert name in str(error.value) and "weights_only" not in str(error.value)


def beside_the_tensors() -> dict[str, Any]:
    """What solo-learn and Lightning store in real checkpoints."""
    from pytorch_lightning.utilities.parsing import AttributeDict

    cfg = OmegaConf.create({"a": 1, "b": {"c": [1, 2.5, "x", None, True]}, "d": "${a}"})
    optimizer = torch.optim.SGD(backbone().parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    return {
        "omegaconf": {"cfg": cfg, "list": cfg.b.c},
        "namespace": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b")),
        "lightning": AttributeDict(a=1, b=AttributeDict(c=2)),
        "defaultdict": collections.defaultdict(dict, a={"b": 1}),
        "scheduler": {"get_lr": functools.partial(type(scheduler), scheduler.get_lr)},
        "numpy": [np.float64(0.5), np.arange(3), np.dtype("int64")],
    }


@pytest.mark.parametrize("kind", list(beside_the_tensors()))
def test_objects_beside_the_tensors_do_no_harm(tmp_path: Path, kind: str) -> None:
    source, model = backbone(), backbone()
    path = lightning_file(tmp_path / "a.ckpt", values(source), rest=beside_the_tensors()[kind])
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    allowed = set(torch.serialization.get_safe_globals())
    load_solo_checkpoint(model, path, strict=True)
    assert same(values(model), values(source))
    assert set(torch.serialization.get_safe_globals()) == allowed, "nothing stays allowed"


def test_names_that_are_let_through_are_not_called_either(tmp_path: Path) -> None:
    marker, source, model = tmp_path / "was_run", backbone(), backbone()
    rest = Calls(np.savetxt, str(marker), [1.0])
    load_solo_checkpoint(model, lightning_file(tmp_path / "a.ckpt", values(source), rest=rest))
    assert same(values(model), values(source)) and not marker.exists()


def damaged() -> dict[str, tuple[bytes | None, str]]:
    """Contents that cannot be read, and the cause that is to be named."""
    stream = io.BytesIO()
    torch.save({"state_dict": backbone().state_dict()}, stream)
    whole = stream.getvalue()
    return {
        "missing.ckpt": (None, "no such file"),
        "empty.ckpt": (b"", "is empty"),
        "truncated.ckpt": (whole[: len(whole) // 2], "damaged"),
        "text.ckpt": (b"version https://git-lfs.github.com/spec/v1", "damaged"),
        "text.safetensors": (b"nothing of the kind", "damaged"),
        "truncated.pth": (whole[:10], "damaged"),
    }


@pytest.mark.parametrize("name", list(damaged()))
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    content, cause = damaged()[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=cause) as error:
        load_solo_checkpoint(backbone(), path)
    assert str(path) in str(error.value)
    assert "weights_only" not in str(error.value), "no advice to trust a file that is no checkpoint"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([torch.ones(2)], "list"),
        ({"epoch": 1, "model": {"0.weight": torch.ones(2)}}, "dict with epoch, model"),
        ({"state_dict": {}}, "dict with state_dict"),
        (torch.ones(2), "Tensor"),
    ],
)
def test_files_without_named_tensors_are_refused(tmp_path: Path, content: Any, named: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=f"holds no tensors by name: {named}"):
        load_solo_checkpoint(backbone(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no such file"):
        load_solo_checkpoint(backbone(), tmp_path)


def test_whole_modules_are_refused(tmp_path: Path) -> None:
    torch.save(backbone(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.") as error:
        load_solo_checkpoint(backbone(), tmp_path / "a.pt")
    assert "weights_only" not in str(error.value)


# ---- writing


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_shared_and_strided_tensors_are_written_whole(tmp_path: Path, suffix: str) -> None:
    def net() -> nn.Sequential:
        tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        tied[1].weight = tied[0].weight
        return tied

    source, model = net(), net()
    with torch.no_grad():
        wide = torch.randn(1000, 1000)
        source[0].weight.set_(wide[:3, :3].t())  # type: ignore[call-overload]
    path = save_backbone(source, tmp_path / f"a{suffix}")
    assert path.stat().st_size < 10_000, "not the memory that a tensor is a view of"
    load_solo_checkpoint(model, path, strict=True)
    assert same(values(model), values(source))
    assert model[1].weight is model[0].weight


@pytest.mark.skipif(sys.platform == "win32", reason="limits files as Unix does")
def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    first, second = trained(seed=1), trained(seed=2)
    for path, save in (
        (tmp_path / "a.ckpt", save_solo_checkpoint),
        (tmp_path / "a.pt", save_backbone),
    ):
        save(first, path)
        content = path.read_bytes()
        names = sorted(os.listdir(tmp_path))

        with pytest.raises(OSError, match="too large"), full_disk(600):
            save(second, path)
        assert path.read_bytes() == content and sorted(os.listdir(tmp_path)) == names
        other = path.with_name(f"{path.name}.link")
        os.link(path, other)
        save(second, path)
        assert path.read_bytes() != content
        assert other.read_bytes() == content, "the old file was replaced, not written over"
