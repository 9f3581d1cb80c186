"""What waits for a device: its numbers taken over."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Readings(TorchDispatchMode):
    """Counts what waits for a device: its numbers taken over."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique")
        self.count += func.overloadpacket.__name__ in waits
        return func(*args, **(kwargs or {}))
