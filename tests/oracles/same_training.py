"""Everything that training reads and writes, step by step."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin

from avalanche_branchtune.evaluation.features import fingerprint


class Diary(SupervisedPlugin):
    """Writes down random states, modes, weights, buffers and gradients in every iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Any, ...]] = []

    def _write(self, strategy: Any, event: str) -> None:
        model = strategy.model
        self.entries.append(
            (
                event,
                fingerprint(model),  # structure, weights and buffers
                torch.get_rng_state().numpy().tobytes(),
                random.getstate(),
                np.random.get_state()[1].tobytes(),
                tuple(m.training for m in model.modules()),
                tuple(len(m._forward_hooks) for m in model.modules()),
                tuple(
                    (n, p.requires_grad, None if p.grad is None else p.grad.numpy().tobytes())
                    for n, p in model.named_parameters()
                ),
                float(strategy.loss.detach()),
            )
        )

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self._write(strategy, "before_training_iteration")

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        self._write(strategy, "before_update")

    def after_training(self, strategy: Any, **kwargs: Any) -> None:
        self._write(strategy, "after_training")
