"""A tiny network, images and draws made of sines: the same wherever they are made again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.utils.data import Dataset

from avalanche_branchtune.streams import domain_incremental
from solo_bridge import SelfSupervised, SelfSupervisedMethod
from tests.selfsupervised import weights

EXPERIENCES, MINIBATCHES, EPOCHS, BATCH, MEMORY = 3, 3, 2, 4, 6
RATE = 0.05


def sines(*shape: int, phase: float = 0.0) -> Tensor:
    """sin(phase + 1.3 k) for the entries k = 0, 1 … in their order, float64."""
    count = math.prod(shape)
    return torch.sin(phase + 1.3 * torch.arange(count, dtype=torch.float64)).reshape(shape)


def image(number: int) -> Tensor:
    """Image 0 … of the stream, (3, 6, 6) in [0, 1]."""
    return 0.5 + 0.5 * sines(3, 6, 6, phase=0.7 * number)


def two_views(x: Tensor) -> list[Tensor]:
    """View 1, and view 2 upside down and weaker."""
    return [2 * x - 1, 1.5 * x.flip(-2) - 0.5]


def another_view(x: Tensor) -> Tensor:
    """The new view of a remembered image: mirrored."""
    return 2 * x.flip(-1) - 1


class Tiny(SelfSupervisedMethod):
    """Convolution, BatchNorm, projector with BatchNorm; float64."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.projector = nn.Sequential(nn.Linear(20, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
        self.double()
        with torch.no_grad():
            for k, p in enumerate(self.parameters()):
                p.copy_(0.4 * sines(*p.shape, phase=float(k)) + (0.8 if p.ndim == 1 else 0.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def loss(self, views: Sequence[Tensor], **needed: Tensor) -> Tensor:
        """Invariance of view 1 to each other one, and variance of view 1."""
        a, *others = (self.projector(self.backbone(v)) for v in views)
        apart = [(a - b).square().mean() for b in others]
        return torch.stack(apart).sum() + (a.std(0) - 1).square().mean()


class Images(Dataset[Any]):
    """The images of one experience, in order."""

    def __init__(self, experience: int) -> None:
        self.first = experience * MINIBATCHES * BATCH
        self.targets = [0] * (MINIBATCHES * BATCH)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return image(self.first + range(len(self))[index]), 0


class Draws:
    """What chance would draw, said by sines; calls are counted."""

    def __init__(self) -> None:
        self.choices = self.shares = 0

    def choice(self, total: int, count: int) -> list[int]:
        """``count`` of 0 … total − 1, none twice."""
        self.choices += 1
        k = self.choices
        return sorted(range(total), key=lambda i: math.sin(7 * i + 3 * k))[:count]

    def share(self) -> float:
        """ν."""
        self.shares += 1
        return 0.5 + 0.45 * math.sin(2.3 * self.shares)

    @staticmethod
    def place(n: int) -> int:
        """One of 0 … n."""
        return min(n, int((0.5 + 0.5 * math.sin(1.7 * n)) * (n + 1)))


def figures(model: nn.Module) -> dict[str, list[float]]:
    """Sum and sum of squares of every parameter and running statistic."""
    return {
        name: [float(value.double().sum()), float(value.double().square().sum())]
        for name, value in model.state_dict().items()
    }


def benchmark() -> Any:
    """The images as a stream of experiences."""
    parts = [Images(experience) for experience in range(EXPERIENCES)]
    return domain_incremental(parts, parts)


def run_of(plugins: Sequence[Any], model: Any = None, **settings: Any) -> SelfSupervised:
    """The strategy that trains the network: plain SGD at a constant rate."""
    options: dict[str, Any] = {
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=RATE),
        "optimizer_settings": {"scheduler": "none"},
        "views": two_views,
        "train_mb_size": BATCH,
        "train_epochs": EPOCHS,
        "evaluator": None,
        "plugins": list(plugins),
    }
    return SelfSupervised(Tiny() if model is None else model, **{**options, **settings})


class Look(SupervisedPlugin):
    """What every minibatch was made of, and the weights after its step."""

    def __init__(self) -> None:
        super().__init__()
        self.minibatches: list[list[int]] = []
        self.weights: list[Tensor] = []
        self.losses: list[float] = []
        self.views: list[list[Tensor]] = []

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        numbers = strategy.minibatch.index + strategy.experience.current_experience * (
            MINIBATCHES * BATCH
        )
        self.minibatches.append(numbers.tolist())
        self.losses.append(float(strategy.mb_output.detach()))
        self.views.append(list(strategy.mb_x))

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self.weights.append(weights(strategy.model))
