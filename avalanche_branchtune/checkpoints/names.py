"""What a file can name: classes of which objects are made, and functions, each where it lives.

Reading runs nothing of a file's choice, now or later.  Objects are made without constructor,
``__setstate__`` or setter, of classes without finaliser, in :data:`CLASSES` alone; what training
calls later is a function that stood in the same place before, or one of :data:`FUNCTIONS`, which
compute and touch no file, process or import; arguments are bound to :data:`BOUND` alone.  A name
that another module's import brought into a module (``torch.os``) means nothing.
"""

from __future__ import annotations

import builtins
import sys
import types
from typing import Any

import torch

CLASSES = (
    *("avalanche.", "avalanche_branchtune.", "solo.", "solo_bridge."),
    *("timm.layers.", "timm.models.", "torch.amp.", "torch.nn.", "torch.optim."),
    *("torch.utils.data.dataset.", "torch.utils.data.sampler.", "torchmetrics."),
    *("torchvision.models.", "torchvision.ops.", "torchvision.transforms."),
)
"""Where the classes live of which objects are made; each covers what is below it."""

FUNCTIONS = (
    *("avalanche.benchmarks.utils.transform_groups.", "avalanche.training.plugins.evaluation."),
    *("solo_bridge.compat.", "solo_bridge.plugins.", "timm.layers.", "torch.nn.functional."),
    *("torch.utils.data._utils.collate.", "torchvision.transforms.functional."),
)
"""Where the functions live that are looked up, beside torch's own on tensors."""

BOUND = ("avalanche.benchmarks.utils.transform_groups.", "solo_bridge.compat.")
"""Where the functions live to which a file can bind arguments."""

_BUILTIN = frozenset(
    {bool, bytes, complex, dict, float, frozenset, int, list, object, set, str, tuple, type(None)}
)


def find(name: str) -> Any:
    """Return a class or function by its name, None if it is not one that a file can mean.

    :param name: ``"module:qualified name"``.
    """
    module, _, qualified = name.partition(":")
    if module == "torch":  # its functions on tensors have no module
        found = getattr(torch._C._VariableFunctions, qualified, None)
        return found if isinstance(found, types.BuiltinFunctionType) and _computes(found) else None
    if module == "builtins":
        found = getattr(builtins, qualified, None)
        return found if isinstance(found, type) and found in _BUILTIN else None
    if not f"{module}.".startswith(CLASSES + FUNCTIONS):
        return None
    found = sys.modules.get(module)
    for part in qualified.split("."):
        found = vars(found).get(part) if isinstance(found, types.ModuleType | type) else None
    if not isinstance(found, types.FunctionType | type) or name_of(found) != name:
        return None
    if isinstance(found, type):
        return found if lives_in(found, CLASSES) and not hasattr(found, "__del__") else None
    return found if lives_in(found, FUNCTIONS) else None


def name_of(value: Any) -> str:
    """Return the name of a class or function.

    :param value: the class or function.
    """
    return f"{value.__module__}:{value.__qualname__}"


def lives_in(value: Any, places: tuple[str, ...]) -> bool:
    """Tell whether a class or function lives in one of some modules, or below.

    :param value: the class or function.
    :param places: such as :data:`CLASSES`.
    """
    return f"{value.__module__}.".startswith(places)


def _computes(function: types.BuiltinFunctionType) -> bool:
    return function.__name__ != "from_file"
