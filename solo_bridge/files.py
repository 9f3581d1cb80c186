"""Files of tensors: read as data, written whole or not at all.

Nothing in a file is ever imported or called, see :mod:`solo_bridge.archives`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune.checkpoints.files import INDEX
from avalanche_branchtune.checkpoints.weights import saved_weights
from avalanche_branchtune.errors import CheckpointError
from avalanche_branchtune.writing import write_text, write_whole
from solo_bridge.archives import Stored, opened

SHOWN = 5
"""Number of names that a message lists of each kind."""

CHECKPOINT = (".ckpt",)
WEIGHTS = (".pt", ".pth", ".safetensors")
"""Suffixes of files with a whole method, and with tensors alone."""

MOST_SHARED = 64
"""How often the tensors of a file may have its size: those of tied layers share their numbers."""

METHOD = "solo."
"""What the names of a method's tensors begin with where a strategy trains it."""

CHECKSUM = "sha256 of tensors"
"""Where our files have :func:`checksum`: a key of a ``.ckpt``, metadata of ``.safetensors``.

In a ``.pt`` there is no room for it that other libraries would not take for a tensor; the
archive's own checksums are there.
"""


# ---- reading


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name.

    :param path: the file, or the folder of a run with checkpoints, for its network as it was last
        saved.
    :return: name → tensor, dense and on the CPU.
    :raises CheckpointError: naming file and cause; for a file whose checksum
        does not agree with its tensors.
    """
    if (path / INDEX).exists():
        return {name.removeprefix(METHOD): t for name, t in saved_weights(path).items()}
    if not path.is_file():
        inside = sorted(path.glob("*.ckpt"))
        why = ", but a folder without checkpoints of a run" if path.is_dir() else ""
        why += f": give the file, as {inside[-1]}" if inside else ""
        raise CheckpointError(f"{path}: there is no such file{why}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty")
    try:
        tensors, told = (_safetensors if path.suffix == ".safetensors" else _torch)(path)
    except CheckpointError:
        raise
    except Exception as error:  # damaged files fail in a great many ways
        cause = (str(error).strip().splitlines() or ["no details"])[0]
        raise CheckpointError(
            f"{path} is damaged, or no checkpoint of torch.save or safetensors: "
            f"{type(error).__name__}: {cause}"
        ) from error
    if told is not None and told != checksum(tensors):
        raise CheckpointError(
            f"{path}: its tensors are not those that it was written with: the file is damaged. "
            f"If you changed them yourself, remove {CHECKSUM!r} from it"
        )
    return tensors


def _safetensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, framework="pt") as file:
        told = (file.metadata() or {}).get(CHECKSUM)
    tensors = load_file(path)
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors by name")
    return tensors, told


def _torch(path: Path) -> tuple[dict[str, Tensor], Any]:
    with opened(path) as archive:
        if archive.refused:
            raise CheckpointError(
                f"{path} was not loaded: it holds more than tensors, and reading the rest would "
                f"run {some(sorted(archive.refused))}. Have its tensors alone written to another "
                "file, where it was made: torch.save(model.state_dict(), …)"
            )
        content = archive.content
        state = content.get("state_dict", content) if isinstance(content, dict) else content
        named = state.items() if isinstance(state, dict) else ()
        stored = {k: t for k, t in named if isinstance(k, str) and isinstance(t, Stored)}
        if not stored:
            keys = f" with {some(list(content))}" if isinstance(content, dict) else ""
            kind = "Tensor" if isinstance(content, Stored) else type(content).__name__
            raise CheckpointError(f"{path} holds no tensors by name: {kind}{keys}")
        for name, tensor in stored.items():
            if tensor.kind:
                raise CheckpointError(
                    f"{path}: {name} is a {tensor.kind} tensor: write it as a dense one"
                )
        size = sum(math.prod(t.size) * t.dtype.itemsize for t in stored.values())
        if size > MOST_SHARED * archive.size:
            raise CheckpointError(f"{path}: tensors of {size} bytes in {archive.size} of the file")
        tensors = {name: archive.tensor(tensor) for name, tensor in stored.items()}
    return tensors, content.get(CHECKSUM)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return a number that differs between tensors of other names, types, shapes or bytes.

    :param tensors: dense ones, in any order.
    :return: SHA-256 in hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        tensor = tensor if tensor.is_meta else tensor.cpu()
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        if not tensor.is_meta:  # which has no bytes
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def some(names: Any) -> str:
    """Return the first names of a list, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more


# ---- writing


def refuse_suffix(path: Path, known: tuple[str, ...]) -> None:
    """Refuse a name by which nothing would recognise the file.

    :param path: the file.
    :param known: suffixes.
    :raises CheckpointError: for another one.
    """
    if path.suffix not in known:
        raise CheckpointError(f"{path}: expected a name ending in {' or '.join(known)}")


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state without what is no tensor.

    :param module: any module.
    :return: name → tensor, in the module's memory.
    """
    return {n: t for n, t in module.state_dict().items() if isinstance(t, Tensor)}


def portable(module: nn.Module, device: str | torch.device | None = "cpu") -> dict[str, Tensor]:
    """Return a module's tensors on one device, none of which shares memory.

    :param module: any module.
    :param device: where they are to be; None for where they are.
    :return: name → copy.
    """
    return {
        n: t.detach().to(device).clone(memory_format=torch.contiguous_format)
        for n, t in tensors(module).items()
    }


def write(content: Any, path: Path) -> None:
    """Write a file in the format of its suffix; its folder is made.

    :param content: a value for ``.json``; tensors by name for ``.safetensors``;
        for any other suffix, what ``torch.save`` takes.
    :param path: the file; one that is there is replaced when all went well.
    :raises OSError: if it cannot be written, as for a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        write_text(path, json.dumps(content, indent=2, default=str))
    elif path.suffix == ".safetensors":
        from safetensors.torch import save

        metadata = {"format": "pt", CHECKSUM: checksum(content)}
        write_whole(path, lambda file: file.write(save(content, metadata)))
    else:
        write_whole(path, partial(torch.save, content))
