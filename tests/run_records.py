"""Small records of runs, whose numbers are easily worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from avalanche_branchtune.records import FeatureSample, ProbeRecord, Run, Trace

# Final accuracy 0.5, continual 0.7, forgetting 0.25, forward 0.15, backward −0.2.
FIRST: list[list[float | None]] = [[0.8, 0.3, 0.2], [0.9, 0.7, 0.5], [0.6, 0.5, 0.4]]
# Final accuracy 0.6, continual 2/3, forgetting 0.05, forward 0.05, backward 0.
SECOND: list[list[float | None]] = [[0.7, 0.2, 0.1], [0.8, 0.6, 0.4], [0.7, 0.6, 0.5]]
RANDOM: list[float | None] = [0.1, 0.2, 0.3]
PROTOCOL = {"probe": "weighted kNN", "k": 20, "temperature": 0.07}
ENVIRONMENT = {"python": "3.11", "gpu": None, "versions": {"torch": "2.1", "numpy": "1.24"}}


def probe(rows: list[list[float | None]] = FIRST, **changes: Any) -> ProbeRecord:
    overall = [sum(known) / len(known) for row in rows if (known := [a for a in row if a])]
    fields = {"random": RANDOM, "random_overall": 0.2, **changes}
    return ProbeRecord({**PROTOCOL}, rows, overall, **fields)


def run(
    name: str = "fine-tuning",
    seed: int | None = 0,
    rows: list[list[float | None]] = FIRST,
    **changes: Any,
) -> Run:
    done = len(rows)
    fields: dict[str, Any] = {
        "settings": {"data": "digits", "optimizer": {"name": "sgd", "lr": 0.1}, "epochs": 2},
        "probes": {"knn": probe(rows)},
        "seconds": [10.0, 20.0, 30.0][:done],
        "evaluation_seconds": [1.0, 2.0, 3.0][:done],
        "peak_memory_mib": 100.0,
        "stability": [{}, {"conv1": 0.9, "conv2": 0.7}, {"conv1": 0.8, "conv2": 0.6}][:done],
        "plasticity": [{}, {"conv1": 0.5, "conv2": 0.5}, {"conv1": 0.4, "conv2": 0.6}][:done],
        "analysis_protocol": "linear CKA",
        "environment": ENVIRONMENT,
        **changes,
    }
    return Run(name, 3, seed, **fields)


def joint(seed: int = 0, rows: list[list[float | None]] | None = None, **changes: Any) -> Run:
    rows = [[0.9, 0.8, 0.7]] if rows is None else rows
    fields = {"seconds": [60.0], "evaluation_seconds": [1.0], "environment": ENVIRONMENT, **changes}
    return Run("joint", 1, seed, {"epochs": 6}, {"knn": probe(rows)}, **fields)


def full(name: str = "Branch-tuning", seed: int = 0, **changes: Any) -> Run:
    """Return a run that has everything a run can have."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, 60)
    return run(
        name,
        seed,
        branch_norms=[{}, {"conv1": 0.25, "conv2": 0.5}, {"conv1": 0.125, "conv2": 1.5}],
        trace=Trace([0, 10, 20, 30], [[0.1, 0.2, 0.3]] * 3 + [[0.6, 0.5, 0.4]], [0, 0, 1, 2]),
        sample=FeatureSample(rng.normal(size=(60, 5)) + labels[:, None], labels, labels // 2),
        **changes,
    )
