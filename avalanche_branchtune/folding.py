"""Folded kernels that a step uses more than once: folded at the first use, kept until its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _Folded(NamedTuple):
    made_of: list[tuple[int, int, int, bool]]
    parameters: Sequence[Tensor]  # are held, so that no other one can have their identity
    kernel: Tensor


class _Kept(threading.local):
    """A thread's folded kernels by layer and mode, while they are kept."""

    kernels: dict[Any, _Folded] | None = None


_KEPT = _Kept()


@contextmanager
def folded_once() -> Iterator[None]:
    """Let each branched layer fold its kernel once, however often it is called inside.

    A loss that calls the network for each of its views then folds once for all of them, and the
    kernel's gradient is summed over the views before it reaches the branches.  A kernel is folded
    again where it cannot be the same one: with gradients after without, under another autocast,
    and when a parameter was changed in between (but not through ``.data`` in place, which torch
    does not count).  It is a thread's own, and nothing of it is left in the model.

    Example::

        >>> import torch
        >>> from avalanche_branchtune import expand
        >>> from avalanche_branchtune.folding import folded_once
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3))
        >>> expansion, views = expand(model), torch.randn(2, 8, 1, 5, 5)
        >>> with folded_once():
        ...     loss = sum(model(view).square().mean() for view in views)
        >>> loss.backward()
        >>> model[0].branch_1x3.grad.shape
        torch.Size([4, 1, 1, 3])
    """
    if _KEPT.kernels is not None:  # within another one, whose kernels serve
        yield
        return
    _KEPT.kernels = {}
    try:
        yield
    finally:
        _KEPT.kernels = None


def folded(layer: nn.Module, fold: Callable[[], Tensor]) -> Tensor:
    """Return a layer's folded kernel, the kept one where :func:`folded_once` has it.

    :param layer: a branched layer.
    :param fold: folds its kernel.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.folding import folded, folded_once
        >>> layer = torch.nn.Linear(2, 2)
        >>> with folded_once():
        ...     folded(layer, layer.weight.clone) is folded(layer, layer.weight.clone)
        True
        >>> folded(layer, layer.weight.clone) is folded(layer, layer.weight.clone)
        False
    """
    # A compiler folds once by itself; a tensor of torch.func's lives in its transform only.
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return fold()
    kernels = _KEPT.kernels
    if kernels is None:
        return fold()
    parameters = [p for p in layer._parameters.values() if p is not None]
    kind = parameters[0].device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    place = id(layer), torch.is_grad_enabled(), autocast
    now = [(id(p), p._version, p.untyped_storage()._cdata, p.requires_grad) for p in parameters]
    kept = kernels.get(place)
    if kept is None or kept.made_of != now:
        kept = kernels[place] = _Folded(now, parameters, fold())
    return kept.kernel
