"""torch.compile for the networks of a method, which plugins listen to and change."""

from __future__ import annotations

import logging
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch._dynamo import config
from torch._dynamo.exc import TorchDynamoException

from avalanche_branchtune.norms import hold_eval
from avalanche_branchtune.parts import named_part

logger = logging.getLogger(__name__)

PARTS = ("backbone", "momentum_backbone", "projector")
"""Modules of a method that are compiled, if it has them."""

FORMS = 64
"""How many a network may have; torch runs what has more, without being compiled."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Compiled:
    """Lets a method's networks run compiled while its loss is computed in training.

    Compiled is what a network computes, its ``forward``.  The call around it stays as it is, so
    that plugins' hooks on the network are called as always; a network with hooks further inside
    (NAP's, CLR's) runs without, since compiled code would not call those that come later, and so
    does one whose ``forward`` was replaced.  torch notices expansion, compression and fixed norms:
    each form is compiled once.  Nothing is left in the model: copies, checkpoints and exports know
    nothing of it.

    Where a network cannot be compiled (no C++ compiler on a CPU, no Triton on a GPU), that is said
    once, and everything runs without.

    :param active: whether to do so at all.
    """

    def __init__(self, active: bool) -> None:
        """See the class."""
        self.active = active
        if active:  # forms are counted by source code, which networks of nn.Sequential share
            config.recompile_limit = max(config.recompile_limit, FORMS)
        self._known: WeakKeyDictionary[Any, _Function] = WeakKeyDictionary()

    @contextmanager
    def networks_of(self, method: nn.Module) -> Iterator[None]:
        """Let the networks of a method run compiled inside.

        :param method: see :data:`PARTS`.
        """
        parts = (named_part(method, name) for name in PARTS) if method.training else ()
        networks = {id(part): part for part in parts if part is not None}
        chosen = [n for n in networks.values() if self.active and _can_be_compiled(n)]
        for network in chosen:
            forward = types.MethodType(type(network).forward, network)
            vars(network)["forward"] = self._function(network, forward)
        try:
            yield
        finally:
            for network in chosen:
                del vars(network)["forward"]

    def function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function compiled, or itself if nothing is to be.

        :param function: of tensors, an object that stays the same.
        """
        return self._function(function, function) if self.active else function

    def _function(self, owner: Any, plain: Callable[..., Any]) -> Callable[..., Any]:
        known = self._known.get(owner)
        if known is None or known.plain != plain:  # a layer with branches is of another class
            known = self._known[owner] = _Function(plain, self)
        return known

    def give_up(self, error: TorchDynamoException) -> None:
        """Run without from now on, and say why.

        :param error: of the first network that could not be compiled.
        """
        if self.active:
            cause = getattr(error, "inner_exception", error)
            first = str(cause).strip().splitlines()[0]
            logger.warning("compile=True: networks run without being compiled: %s", first)
        self.active = False

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle without what was compiled."""
        return {"active": self.active}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Compile anew when it is needed."""
        self.__init__(state["active"])  # type: ignore[misc]


class _Function:
    """A function, compiled as long as that works."""

    def __init__(self, plain: Callable[..., Any], compiled: Compiled) -> None:
        self.plain = plain
        self._fast = torch.compile(plain, dynamic=False)
        self._compiled = compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._compiled.active:
            try:
                return self._fast(*args, **kwargs)
            except TorchDynamoException as error:
                self._compiled.give_up(error)
        return self.plain(*args, **kwargs)


def _can_be_compiled(network: nn.Module) -> bool:
    """Tell whether compiled code would do what a network does now; fixed norms are held for it."""
    if "forward" in vars(network):  # somebody's own, or compiled by an outer context
        return False
    for module in network.modules():
        if module is network:
            continue
        for name in _HOOKS:
            if any(hook is not hold_eval for hook in getattr(module, name).values()):
                return False
        if module._forward_pre_hooks:
            hold_eval(module)
    return True
