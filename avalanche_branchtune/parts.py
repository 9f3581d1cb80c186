"""Finding the parts of a model: its backbone, the momentum ones, and what gives its features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from avalanche_branchtune.errors import IncompatiblePluginError, ProbeError

BACKBONE_NAMES = frozenset({"backbone", "encoder", "momentum_backbone", "momentum_encoder"})
"""Names that mark a backbone inside a larger model."""

Part: TypeAlias = str | Callable[[nn.Module], nn.Module] | None
"""A part of a model: a sub-module's name, a function from the model, or None for its backbone."""


def named_part(model: nn.Module, name: str) -> nn.Module | None:
    """Return what a model has under a name, None if that is no module.

    :param model: any module.
    :param name: ``"backbone"``, ``"projector"`` …; a registered module or a property.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.parts import named_part
        >>> model = nn.Module()
        >>> model.backbone, model.projector = nn.Flatten(), None
        >>> named_part(model, "backbone"), named_part(model, "projector")
        (Flatten(start_dim=1, end_dim=-1), None)
    """
    found = getattr(model, name, None)
    return found if isinstance(found, nn.Module) else None


def part_of(model: nn.Module, part: Part = None) -> nn.Module:
    """Return the module that gives features.

    :param model: the trained model.
    :param part: see :data:`Part`; None for the module ``backbone``, or the
        model itself if it has none.
    :raises ProbeError: if there is no such sub-module.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.parts import part_of
        >>> model = nn.ModuleDict({"backbone": nn.Flatten(), "head": nn.Linear(4, 2)})
        >>> part_of(model) is model["backbone"], part_of(model, "head") is model["head"]
        (True, True)
        >>> part_of(model["head"]) is model["head"]
        True
    """
    if part is None:
        return named_part(model, "backbone") or model
    if callable(part):
        return part(model)
    try:
        return model.get_submodule(part)
    except AttributeError as error:
        raise ProbeError(f"backbone={part!r}: {error}") from error


def backbone_scope(model: nn.Module) -> tuple[str, ...]:
    """Return the outermost backbones of a model, or the whole model if it names none.

    :param model: any module.
    :return: qualified names of sub-modules called ``backbone``, ``encoder``,
        ``momentum_backbone`` or ``momentum_encoder`` that have a convolution;
        ``("",)``, the whole model, if there are none.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.parts import backbone_scope
        >>> model = nn.ModuleDict({"backbone": nn.Conv2d(3, 8, 3), "projector": nn.Linear(8, 8)})
        >>> backbone_scope(model)
        ('backbone',)
        >>> backbone_scope(nn.Conv2d(3, 8, 3))
        ('',)
    """
    found: list[str] = []
    for name, module in model.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in found)
        if not inner and name.rpartition(".")[2] in BACKBONE_NAMES and _has_convolution(module):
            found.append(name)
    return tuple(found) or ("",)


def online_and_momentum(model: nn.Module, plugin: str) -> dict[str, nn.Module]:
    """Return a model's online backbone, first, and its momentum backbones, by qualified name.

    :param model: one with a module ``backbone``.
    :param plugin: who asks, for the message.
    :raises IncompatiblePluginError: if it has none.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.parts import online_and_momentum
        >>> parts = {n: nn.Conv2d(3, 8, 3) for n in ("momentum_backbone", "backbone")}
        >>> list(online_and_momentum(nn.ModuleDict(parts), "MyPlugin"))
        ['backbone', 'momentum_backbone']
    """
    online = needed_backbone(model, plugin)
    name = next((n for n, m in model.named_modules() if m is online), None)
    if name is None:  # a property that makes a new module each time
        raise _no_backbone(model, plugin)
    momentum = [n for n in backbone_scope(model) if n.split(".")[-1].startswith("momentum_")]
    return {name: online, **{n: model.get_submodule(n) for n in momentum}}


def needed_backbone(model: nn.Module, plugin: str) -> nn.Module:
    """Return a model's backbone.

    :param model: one with a module ``backbone``.
    :param plugin: who asks, for the message.
    :raises IncompatiblePluginError: if it has none.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.parts import needed_backbone
        >>> needed_backbone(nn.ReLU(), "MyPlugin")
        Traceback (most recent call last):
        avalanche_branchtune.errors.IncompatiblePluginError: MyPlugin: ReLU has no module...
    """
    found = named_part(model, "backbone")
    if found is None:
        raise _no_backbone(model, plugin)
    return found


def _no_backbone(model: nn.Module, plugin: str) -> IncompatiblePluginError:
    return IncompatiblePluginError(
        f"{plugin}: {type(model).__name__} has no module called backbone: train a model, for "
        "example a SelfSupervisedMethod, that has one"
    )


def _has_convolution(module: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) for m in module.modules())
