"""What the commands that train have in common."""

from __future__ import annotations

import pytest

from solo_bridge.commands import parsed, training


def test_the_command_of_a_record_has_what_is_not_usual_and_not_the_seed() -> None:
    def command(*words: str) -> str:
        return training.command_of(parsed(words))

    given = ("--epochs", "2", "--out", "x", "--seed", "3", "--data", "my images")
    assert command("compare", *given, "--strategies", "frozen", "--import", "a.py") == (
        "branchtune compare --strategies … --epochs 2 --import a.py --data 'my images'"
    )
    assert command("compare", "--epochs", "6") == "branchtune compare --strategies …"
    assert command("demo", "--samples", "9", "--jobs", "3") == "branchtune demo --samples 9"
    assert command("demo", "--threads", "2") == "branchtune demo --threads 2"
    published = ("compare", "--preset", "lump/cifar10", "--epochs", "6", "--experiences", "5")
    assert command(*published) == (
        "branchtune compare --strategies … --epochs 6 --preset lump/cifar10 --experiences 5"
    ), "where they are not usual"


@pytest.mark.parametrize(
    ("asked", "device", "threads", "jobs"),
    [
        (None, "cpu", 1, 6),
        (None, "cpu", 4, 1),
        (None, "cpu", 8, 1),
        (None, "cuda", 1, 1),
        (3, "cuda", 1, 3),
    ],
)
def test_as_many_jobs_as_there_are_cores_for(
    asked: int | None, device: str, threads: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "cores", lambda: 6)
    assert training.jobs(asked, device, threads) == jobs
