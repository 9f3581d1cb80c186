"""What an experience is known by, and how many were finished."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from avalanche.benchmarks import split_online_stream
from avalanche.core import SupervisedPlugin

from avalanche_branchtune.experiences import (
    experience_index,
    experience_key,
    mark_finished,
    position,
    trained_before,
)
from tests.supervised import benchmark, strategy


class Count(SupervisedPlugin):
    """What is said of each experience, when it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[int, int, int]] = []
        self.fail = self.stop = False

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        index = experience_index(strategy)
        self.said.append((index, position(strategy), trained_before(strategy)))
        if self.stop:
            self.stop = False
            raise KeyboardInterrupt

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        mark_finished(strategy)
        if self.fail:
            self.fail = False
            raise KeyboardInterrupt  # before Avalanche's clock counts the experience


def train(order: list[Any], stop: int = -1, fail: int = -1) -> list[tuple[int, int, int]]:
    plugin = Count()
    run = strategy([plugin], train_epochs=1)
    for i, experience in enumerate(order):
        plugin.stop, plugin.fail = i == stop, i == fail
        if i in (stop, fail):
            with pytest.raises(KeyboardInterrupt):
                run.train(experience)
        else:
            run.train(experience)
    return plugin.said


def test_in_the_streams_order() -> None:
    stream = benchmark(3).train_stream
    assert train(list(stream)) == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]


def test_trained_again_after_an_interruption_or_an_error() -> None:
    a, b, c = benchmark(3).train_stream
    assert train([a, b, b, c], stop=1) == [(0, 0, 0), (1, 1, 1), (1, 1, 1), (2, 2, 2)]
    assert train([a, b, b, c], fail=1) == [(0, 0, 0), (1, 1, 1), (1, 1, 1), (2, 2, 2)]
    assert train([a, b, c], fail=1) == [(0, 0, 0), (1, 1, 1), (2, 2, 2)], "the clock says 1"
    assert train([a, b, c], stop=1) == [(0, 0, 0), (1, 1, 1), (2, 2, 1)], "b was never finished"
    assert train([a, b, a]) == [(0, 0, 0), (1, 1, 1), (0, 0, 1)]


def test_streams_of_one_experience_are_told_apart() -> None:
    stages = [benchmark(1).train_stream[0] for _ in range(3)]
    assert train(stages) == [(0, 0, 0), (0, 1, 1), (0, 2, 2)]


def test_parts_of_an_online_stream() -> None:
    parts = split_online_stream(
        benchmark(2).train_stream, experience_size=12, access_task_boundaries=True
    )
    assert train(list(parts)) == [(0, 0, 0), (0, 0, 0), (1, 1, 1), (1, 1, 1)]
    run = strategy([])
    run.clock.train_exp_counter = 0
    keys = []
    for run.experience in split_online_stream(
        benchmark(2).train_stream, experience_size=12, access_task_boundaries=True
    ):
        keys.append((experience_key(run), experience_key(run, part=True)))
    assert len({whole for whole, _ in keys}) == 2 and len({part for _, part in keys}) == 4


def test_a_strategy_that_was_trained_without_counting() -> None:
    run = strategy([], train_epochs=1)
    a, b, c = benchmark(3).train_stream
    run.train([a, b])
    plugin = Count()
    run.plugins.insert(0, plugin)
    run.train(c)
    assert plugin.said == [(2, 2, 2)]


def test_the_mark_of_a_stream_survives_pickling() -> None:
    run = strategy([])
    run.experience = benchmark(2).train_stream[1]
    key = experience_key(run)
    run.experience = pickle.loads(pickle.dumps(run.experience))
    assert experience_key(run) == key
