"""The life cycle of a plugin that changes the network for an experience."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from avalanche.benchmarks import split_online_stream

from avalanche_branchtune.lifecycle import ExperiencePlugin
from tests.supervised import benchmark, strategy


class Told(ExperiencePlugin):
    """Notes what it is told."""

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.said: list[Any] = []
        self.stop_at: str | None = None

    def _note(self, what: str, *more: Any) -> None:
        self.said.append((what, *more))
        if what == self.stop_at:
            self.stop_at = None
            raise KeyboardInterrupt if what == "iteration" else ValueError(what)

    def refuse(self, strategy: Any) -> None:
        self._note("refuse")

    def open(self, strategy: Any, experience: int) -> str:
        self._note("open", experience)
        return f"experience {experience}"

    def rejoin(self, strategy: Any) -> None:
        self._note("rejoin", self.under_way)

    def close(self, strategy: Any, *, finished: bool) -> None:
        self._note("close", self.under_way, finished)

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if self.stop_at == "iteration":
            self._note("iteration")


def parts(size: int, access: bool = True) -> list[Any]:
    """Each experience of 24 samples in parts; two experiences."""
    whole = benchmark(2, samples=48).train_stream
    return list(split_online_stream(whole, experience_size=size, access_task_boundaries=access))


def test_each_experience_is_opened_and_closed_once(caplog: pytest.LogCaptureFixture) -> None:
    plugin = Told()
    run = strategy([plugin])
    with caplog.at_level(logging.INFO, __name__):
        for experience in benchmark(2).train_stream:
            run.train(experience)
    assert plugin.said == [
        ("refuse",),
        ("open", 0),
        ("close", 0, True),
        ("refuse",),
        ("open", 1),
        ("close", 1, True),
    ]
    assert plugin.summary == "experience 1" and caplog.messages == ["experience 0", "experience 1"]
    assert plugin.under_way is None


def test_the_first_experience_is_left_out_unless_the_network_is_trained() -> None:
    plugin = Told(pretrained=False)
    run = strategy([plugin])
    run.train(benchmark(2).train_stream)
    assert plugin.said == [("refuse",), ("open", 1), ("close", 1, True)]


def test_an_interrupted_experience_is_closed_when_the_next_begins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = Told()
    run, experiences = strategy([plugin]), benchmark(2).train_stream
    plugin.stop_at = "iteration"
    with pytest.raises(KeyboardInterrupt):
        run.train(experiences[0])
    assert plugin.under_way == 0 and not plugin.said.count(("close", 0, True))
    del plugin.said[:]
    run.train(experiences[0])
    assert plugin.said == [("refuse",), ("close", 0, False), ("open", 0), ("close", 0, True)]
    assert "Told: experience 0 was not finished" in caplog.text


def test_what_cannot_be_opened_is_closed_at_once() -> None:
    plugin = Told()
    run = strategy([plugin])
    plugin.stop_at = "open"
    with pytest.raises(ValueError, match="open"):
        run.train(benchmark(2).train_stream[0])
    assert plugin.said[1:] == [("open", 0), ("close", 0, False)] and plugin.under_way is None


def test_closing_that_was_interrupted_is_done_again() -> None:
    plugin = Told()
    run, experiences = strategy([plugin]), benchmark(2).train_stream
    plugin.stop_at = "close"
    with pytest.raises(ValueError, match="close"):
        run.train(experiences[0])
    del plugin.said[:]
    run.train(experiences[1])
    assert plugin.said[:3] == [("refuse",), ("close", 0, True), ("open", 1)], "it was finished"


@pytest.mark.parametrize("size", [24, 12, 7])
def test_parts_of_an_online_stream_are_one_experience(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """7 does not divide 24, so that Avalanche marks a last part; 12 and 24 do."""
    plugin = Told()
    run = strategy([plugin])
    with caplog.at_level(logging.WARNING):
        for part in parts(size):
            run.train(part)
    said = [s for s in plugin.said if s != ("refuse",)]
    later = -(-24 // size) - 1
    expected = [("open", 0), *[("rejoin", 0)] * later, ("close", 0, True)]
    expected += [("open", 1), *[("rejoin", 1)] * later]
    assert said[: len(expected)] == expected and len(said) <= len(expected) + 1
    assert not caplog.messages, "an unmarked end is none"


def test_parts_that_do_not_say_so_are_experiences() -> None:
    plugin = Told(pretrained=False)
    run = strategy([plugin])
    for part in parts(12, access=False):
        run.train(part)
    opened = [s[1] for s in plugin.said if s[0] == "open"]
    assert opened == [1, 2, 3]


def test_a_first_experience_that_is_not_the_streams_is_warned_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A strategy that is made anew for each experience would leave out all of them."""
    plugin, stream = Told(pretrained=False), benchmark().train_stream
    plugin.verbose = True
    strategy([plugin]).train(stream[0])
    assert capsys.readouterr().out.startswith("Told: experience 0, the first of this strategy")
    other = strategy([plugin])
    with pytest.warns(UserWarning, match=r"leaves out experience 1 .* pretrained=True"):
        other.train(stream[1])
    assert not any(what == "open" for what, *_ in plugin.said)
