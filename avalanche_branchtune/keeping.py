"""Looking at a network without a trace: modes, buffers and random states, put back afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put back the random states of torch (also on GPUs), numpy and Python afterwards.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.keeping import random_state_kept
        >>> with random_state_kept():
        ...     first = torch.rand(2)
        >>> torch.equal(first, torch.rand(2))
        True
    """
    python, array = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


@contextmanager
def modes_kept(*modules: nn.Module) -> Iterator[None]:
    """Put back the mode, training or evaluation, of every module afterwards.

    :param modules: and all that is in them.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.keeping import modes_kept
        >>> model = nn.Sequential(nn.ReLU(), nn.ReLU().eval())
        >>> with modes_kept(model):
        ...     _ = model.train()
        >>> [m.training for m in model]
        [True, False]
    """
    modes = {m: m.training for module in modules for m in module.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode for a while; with or without gradients as before.

    :param modules: and all that is in them.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.keeping import evaluating
        >>> model, x = torch.nn.BatchNorm1d(2), torch.ones(4, 2)
        >>> with evaluating(model):
        ...     model.training, model(x).requires_grad
        (False, True)
    """
    with modes_kept(*modules):
        for module in modules:
            module.eval()
        yield


@contextmanager
def looked_at(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, without gradients, for a while.

    :param model: any module.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.keeping import looked_at
        >>> model, x = torch.nn.BatchNorm1d(2), torch.ones(4, 2)
        >>> with looked_at(model):
        ...     model.training, model(x).requires_grad
        (False, False)
        >>> model.training, model(x).requires_grad
        (True, True)
    """
    with evaluating(model), torch.no_grad():
        yield


@contextmanager
def buffers_kept(
    model: nn.Module, of: Callable[[nn.Module], bool] = lambda module: True
) -> Iterator[None]:
    """Put back the values of buffers (statistics, queues) afterwards.

    :param model: any module.
    :param of: which of its modules' buffers.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.keeping import buffers_kept
        >>> model = torch.nn.BatchNorm1d(2)
        >>> with buffers_kept(model):
        ...     _ = model(torch.full((4, 2), 8.0))
        >>> model.running_mean.tolist()
        [0.0, 0.0]
    """
    # By name: a method may put a new tensor in a buffer's place (DINO's centre).
    kept = [
        (module, name, value.detach().clone())
        for module in model.modules()
        if of(module)
        for name, value in module._buffers.items()
        if value is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, value in kept:
                module.get_buffer(name).copy_(value)
