"""Files of tensors: read as data, written whole or not at all.

Nothing in a file is ever imported or called, see :func:`read_tensors`.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from avalanche_branchtune.errors import CheckpointError

SHOWN = 5
"""Number of names that a message lists of each kind."""

CHECKPOINT = (".ckpt",)
WEIGHTS = (".pt", ".pth", ".safetensors")
"""Suffixes of files with a whole method, and with tensors alone."""

# Where the classes come from that real checkpoints hold beside tensors: hyper-parameters of
# OmegaConf or argparse, schedulers (solo-learn's SimSiam stores a whole one), callbacks.
_HARMLESS = frozenset(
    {"argparse", "collections", "functools", "lightning", "lightning_fabric", "numpy", "omegaconf"}
    | {"pathlib", "pytorch_lightning", "solo", "torch.optim", "typing"}
)
_HARMLESS_BUILTINS = frozenset(
    {"bool", "bytes", "dict", "float", "frozenset", "getattr", "int", "list", "object", "slice"}
    | {"str", "tuple", "type"}
)


class _Placeholder:
    """Stands for an object in a checkpoint that is not read."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take and forget whatever the object was made of."""

    def __setstate__(self, state: Any) -> None:
        """Forget the object's state."""


def _no_items(*args: Any) -> dict[Any, Any]:
    """Stand for a defaultdict, whose items follow."""
    return {}


_STAND_INS: Mapping[str, Any] = {"defaultdict": _no_items, "AttributeDict": dict}


# ---- reading


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name.

    :param path: the file.
    :return: name → tensor, on the CPU.
    :raises CheckpointError: naming file and cause.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            with warnings.catch_warnings(), _placeholders(path):
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # damaged files fail in a great many ways
        raise CheckpointError(
            f"{path} is damaged, or no checkpoint of torch.save or safetensors: {_cause(error)}"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    named = state.items() if isinstance(state, Mapping) else ()
    tensors = {k: t for k, t in named if isinstance(k, str) and isinstance(t, Tensor)}
    if not tensors:
        keys = f" with {some(list(content))}" if isinstance(content, Mapping) else ""
        raise CheckpointError(f"{path} holds no tensors by name: {type(content).__name__}{keys}")
    return tensors


@contextmanager
def _placeholders(path: Path) -> Iterator[None]:
    """Let harmless objects of a checkpoint be read as placeholders; refuse all others."""
    if TorchVersion(torch.__version__) < "2.6":
        yield
        return
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # not torch's zip format: torch.load will say what is wrong
        names = []
    refused = sorted(n for n in names if not _is_harmless(n))
    if refused:
        raise CheckpointError(
            f"{path} was not loaded: it holds more than tensors, and reading the rest would run "
            f"{some(refused)}. If you trust the file, write its tensors to another one: "
            'torch.save(torch.load(path, weights_only=False)["state_dict"], "weights.pt")'
        )
    stand_ins: list[Any] = [(_STAND_INS.get(n.rpartition(".")[2], _Placeholder), n) for n in names]
    with torch.serialization.safe_globals(stand_ins):
        yield


def _is_harmless(name: str) -> bool:
    root, _, rest = name.partition(".")
    if root == "builtins":
        return rest in _HARMLESS_BUILTINS
    return root in _HARMLESS or f"{root}.{rest.partition('.')[0]}" in _HARMLESS


def _cause(error: Exception) -> str:
    """Return the first line of an error, without torch's advice to trust the file."""
    _, _, inner = str(error).partition("WeightsUnpickler error: ")
    lines = (inner or str(error)).split(" Please use ")[0].strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no details'}"


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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as temporary:
        if path.suffix == ".json":
            temporary.write_text(json.dumps(content, indent=2, default=str), encoding="utf-8")
        elif path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(content, temporary, metadata={"format": "pt"})
        else:
            torch.save(content, temporary)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path whose file replaces the given one if all goes well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
