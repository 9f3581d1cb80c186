"""Hardware, versions and memory: what stands beside every number."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SOURCE = "a source tree"
"""What stands for the version of a package that is imported from one."""

PACKAGES = ("torch", "torchvision", "avalanche-lib", "solo-learn", "numpy", "scikit-learn")


def environment() -> dict[str, Any]:
    """Return hardware and versions, to stand beside every number.

    Threads are those of each of the ``processes`` that train together.

    :return: a dictionary that can be written as JSON.
    """
    import torch  # late: a report reads records without it

    from avalanche_branchtune import ranks

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = SOURCE if _is_source(package) else version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": ranks.size(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
    }


def peak_memory_mib(device: str | torch.device = "cpu") -> float:
    """Return the largest memory that was held so far, in MiB.

    :param device: a GPU: what torch has allocated there; else this process.
    """
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 1024**2
    try:
        import resource
    except ImportError:  # Windows does not have it
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 1024**2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024


def _is_source(package: str) -> bool:
    """Tell whether solo-learn is a source tree, which may come before an installed release."""
    module = sys.modules.get("solo") if package == "solo-learn" else None
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    try:
        installed = Path(str(distribution(package).locate_file("solo")))
    except PackageNotFoundError:
        return True
    return Path(file).resolve().parent != installed.resolve()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
