"""CaSSLe's online linear evaluation, written out: one convolution, BN, a classifier and SGD.

The backbone is a 3×3 convolution without bias, BatchNorm, ReLU and the mean over the image; a
momentum backbone of the same form follows it.  Float64 throughout; BatchNorm, SGD and the
classifier's gradient are formulas, only the kernel's gradient is torch's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EPS, BN_MOMENTUM = 1e-5, 0.1


@dataclass
class Net:
    """A backbone: kernel ``(C, 3, 3, 3)``, BN's γ and β, and what its statistics are now."""

    kernel: Tensor
    gamma: Tensor
    beta: Tensor
    mean: Tensor = field(default_factory=lambda: torch.empty(0))
    variance: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        self.mean, self.variance = torch.zeros_like(self.beta), torch.ones_like(self.beta)

    def features(self, images: Tensor) -> Tensor:
        """In training mode: the statistics of these images are used, and remembered."""
        x = F.conv2d(images, self.kernel, padding=1)
        n = x.shape[0] * x.shape[2] * x.shape[3]
        mean = x.sum(dim=(0, 2, 3)) / n
        centred = x - mean[:, None, None]
        squares = (centred * centred).sum(dim=(0, 2, 3))
        self.mean = (1 - BN_MOMENTUM) * self.mean + BN_MOMENTUM * mean.detach()
        unbiased = squares.detach() / (n - 1)
        self.variance = (1 - BN_MOMENTUM) * self.variance + BN_MOMENTUM * unbiased
        normal = centred / (squares / n + EPS).sqrt()[:, None, None]
        y = self.gamma[:, None, None] * normal + self.beta[:, None, None]
        return y.clamp(min=0).mean(dim=(2, 3))

    @property
    def weights(self) -> list[Tensor]:
        return [self.kernel, self.gamma, self.beta]


def own_loss(a: Tensor, b: Tensor, m: Tensor) -> Tensor:
    """The method's: features of two views, and the momentum backbone's of the first."""
    return (a - b).square().mean() - a.var(0).mean() + 0.5 * (b * m).mean()


@dataclass
class Training:
    """The whole state; :meth:`step` is one step of training."""

    net: Net
    momentum: Net
    w: Tensor
    b: Tensor
    lr: float
    classifier_lr: float
    decay: float
    tau: float
    velocity: list[Tensor] = field(default_factory=list)
    classifier_velocity: list[Tensor] = field(default_factory=list)

    def experience(self) -> None:
        """A fresh optimizer; the classifier stays."""
        self.velocity = [torch.zeros_like(p) for p in self.net.weights]
        self.classifier_velocity = [torch.zeros_like(p) for p in (self.w, self.b)]

    def step(self, views: list[Tensor], images: Tensor | None, labels: Tensor) -> dict[str, Any]:
        net = self.net
        for p in net.weights:
            p.requires_grad_(True)
        a, b = (net.features(v) for v in views)
        with torch.no_grad():
            m = [self.momentum.features(v) for v in views]
        loss = own_loss(a, b, m[0])
        total = loss.detach()
        if images is not None:
            with torch.no_grad():
                x = net.features(images)
                self.momentum.features(images)
            total = total + self._classify(x, labels)
        gradients = torch.autograd.grad(loss, net.weights)
        for i, (p, g) in enumerate(zip(net.weights, gradients, strict=True)):
            with torch.no_grad():
                self.velocity[i] = 0.9 * self.velocity[i] + g + self.decay * p
                p -= self.lr * self.velocity[i]
        with torch.no_grad():
            for p, q in zip(self.momentum.weights, net.weights, strict=True):
                p.copy_(self.tau * p + (1 - self.tau) * q)
        return self._now(float(total))

    def _classify(self, x: Tensor, labels: Tensor) -> Tensor:
        """Learn from features; return the cross-entropy before that, of those with a label."""
        x, y = x[labels >= 0], labels[labels >= 0]
        p = (x @ self.w.T + self.b).softmax(dim=1)
        entropy = -p[torch.arange(len(y)), y].log().mean()
        difference = (p - F.one_hot(y, len(self.b))) / len(y)
        gradients = (difference.T @ x, difference.sum(dim=0))
        self.classifier_velocity = [
            0.9 * v + g for v, g in zip(self.classifier_velocity, gradients, strict=True)
        ]
        self.w = self.w - self.classifier_lr * self.classifier_velocity[0]
        self.b = self.b - self.classifier_lr * self.classifier_velocity[1]
        return entropy

    def _now(self, loss: float) -> dict[str, Any]:
        nets = {"": self.net, "momentum ": self.momentum}
        found = {
            f"{name}{what}": getattr(net, what).detach().clone()
            for name, net in nets.items()
            for what in ("kernel", "gamma", "beta", "mean", "variance")
        }
        return {**found, "w": self.w, "b": self.b, "loss": loss}
