"""A backbone for small images on a laptop, where solo-learn has none."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock


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
