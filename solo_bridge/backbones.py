"""Backbones by name, from solo-learn, timm or torchvision, and one for small images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import get_model, list_models
from torchvision.models.resnet import BasicBlock

from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.keeping import looked_at
from solo_bridge.compat import Generation, load


def small_resnet(width: int = 32) -> nn.Sequential:
    """Build a ResNet with three basic blocks and the CIFAR stem, for images of 8 to 32 pixels.

    He et al., arXiv 1512.03385, with one block per resolution.

    :param width: channels of the first block; the last has four times as many.
    :return: module from ``(N, 3, H, W)`` to ``(N, 4 · width)``.
    """
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        BasicBlock(width, width),
        BasicBlock(width, 2 * width, 2, _shortcut(width, 2 * width)),
        BasicBlock(2 * width, 4 * width, 2, _shortcut(2 * width, 4 * width)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _shortcut(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, stride=2, bias=False), nn.BatchNorm2d(out_channels)
    )


def resolve(
    backbone: str | nn.Module, generation: Generation, size: int, kwargs: Mapping[str, Any]
) -> tuple[str | nn.Module, dict[str, Any]]:
    """Find a backbone by name, or measure one that was brought.

    :param backbone: name in solo-learn, timm or torchvision (looked up in this
        order), or a module from ``(N, 3, H, W)`` to ``(N, D)``.
    :param generation: the solo-learn that is installed.
    :param size: side of the images in pixels.
    :param kwargs: arguments of the constructor.
    :return: what :class:`~solo_bridge.compat.MethodSettings` takes: a name of
        solo-learn's, or a module with ``num_features``; and the arguments that
        are left for solo-learn.
    :raises UnknownOptionError: for an unknown name, or a module whose features
        are not ``(N, D)``.
    """
    if isinstance(backbone, str) and backbone in generation.backbone_names():
        return backbone, {**_sized(backbone, size), **kwargs}
    net = _by_name(backbone, size, kwargs) if isinstance(backbone, str) else backbone
    # Measured, not asked: timm's num_features is not always the width of the output.
    net.num_features = features_dim(net, size)  # type: ignore[assignment]
    return net, {}


def known_names() -> list[str]:
    """Return the names that :func:`resolve` knows: solo-learn's, torchvision's and timm's."""
    import timm

    return [*load().backbone_names(), *list_models(module=models), *timm.list_models()]


def features_dim(backbone: nn.Module, size: int) -> int:
    """Measure the width of a backbone's features, by one forward pass in eval mode.

    :param backbone: the module.
    :param size: side of the images in pixels.
    :return: D.
    :raises UnknownOptionError: if the features are not ``(N, D)``, or images of
        this size are too small.
    """
    parameter = next(backbone.parameters(), torch.zeros(0))
    try:
        with looked_at(backbone), torch.random.fork_rng(devices=[]):  # MAE's draws a permutation
            features = backbone(torch.zeros(1, 3, size, size).to(parameter))
    except RuntimeError as error:
        raise UnknownOptionError(
            f"SoloMethod(backbone={type(backbone).__name__}, image_size={size}): it cannot take "
            f"images of this size: {error}"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise UnknownOptionError(
            f"SoloMethod(backbone={type(backbone).__name__}): expected features (N, D), got "
            f"{shape}; end it with pooling and nn.Flatten()"
        )
    return int(features.shape[1])


def _sized(name: str, size: int) -> dict[str, Any]:
    """Return what a transformer of solo-learn's must be told about the images."""
    if name.startswith("vit"):
        return {"img_size": size, "patch_size": 4 if size <= 32 else 8 if size <= 96 else 16}
    if name.startswith("swin"):
        return {"img_size": size}
    return {}


def _by_name(name: str, size: int, kwargs: Mapping[str, Any]) -> nn.Module:
    import timm

    if timm.is_model(name):
        return of_timm(name, size, kwargs)
    if name in list_models(module=models):
        return of_torchvision(name, kwargs)
    raise UnknownOptionError(
        f"SoloMethod(backbone={name!r}): neither solo-learn, timm nor torchvision has a model of "
        "this name; pass a module instead"
    )


def of_timm(name: str, size: int, kwargs: Mapping[str, Any]) -> nn.Module:
    """Build one of timm's models without its classifier.

    :param name: that timm knows.
    :param size: side of the images in pixels.
    :param kwargs: arguments of the constructor.
    """
    import timm

    try:
        return timm.create_model(name, num_classes=0, **{"img_size": size, **kwargs})
    except TypeError:  # convolutional networks take images of any size
        return timm.create_model(name, num_classes=0, **kwargs)


def of_torchvision(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Build one of torchvision's models without its last linear layer.

    :param name: that torchvision knows.
    :param kwargs: arguments of the constructor.
    :raises UnknownOptionError: for one that has no such layer.
    """
    net: nn.Module = get_model(name, weights=None, **kwargs)
    linear = [n for n, m in net.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise UnknownOptionError(
            f"SoloMethod(backbone={name!r}): it ends in no linear layer that could be taken "
            "off: pass a module that ends in pooled features instead"
        )
    last = linear[-1]
    parent, _, child = last.rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return net
