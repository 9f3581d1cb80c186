"""Random numbers that a network draws for its samples, where it has a share of a minibatch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from avalanche_branchtune import ranks

_rand, _dropout, _bernoulli = torch.rand, F.dropout, Tensor.bernoulli_


@contextmanager
def draws_of_the_whole(samples: int) -> Iterator[None]:
    """Let a network draw for the whole minibatch, and take what is its share's.

    So masked patches (MAE's), dropout and stochastic depth are those of one process; no two samples
    have the same ones because they are in two ranks; and all ranks go on with equal random states.
    It is so of ``torch.rand``, ``torch.nn.functional.dropout`` and ``Tensor.bernoulli_`` where they
    draw a row for each sample; not of dropout within torch's fused attention.

    :param samples: in this rank's share, N / W.
    """
    rank, size = ranks.rank(), ranks.size()

    def shape_of(rows: Any) -> list[int]:
        return [samples * size, *rows[1:]]

    def rand(*shape: Any, **kwargs: Any) -> Tensor:
        rows = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        if not rows or rows[0] != samples:
            return _rand(*shape, **kwargs)
        return _rand(shape_of(rows), **kwargs)[rank::size]

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or x.shape[:1] != (samples,):
            return _dropout(x, p, training, inplace)
        kept = _dropout(x.new_ones(shape_of(x.shape)), p, True)[rank::size]
        return x.mul_(kept) if inplace else x * kept

    def bernoulli_(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.shape[:1] != (samples,):
            return _bernoulli(x, *args, **kwargs)
        return x.copy_(_bernoulli(x.new_empty(shape_of(x.shape)), *args, **kwargs)[rank::size])

    with (
        mock.patch.object(torch, "rand", rand),
        mock.patch.object(F, "dropout", dropout),
        mock.patch.object(Tensor, "bernoulli_", bernoulli_),
    ):
        yield
