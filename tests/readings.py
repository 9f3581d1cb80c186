"""What waits for a device: its numbers taken over."""

from __future__ import annotations

import traceback
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

WAITS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique")


class Readings(TorchDispatchMode):
    """Counts them, and notes the lines that ask."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    @property
    def count(self) -> int:
        return len(self.places)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in WAITS:
            asking = [f for f in traceback.extract_stack() if "/torch/" not in f.filename][-2]
            self.places.append(f"{asking.filename}:{asking.lineno}: {asking.line}")
        return func(*args, **(kwargs or {}))
