"""The command ``branchtune compare``, up to where it trains."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avalanche_branchtune.checkpoints.lock import LOCK, locked
from solo_bridge import cli, comparison
from solo_bridge.apart import Stopped
from solo_bridge.commands import training
from solo_bridge.comparison import works
from solo_bridge.presets import PRESETS
from tests.run_records import run
from tests.solo_bridge import without_solo_learn

SMALL = ["--samples", "200", "--epochs", "1", "--strategies", "frozen,fine_tuning"]


@pytest.fixture
def _threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(training, "prepare", lambda *modules: None)  # nothing is trained
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_threads")
def test_a_folder_with_results_or_in_use_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(out: Path) -> str:
        assert cli.main(["compare", *SMALL, "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("branchtune compare: ")
        return error

    run().save(tmp_path / "old" / "fine_tuning-0")
    error = said(tmp_path / "old")
    assert "fine_tuning-0 holds the record of a run already" in error
    assert "or another seed (--seed)" in error and "overwrite" not in error
    with locked(tmp_path / "old"):
        assert "another process" in said(tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["fine_tuning-0"]
    (tmp_path / "file").touch()
    assert "file is a file" in said(tmp_path / "file")


@pytest.mark.usefixtures("_threads")
def test_an_interrupt_says_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def side_by_side(tasks: list[Any], jobs: int, ended: Any, *more: Any) -> None:
        (frozen, *_), _ = tasks
        settings = {"specification": frozen}
        run(frozen, settings=settings).save(tmp_path / "out" / f"{frozen}-0")
        ended(frozen)
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(works, "run_side_by_side", side_by_side)
    assert cli.main(["compare", *SMALL, "--out", str(tmp_path / "out")]) == 130
    printed = capsys.readouterr()
    finished = "1 of 2 strategies finished (frozen)"
    out = tmp_path / "out"
    where = f"records in {out}; go on with: branchtune resume {out}"
    assert printed.err == f"branchtune compare: interrupted by SIGINT; {finished}, {where}\n"
    assert printed.out == "" and not (tmp_path / "out" / LOCK).exists()


def test_compare_without_solo_learn_and_what_it_needs() -> None:
    code = """
    sys.modules['omegaconf'] = sys.modules['lightning'] = None
    from solo_bridge import cli
    from solo_bridge.commands import training
    training.prepare = lambda *modules: None  # another process, where nothing is hidden
    sys.exit(cli.main(['compare']))
    """
    done = without_solo_learn.run(without_solo_learn.HIDE + code)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "pip install --no-deps solo-learn==1.0.2; what it needs is the extra" in done.stderr


def test_names_are_listed_in_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({re.match(r"\w+ {2,}", line).end() for line in lines}) == 1  # type: ignore[union-attr]
    assert any(line.endswith("  replay, first 1 %") for line in lines)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("option", ["--jobs", "--threads"])
def test_no_jobs_and_no_threads(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *SMALL, option, "0", "--out", str(tmp_path / "out")]) == 2
    assert f"{option}: expected a whole number of at least 1; got 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ([], "'cassle/cifar100' is of CIFAR-100: pass the folder that holds it (--data)"),
        (["--preset", "cassle/cifar10"], "did you mean cassle/cifar100?"),
        (["--method", "simsiam"], "'simsiam' was not run there; it has barlow_twins, byol"),
    ],
)
def test_a_preset_that_cannot_be_compared(
    option: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--preset", "cassle/cifar100", *option, "--out", str(tmp_path / "out")]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_threads")
def test_a_preset_is_compared_as_published_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], comparison.Comparison]] = []

    def stop(specs: list[str], what: comparison.Comparison, *arguments: Any, **more: Any) -> None:
        asked.append((specs, what))
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(comparison, "compare", stop)
    words = ["compare", "--data", "x", "--method", "byol", "--out", str(tmp_path)]
    for more in (["--preset", "kaizen/cifar100"], ["--preset", "lump/cifar10", "--epochs", "3"]):
        assert (
            cli.main([*words, "--method", "barlow_twins" if "3" in more else "byol", *more]) == 130
        )
    assert cli.main([*words, "--strategies", "frozen"]) == 130
    (specs, kaizen), (others, lump), (_, plain) = asked
    assert specs == list(PRESETS["kaizen/cifar100"].strategies) != comparison.everything()
    assert others == ["fine_tuning", "lump", "joint"]
    assert (kaizen.epochs, kaizen.experiences, kaizen.size, kaizen.batch) == (500, 5, 32, 256)
    assert kaizen.overridden() == {"precision": "bf16 instead of 16, on a CPU"}
    assert (lump.epochs, lump.overridden()) == (3, {"epochs": "3 instead of 200"})
    assert (plain.preset, plain.epochs, plain.size, plain.experiences) == (None, 6, 32, 5)
