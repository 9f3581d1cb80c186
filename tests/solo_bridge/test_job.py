"""Who speaks, of the processes of a job."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest

from avalanche_branchtune.errors import OtherProcessError, ProbeError
from solo_bridge import cli, job
from solo_bridge.apart import Stopped


@pytest.fixture
def _follows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(job, "GRACE", 0.0)


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        print("printed")
        warnings.warn("warned", stacklevel=1)
        raise error

    return work


@pytest.mark.usefixtures("_follows")
def test_a_process_that_follows_says_its_own_errors_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert job.follow("demo", lambda: print("printed")) == 0
    assert job.follow("demo", raising(OtherProcessError("the first has failed"))) == 0
    assert job.follow("demo", raising(Stopped(15))) == 0
    assert capsys.readouterr() == ("", "")
    assert job.follow("demo", raising(ProbeError("two\nlines"))) == 2
    assert capsys.readouterr() == ("", "branchtune demo: process 1: two lines\n")


@pytest.mark.usefixtures("_follows")
@pytest.mark.parametrize("words", [["--help"], ["nothing"], ["status", "."], ["report", "none"]])
def test_commands_that_train_nothing_are_the_first_ones(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    assert capsys.readouterr() == ("", "")


def test_the_first_and_a_process_alone_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not job.follows() and job.size() == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert not job.follows(), "variables that torchrun did not set"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert job.follows() and job.size() == 2
    monkeypatch.setenv("RANK", "0")
    assert not job.follows()
