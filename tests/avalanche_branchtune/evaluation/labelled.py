"""Three experiences of two classes each, of little images that are nearly their class."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset


def labelled(labels: list[int], seed: int = 0, noise: float = 0.5) -> TensorDataset:
    y = torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    x = noise * torch.randn(len(y), 1, 2, 4, generator=generator)
    x.flatten(1)[torch.arange(len(y)), y % 8] += 1
    return TensorDataset(x, y)


TRAIN = [labelled([0, 1] * 20), labelled([2, 3] * 20, 1), labelled([4, 5] * 20, 2)]
TEST = [labelled([0, 1] * 15, 3), labelled([2, 3] * 10, 4), labelled([4, 5] * 5, 5)]
