"""Distances between two networks' outputs, restated over single views, samples and entries.

Outputs are lists of views, each a list of samples, each a list of numbers (scalar tensors, so
that autograd differentiates the restatement too).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Views = list[list[list[Tensor]]]


def dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + x * y
    return total


def cosine(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())


def softmax(x: list[Tensor], temperature: float = 1.0) -> list[Tensor]:
    powers = [(v / temperature).exp() for v in x]
    total = sum(powers)
    return [p / total for p in powers]


def mean(values: list[Any]) -> Any:
    return sum(values) / len(values)


def each(measure: Callable[[list[Tensor], list[Tensor]], Any], p: Views, z: Views) -> Tensor:
    """Mean of a measure over samples and views."""
    return mean(
        [
            mean([measure(a, b) for a, b in zip(v, w, strict=True)])
            for v, w in zip(p, z, strict=True)
        ]
    )


def contrastive(p: Views, z: Views, temperature: float = 0.2) -> Tensor:
    return mean([contrastive_half(p, z, temperature), contrastive_half(z, p, temperature)])


def contrastive_half(p: Views, z: Views, temperature: float = 0.2) -> Tensor:
    rows = [sample for view in p for sample in view]
    columns = [sample for view in z for sample in view]
    losses = []
    for i, row in enumerate(rows):
        powers = [(cosine(row, column) / temperature).exp() for column in columns]
        losses.append(-(powers[i] / sum(powers)).log())
    return mean(losses)


def negative_cosine(p: Views, z: Views) -> Tensor:
    return each(lambda a, b: 2 - 2 * cosine(a, b), p, z)


def one_minus_cosine(p: Views, z: Views) -> Tensor:
    return each(lambda a, b: 1 - cosine(a, b), p, z)


def mse(p: Views, z: Views) -> Tensor:
    return each(lambda a, b: mean([(x - y) ** 2 for x, y in zip(a, b, strict=True)]), p, z)


def cross_correlation(
    p: Views, z: Views, off_diagonal: float = 0.005, scale: float = 0.1
) -> Tensor:
    losses = []
    for view, other in zip(p, z, strict=True):
        a, b = standardised(view), standardised(other)
        loss: Any = 0.0
        for i in range(len(a[0])):
            for j in range(len(b[0])):
                c = mean([a[n][i] * b[n][j] for n in range(len(a))])
                loss = loss + ((1 - c) ** 2 if i == j else off_diagonal * c**2)
        losses.append(scale * loss)
    return mean(losses)


def standardised(view: list[list[Tensor]]) -> list[list[Tensor]]:
    out: list[list[Tensor]] = [[] for _ in view]
    for i in range(len(view[0])):
        column = [sample[i] for sample in view]
        centre = mean(column)
        variance = mean([(x - centre) ** 2 for x in column])
        for n, x in enumerate(column):
            out[n].append((x - centre) / (variance + 1e-5).sqrt())
    return out


def cross_entropy(p: Views, z: Views, temperature: float = 0.1) -> Tensor:
    def one(a: list[Tensor], b: list[Tensor]) -> Any:
        predicted, target = softmax(a, temperature), softmax(b, temperature)
        return -sum(t * q.log() for t, q in zip(target, predicted, strict=True))

    return each(one, p, z)


def normalised(view: Tensor) -> Tensor:
    rows = []
    for sample in view.unbind():
        numbers = list(sample.unbind())
        rows.append(torch.stack(numbers) / dot(numbers, numbers).sqrt())
    return torch.stack(rows)


def scores(layer: Any, view: Tensor) -> Tensor:
    """What prototypes of weight norm say of a view, row by row."""
    columns = []
    for g, v in zip(layer.lengths.unbind(), layer.directions.unbind(), strict=True):
        direction = list(v.unbind())
        length = dot(direction, direction).sqrt()
        columns.append([g[0] * dot(list(x.unbind()), direction) / length for x in view.unbind()])
    return torch.stack([torch.stack(column) for column in columns], dim=1)


def soft_divergence(z: Views, old: Views, temperature: float = 2.0) -> Tensor:
    def one(a: list[Tensor], b: list[Tensor]) -> Any:
        p, q = softmax(a, temperature), softmax(b, temperature)
        return sum(y * (y / x).log() for x, y in zip(p, q, strict=True))

    return temperature**2 * each(one, z, old)


def soft_cross_entropy(logits: Views, targets: Views) -> Tensor:
    return cross_entropy(logits, targets, temperature=1.0)


def classification(logits: Views, labels: list[int]) -> Tensor:
    total: Any = torch.zeros((), dtype=torch.float64)
    for view in logits:
        losses = [-softmax(x)[y].log() for x, y in zip(view, labels, strict=True) if y != -1]
        if losses:
            total = total + mean(losses)
    return total


def squared_norm(features: Views) -> Tensor:
    return mean([mean([dot(sample, sample) for sample in view]) for view in features])


FORM = {
    "simclr": contrastive,
    "mocov2plus": contrastive,
    "byol": negative_cosine,
    "vicreg": mse,
    "barlow_twins": cross_correlation,
    "swav": cross_entropy,
}
"""CaSSLe's form of each method, and below its weight."""

WEIGHT = {"vicreg": 25.0}


def numbers(views: list[Tensor]) -> Views:
    """Take views of tensors ``(N, D)`` apart."""
    return [[list(sample.unbind()) for sample in view.unbind()] for view in views]
