"""States of methods, compared and written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solo_bridge import SoloMethod
from tests.selfsupervised import method


def values(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def trained(name: str = "simclr", seed: int = 1, **settings: Any) -> SoloMethod:
    """A method whose every tensor differs from that of a fresh one."""
    model = method(name, seed, **settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(1e-3 * torch.rand(tensor.shape, generator=generator))
            else:
                tensor.add_(1)
    return model


def lightning_file(path: Path, state: dict[str, Tensor], **rest: Any) -> Path:
    torch.save({"epoch": 3, "state_dict": state, **rest}, path)
    return path
