"""Time and peak memory of every probe: ``python -m benchmarks.probes``.

Each runs in a process of its own on random features around class centres; features are made
before the clock starts, and the memory that they alone take is given beside the peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avalanche_branchtune.evaluation import KNNProbe, LinearProbe, Probe, weighted_knn
from avalanche_branchtune.records import environment, peak_memory_mib

RESULTS = Path(__file__).parent / "results" / "probes.json"
SEED, CLASSES = 0, 100

PROBES: dict[str, tuple[Probe, int, int, int]] = {  # probe, training samples, test samples, D
    "kNN, cosine": (KNNProbe(), 50_000, 10_000, 512),
    "kNN, euclidean": (KNNProbe(distance="euclidean"), 50_000, 10_000, 512),
    "linear, L-BFGS": (LinearProbe("lbfgs"), 50_000, 10_000, 512),
    "linear, SGD": (LinearProbe("sgd"), 50_000, 10_000, 512),
    "kNN, cosine, ImageNet's size": (KNNProbe(), 1_281_167, 500, 2048),
}


def features(n: int, d: int, part: int) -> tuple[Tensor, Tensor]:
    """Return samples around class centres, in blocks so that nothing is held twice."""
    centres = torch.randn(CLASSES, d, generator=torch.Generator().manual_seed(SEED)) * 0.2
    generator = torch.Generator().manual_seed(SEED + 1 + part)
    y = torch.randint(CLASSES, (n,), generator=generator)
    x = torch.empty(n, d)
    for block, labels in zip(x.split(4096), y.split(4096), strict=True):
        block.copy_(torch.randn(block.shape, generator=generator) + centres[labels])
    return x, y


def measure(name: str) -> dict[str, Any]:
    probe, n, m, d = PROBES[name]
    x, y = features(n, d, 0)
    queries, truth = features(m, d, 1)
    weighted_knn(x[:100], y[:100], queries[:10])  # warm up
    before = peak_memory_mib()
    begin = time.perf_counter()
    fitted = probe.fit(x, y)
    predictions = fitted.predict(queries)
    seconds = time.perf_counter() - begin
    return {
        "probe": name,
        "settings": probe.settings(),
        "training samples": n,
        "test samples": m,
        "D": d,
        "seconds": round(seconds, 1),
        "features_mib": round((x.numel() + queries.numel()) * 4 / 1024**2),
        "peak_mib_before": round(before),
        "peak_mib": round(peak_memory_mib()),
        "accuracy": round((predictions == truth).double().mean().item(), 4),
        **fitted.found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(PROBES), help="print one, in this process")
    only = parser.parse_args().only
    if only:
        print(json.dumps(measure(only)))
        return
    found = []
    for name in PROBES:
        command = [sys.executable, "-m", "benchmarks.probes", "--only", name]
        line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found.append(json.loads(line.splitlines()[-1]))
        print(json.dumps(found[-1]), flush=True)
    content = {
        "data": f"random features around {CLASSES} class centres, float32",
        "seed": SEED,
        "environment": environment(),
        "probes": found,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
