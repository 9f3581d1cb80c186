"""A run of a second."""

from __future__ import annotations

from pathlib import Path

TINY = (
    "preset=laptop",
    "stream.samples=60",
    "stream.test_samples=60",
    "stream.n_experiences=2",
    "training.epochs=2",
    "training.batch=20",
    "method.proj_hidden_dim=8",
    "method.proj_output_dim=8",
    "backbone.options.width=2",
)


def tiny(out: Path, *more: str) -> list[str]:
    """Overrides of it."""
    return [*TINY, f"out={out}", *more]
