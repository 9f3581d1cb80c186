"""Slow and obvious versions of what the memories of past samples do."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

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


class StepByStep:
    """Training in which every minibatch meets a memory, one image at a time, by plain SGD.

    :param model: has backbone, projector and ``loss(views)``.
    :param views: from an image to its views.
    :param again: from a remembered image to its new view.
    :param size: of the memory.
    :param rate: of SGD.
    :param choices: for each minibatch but the first, places of the remembered images.
    :param places: for each minibatch, the place that each image was drawn; ``size``
        and above: none.
    """

    def __init__(
        self,
        model: Any,
        views: Callable[[Tensor], list[Tensor]],
        again: Callable[[Tensor], Tensor],
        size: int,
        rate: float,
        choices: Sequence[Sequence[int]],
        places: Sequence[Sequence[int]],
    ) -> None:
        self.model, self.views, self.again = model, views, again
        self.size, self.rate = size, rate
        self.choices, self.places = list(choices), list(places)
        self.held: dict[int, tuple[Tensor, Any]] = {}
        self.states: list[Tensor] = []
        """All weights and buffers after each step."""

    def update(self, loss: Tensor) -> None:
        self.model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for p in self.model.parameters():
                if p.grad is not None:
                    p -= self.rate * p.grad
        state = self.model.state_dict().values()
        self.states.append(torch.cat([v.detach().double().flatten() for v in state]))

    def store(self, images: Sequence[Tensor], belonging: Sequence[Any]) -> None:
        for x, what, place in zip(images, belonging, self.places.pop(0), strict=True):
            if place < self.size:
                self.held[place] = (x, what)

    def lump(self, images: Sequence[Tensor], shares: list[float]) -> None:
        """One step on mixed views; ``shares`` gives up the ν that it takes."""
        own = [self.views(x) for x in images]
        taken = own
        if self.held:
            share, taken = shares.pop(0), []
            for views, place in zip(own, self.choices.pop(0), strict=True):
                x, stored = self.held[place]
                old = [self.again(x), *stored]
                taken.append([share * a + (1 - share) * b for a, b in zip(views, old, strict=True)])
        self.update(self.model.loss([torch.stack(view) for view in zip(*taken, strict=True)]))
        self.store(images, [views[1:] for views in own])

    def der(self, images: Sequence[Tensor], weight: float, projects: bool) -> None:
        """One step with the term, f in training mode."""

        def f(x: Tensor) -> Tensor:
            features = self.model.backbone(x)
            return self.model.projector(features) if projects else features

        own = [self.views(x) for x in images]
        loss = self.model.loss([torch.stack(view) for view in zip(*own, strict=True)])
        outputs = f(torch.stack([views[0] for views in own])).detach()
        if self.held:
            old = [self.held[place] for place in self.choices.pop(0)]
            found = f(torch.stack([self.again(x) for x, _ in old]))
            squares = [
                (a - b) ** 2
                for row, (_, z) in zip(found, old, strict=True)
                for a, b in zip(row, z, strict=True)
            ]
            loss = loss + weight * sum(squares) / len(squares)
        self.update(loss)
        self.store(images, list(outputs))

    def der_without_a_trace(self, images: Sequence[Tensor], weight: float, projects: bool) -> None:
        """One step with the term, f in eval mode, one image at a time."""
        own = [self.views(x) for x in images]
        before = copy.deepcopy(self.model).eval()
        loss = self.model.loss([torch.stack(view) for view in zip(*own, strict=True)])
        statistics = copy.deepcopy(dict(self.model.named_buffers()))
        self.model.eval()
        with torch.no_grad():
            before.load_state_dict(self.model.state_dict())  # with this minibatch's statistics
            new = [before.backbone(self.again(x)[None]) for x in images]
            new = [before.projector(f)[0] if projects else f[0] for f in new]
        if self.held:
            old = [self.held[place] for place in self.choices.pop(0)]
            term = held_embeddings(
                self.model.backbone,
                self.model.projector if projects else None,
                torch.stack([self.again(x) for x, _ in old]),
                torch.stack([z for _, z in old]),
            )
            loss = loss + weight * term
        self.model.train()
        assert all(torch.equal(b, statistics[n]) for n, b in self.model.named_buffers())
        self.update(loss)
        self.store(images, new)
