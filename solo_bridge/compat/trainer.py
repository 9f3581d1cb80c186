"""What stands in for Lightning's trainer and its logging."""

from __future__ import annotations

from typing import Any


class _Loader:
    """A data loader's lengths."""

    def __init__(self, steps: int, samples: int) -> None:
        self.steps = steps
        self.dataset = range(samples)

    def __len__(self) -> int:
        return self.steps


class TrainerStandIn:
    """What solo-learn's methods read of a Lightning trainer, and nothing else.

    :param steps_per_epoch: optimizer steps in an epoch.
    :param epochs: epochs of the experience.
    :param samples: samples of the experience.
    """

    def __init__(self, steps_per_epoch: int = 1, epochs: int = 1, samples: int = 1) -> None:
        """See the class."""
        self.global_step = 0
        self.current_epoch = 0
        self.max_epochs = epochs
        self.train_dataloader = _Loader(steps_per_epoch, samples)
        self.accumulate_grad_batches = 1
        self.world_size = 1
        self.global_rank = 0
        self.sanity_checking = False

    @property
    def num_training_batches(self) -> int:
        """Optimizer steps in an epoch."""
        return self.train_dataloader.steps

    @property
    def estimated_stepping_batches(self) -> int:
        """Optimizer steps in the experience."""
        return self.train_dataloader.steps * self.max_epochs


def ignore(*args: Any, **kwargs: Any) -> None:
    """Take the place of Lightning's ``log`` and ``log_dict``."""
