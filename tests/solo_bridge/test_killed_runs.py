"""Runs whose process is killed with SIGKILL, anywhere, end as if it never was."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from avalanche_branchtune.checkpoints.data import NamedData, within
from avalanche_branchtune.checkpoints.state import restore, snapshot
from solo_bridge import build
from tests.killed_runs import END, KINDS, SUPERVISED, Kill, attempted, compare, drawn, killed
from tests.killed_writing import MOMENTS, ONCE
from tests.selfsupervised import method, stream

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")

Check = Callable[[str, list[Kill]], None]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Kill a run of a kind, and compare what it left with a run that was not killed."""
    wholes: dict[str, Path] = {}

    def checked(kind: str, kills: list[Kill]) -> None:
        folder = tmp_path_factory.mktemp("killed")
        if kind not in wholes:
            wholes[kind] = folder / "whole"
            assert not attempted(kind, wholes[kind], None)
        found = killed(kind, folder / "parts", kills)
        assert found.killed == kills, "it ended before it was killed"
        compared, differing = compare(wholes[kind], folder / "parts")
        assert compared > 5000 and not differing

    return checked


@pytest.mark.parametrize(
    ("kind", "writing"),
    [
        ("CaSSLe + Branch-tuning", Kill(13, moment="half state/.pt")),
        (SUPERVISED, Kill(0, moment="half record/.json")),
    ],
)
def test_at_three_moments(kind: str, writing: Kill, check: Check) -> None:
    check(kind, [Kill(3, 0.01), writing, Kill(29, 0.02)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_at_ten_moments(kind: str, check: Check) -> None:
    check(kind, drawn(10, 5, 1, 40, 1.0))


@pytest.mark.slow
def test_at_fifty_moments(check: Check) -> None:
    check("Kaizen + replay", drawn(50, 10, 1, 40, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_at_every_moment_of_writing(moment: str, check: Check) -> None:
    check(SUPERVISED, [Kill(5), Kill(0 if moment in ONCE else 20, moment=moment)])


def test_a_buffer_that_was_restored_is_saved_again() -> None:
    """Nothing enters it between two interruptions: it is the one that the first checkpoint gave."""

    def made() -> Any:
        options = {"replay": {"size": 40, "batch_size_mem": 4}}
        return build("replay", method(), options=options, train_mb_size=5, evaluator=None)

    experience = stream(5).train_stream[0]
    data = NamedData().of([experience])
    strategy = made()
    known = within([vars(strategy), *strategy.plugins])
    strategy.train(experience)
    for _ in range(3):
        state = snapshot(strategy, data, known)
        strategy = made()
        known = within([vars(strategy), *strategy.plugins])
        restore(strategy, state, data)
        (replay,) = (p for p in strategy.plugins if hasattr(p, "storage_policy"))
        assert len(replay.storage_policy.buffer) == 20


def test_features_are_computed_again(tmp_path: Path) -> None:
    """The addresses of data sets, by which they are known, are another process's."""
    attempted("Branch-tuning", tmp_path, None)
    state = max((tmp_path / "state").glob("state-*.pt"))
    assert "FeatureCache" not in str(torch.load(state, weights_only=True))


def test_what_differs_is_found(tmp_path: Path) -> None:
    """The comparison sees a number, a line and a file that should not be there."""
    attempted(SUPERVISED, tmp_path / "a", None)
    attempted(SUPERVISED, tmp_path / "b", None)
    assert compare(tmp_path / "a", tmp_path / "b")[1] == []
    end: dict[str, Any] = torch.load(tmp_path / "b" / END, weights_only=True)
    end["weights"]["fc.bias"][3] += 2**-24
    torch.save(end, tmp_path / "b" / END)
    values = tmp_path / "b" / "record" / "metrics.csv"
    lines = values.read_text().splitlines()
    values.write_text("\n".join([*lines, lines[-1]]) + "\n")
    (tmp_path / "b" / "record" / ".0123456789abcdef.json").touch()
    differing = compare(tmp_path / "a", tmp_path / "b")[1]
    assert {name.split("/")[0] for name in differing} == {"end", "metrics.csv", "files"}
    assert "end/weights/fc.bias/3" in differing
