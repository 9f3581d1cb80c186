"""What the machine has left."""

from __future__ import annotations

from pathlib import Path

import torch

UNKNOWN = 4e9
"""Bytes that are taken to be free where a system does not say."""


def free_memory(device: torch.device | None = None) -> float:
    """Return how many bytes of memory are free.

    :param device: whose; by default the processor's.
    """
    if device is not None and device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return UNKNOWN
    return 1024.0 * int(found.split()[1])
