"""Runs that several processes share, in double precision, and how far they are from one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_branchtune import ranks
from solo_bridge import SelfSupervised, build
from tests.selfsupervised import data, method, small_options, stream

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Run:
    """A training of two experiences.

    :param method: its name.
    :param spec: of the strategy.
    :param settings: of the strategy.
    :param double: whether it has weights and views in double precision, so that what is more than
        rounding can be seen.
    :param samples: of both experiences.
    """

    method: str = "simclr"
    spec: str = "fine_tuning"
    settings: dict[str, Any] = field(default_factory=dict)
    double: bool = True
    samples: int = 80


class Double(SupervisedPlugin, supports_distributed=True):
    """Lets views be in double precision."""

    def wrap_views(self, views: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
        return None if views is None else lambda image: [v.double() for v in views(image)]


def strategy_of(run: Run, *plugins: Any) -> SelfSupervised:
    """Return the strategy of a run; its weights differ in each rank, and rank 0's count."""
    model = method(run.method, seed=ranks.rank())
    options: dict[str, Any] = {
        "train_mb_size": 20,
        "train_epochs": 2,
        "optimizer": "sgd",
        "lr": 0.5,
        "evaluator": None,
        "reproducible_views": True,
        **run.settings,
    }
    options["plugins"] = [*plugins, *options.get("plugins", [])]
    if run.double:
        model.double()
        options["plugins"].insert(0, Double())  # before who mixes images
    return build(run.spec, model, options=small_options(run.spec), **options)


def trained(run: Run) -> list[Weights]:
    """Return all weights and buffers after each experience."""
    found = []
    with precision_of(run):
        strategy = strategy_of(run)
        experiences = stream(2, data(run.samples)).train_stream
        for experience in [experiences] if run.spec == "joint" else experiences:
            strategy.train(experience)
            content = strategy.model.state_dict()
            found.append({n: w.clone() for n, w in content.items() if isinstance(w, Tensor)})
    return found


@contextmanager
def precision_of(run: Run) -> Iterator[None]:
    """Let what a run makes of its own, as solo-learn's losses do, have its precision."""
    torch.set_default_dtype(torch.float64 if run.double else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def all_trained(runs: Sequence[Run]) -> list[list[Weights]]:
    """Return :func:`trained` of each."""
    return [trained(run) for run in runs]


def assert_equal_ranks(by_rank: Sequence[list[Weights]]) -> None:
    """See that all ranks have the same weights and buffers after every experience, bit by bit."""
    first, *others = by_rank
    for other in others:
        for expected, found in zip(first, other, strict=True):
            assert expected.keys() == found.keys()
            for name, weight in expected.items():
                assert torch.equal(weight, found[name]), name


def farthest(expected: list[Weights], found: list[Weights]) -> tuple[float, str]:
    """Return the largest difference of a weight or buffer, and its name.

    :return: the difference relative to the largest number in that tensor, or to 0.001.
    """
    largest, where = 0.0, ""
    for i, (one, several) in enumerate(zip(expected, found, strict=True)):
        for name, weight in one.items():
            scale = weight.double().abs().max().clamp(min=1e-3)
            far = float((weight.double() - several[name].double()).abs().max() / scale)
            if not far <= largest:  # NaN too
                largest, where = far, f"{name} after experience {i}"
    return largest, where
