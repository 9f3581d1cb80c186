"""How far the training of a strategy is, for whoever waits."""

from __future__ import annotations

import sys
from typing import Any

from avalanche.core import SupervisedPlugin
from tqdm import tqdm

from avalanche_branchtune.experiences import experience_index, stream_length


class Progress(SupervisedPlugin):
    """A bar over the epochs of all experiences on a terminal; elsewhere a line per experience.

    :param name: what is trained.
    :param epochs: epochs in all.
    :param shown: whether anything is.
    :param lines: whether a terminal has lines too: bars of several processes would overwrite one
        another.
    """

    def __init__(self, name: str, epochs: int, shown: bool = True, lines: bool = False) -> None:
        """See the class."""
        super().__init__()
        self.name, self.shown = name, shown
        hidden = lines or not (shown and sys.stderr.isatty())
        self.bar = tqdm(total=epochs, desc=f"{name:<14}", unit="epoch", disable=hidden)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Advance by one epoch."""
        experience = strategy.clock.train_exp_counter
        self.bar.set_postfix(experience=experience, loss=f"{strategy.loss.item():.3f}")
        self.bar.update()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Say that an experience is done."""
        if self.shown and self.bar.disable:
            done, length = experience_index(strategy) + 1, stream_length(strategy)
            loss = f"loss {strategy.loss.item():.3f}"
            print(f"{self.name}: experience {done} of {length}, {loss}", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """Return how many epochs are done, for a run that goes on."""
        return {"epochs": self.bar.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        :param state: see :meth:`state_dict`.
        """
        self.bar.n = state["epochs"]

    def after_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Leave the bar on the screen when all epochs are done."""
        if self.bar.n >= (self.bar.total or 0):
            self.bar.close()
