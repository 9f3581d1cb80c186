"""The unfolded form: one convolution for the kernel, one for every branch, outputs added."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _sides(conv: nn.Conv2d) -> list[tuple[int, int]]:
    """Padding before and after, for height and width."""
    if conv.padding == "valid":
        return [(0, 0), (0, 0)]
    if conv.padding == "same":
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return [(t // 2, t - t // 2) for t in totals]
    return [(int(p), int(p)) for p in conv.padding]


def branched_forward(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, branches: list[Tensor], x: Tensor
) -> Tensor:
    """Output of the layer, from its settings, its kernel and its branches."""
    (top, bottom), (left, right) = _sides(conv)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = F.pad(x, (left, right, top, bottom), mode=mode)

    def convolve(inp: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(inp, kernel, None, conv.stride, 0, conv.dilation, conv.groups)

    y = convolve(padded, weight)
    for b in branches:
        window = padded
        for axis in (0, 1):
            size, small, dilation = weight.shape[2 + axis], b.shape[2 + axis], conv.dilation[axis]
            before = (size - small) // 2
            after = size - small - before
            length = window.shape[2 + axis] - (before + after) * dilation
            window = window.narrow(2 + axis, before * dilation, length)
        y = y + convolve(window, b)
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def merged_kernel(weight: Tensor, branches: list[Tensor]) -> Tensor:
    """The kernel after compression, tap by tap."""
    out = weight.clone()
    for b in branches:
        for i in range(b.shape[2]):
            for j in range(b.shape[3]):
                top = (weight.shape[2] - b.shape[2]) // 2
                left = (weight.shape[3] - b.shape[3]) // 2
                out[:, :, top + i, left + j] += b[:, :, i, j]
    return out


def random_branches(branches: list[Tensor], seed: int) -> None:
    """Fill branches with numbers of the size of trained ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for b in branches:
            b.copy_(torch.randn(b.shape, generator=generator, dtype=torch.float64) * 0.1)
