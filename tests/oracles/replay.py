"""Slow and obvious versions of what the memories of past samples do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


def mixed_by_hand(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """ν a + (1 − ν) b of two arrays of one shape, entry by entry, in float64."""
    out = np.empty(a.shape, dtype=np.float64)
    for place in np.ndindex(*a.shape):
        out[place] = share * float(a[place]) + (1 - share) * float(b[place])
    return out


def minimum_redundancy(features: Sequence[Sequence[float]], size: int) -> list[int]:
    """Samples enter one by one; of the closest pair (all are compared) the later one leaves."""

    def cosine(a: Sequence[float], b: Sequence[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b))

    held: list[int] = []
    for sample in range(len(features)):
        held.append(sample)
        if len(held) > size:
            pairs = [(cosine(features[i], features[j]), i, j) for i in held for j in held if i < j]
            held.remove(max(pairs)[2])
    return held


def held_embeddings(
    backbone: nn.Module, projector: nn.Module | None, images: Tensor, stored: Tensor
) -> Tensor:
    """Mean of (f(x) − z)² over images and entries, each image in a forward pass of its own."""
    total, entries = torch.zeros((), dtype=stored.dtype), 0
    for x, z in zip(images, stored, strict=True):
        f = backbone(x[None])
        f = f if projector is None else projector(f)
        for k in range(len(z)):
            total = total + (f[0, k] - z[k]) ** 2
            entries += 1
    return total / entries
