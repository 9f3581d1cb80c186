"""Predictors: they map the network's outputs to its teacher's, and learn beside the network."""

from __future__ import annotations

from typing import Any

from torch import nn

from avalanche_branchtune.options import at_least_one, one_of
from solo_bridge.plugins.distillation.teacher import Outputs, TeacherPlugin

START = ("kept", "new")


class PredictingPlugin(TeacherPlugin):
    """A plugin that compares what a predictor g makes of the network's outputs with the teacher's.

    Authors' code: DonkeyShot21/cassle b5b0929, main_continual.py and main_pretrain.py: g is in the
    checkpoint of an experience, from which the next one begins.

    :param weight: λ.
    :param hidden: hidden width of g; None for half of what it maps.
    :param predictor: how g begins an experience: ``"kept"``, as it ended the one before, as in the
        authors' code; ``"new"``: the default before 0.1.0.  For CaSSLe it made no difference
        in docs/authors_forms.md.
    :param teacher_bn: see :class:`~solo_bridge.plugins.distillation.teacher.Teacher`.
    :raises UnknownOptionError: for another ``predictor``, or a width below 1.
    """

    def __init__(
        self, weight: float, *, hidden: int | None, predictor: str, teacher_bn: str
    ) -> None:
        """See the class."""
        super().__init__(weight, teacher_bn)
        name = type(self).__name__
        self.hidden = None if hidden is None else at_least_one(f"{name}(hidden=…)", hidden)
        self.begins_with = one_of(f"{name}(predictor=…)", predictor, START)
        self.predictor: nn.Module | None = None

    def width(self, example: Outputs) -> int:
        """Return the width of what g maps.

        :param example: the teacher's outputs for two images.
        """
        raise NotImplementedError

    def begin(self, strategy: Any, example: Outputs | None) -> None:
        """Let g learn, from the second experience on."""
        if example is None:
            return
        if self.predictor is None or self.begins_with == "new":
            width = self.width(example)
            hidden = width // 2 if self.hidden is None else self.hidden
            self.make("predictor", mlp(width, hidden))
        assert self.predictor is not None
        self.join(strategy, self.predictor)


def mlp(width: int, hidden: int) -> nn.Sequential:
    """Return a predictor: Linear, BN, ReLU, Linear, from and to the same width.

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/distillers/predictive.py,
    PredictiveDistillWrapper (distill_predictor).

    :param width: of the outputs.
    :param hidden: of its hidden layer.
    """
    return nn.Sequential(
        nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width)
    )
