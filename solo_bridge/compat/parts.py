"""What a solo-learn module calls its parts, where all generations agree."""

from __future__ import annotations

from typing import Any

from torch import nn

STATIC_LR = "static_lr"
"""Key of parameter groups that keep their rate: predictors of SimSiam and NNSiam."""


def projector(solo: Any) -> nn.Module | None:
    """Return the online projector, features ``(N, D)`` to embeddings ``(N, P)``; MAE has none.

    :param solo: solo-learn's module.
    """
    head = getattr(solo, "head", None)  # DINO's
    found = getattr(solo, "projector", None) if head is None else head.mlp
    return found if isinstance(found, nn.Module) else None


def momentum_projector(solo: Any) -> nn.Module | None:
    """Return the momentum projector, None for a method that has none.

    :param solo: solo-learn's module.
    """
    head = getattr(solo, "momentum_head", None)  # DINO's
    found = getattr(solo, "momentum_projector", None) if head is None else head.mlp
    return found if isinstance(found, nn.Module) else None


def prototype_heads(solo: Any) -> list[nn.Module]:
    """Return SwAV's, DINO's and DeepClusterV2's: embeddings ``(N, P)`` of length 1 to scores.

    :param solo: solo-learn's module.
    """
    head = getattr(solo, "head", None)
    found = getattr(solo, "prototypes", None) if head is None else head.last_layer
    if found is None:
        return []
    return list(found) if isinstance(found, nn.ModuleList) else [found]


def momentum_pairs(solo: Any) -> list[tuple[nn.Module, nn.Module]]:
    """Return online networks and the momentum networks that follow them, if there are any.

    :param solo: solo-learn's module.
    """
    return list(getattr(solo, "momentum_pairs", ()))


def use_channels_last(solo: Any, use: bool) -> None:
    """Let a method bring images into the memory format of its kernels, where it does so itself.

    :param solo: solo-learn's module; release 1.0.2's leave images as they are.
    :param use: whether channels come last.
    """
    if hasattr(solo, "no_channel_last"):
        solo.no_channel_last = not use


def trained_groups(solo: Any) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups without the online classifier's.

    :param solo: solo-learn's module.
    """
    groups = [group for group in solo.learnable_params if group.get("name") != "classifier"]
    return [{**group, "params": list(group["params"])} for group in groups]
