"""The command ``branchtune``."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avalanche_branchtune import __version__
from avalanche_branchtune.checkpoints.lock import LOCK, locked
from solo_bridge import cli, comparison
from solo_bridge.apart import Stopped
from solo_bridge.comparison import together
from solo_bridge.presets import PRESETS
from tests.run_records import FIRST, full, joint, run
from tests.solo_bridge import without_solo_learn


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(rows=FIRST[:2]).save(tmp_path / "runs" / "a")
    joint().save(tmp_path / "runs" / "b")
    out = tmp_path / "out"
    assert cli.main(["report", str(tmp_path / "runs"), "--out", str(out), "--title", "T"]) == 0
    printed = capsys.readouterr()
    assert "Partial run: fine-tuning, seed 0 finished 2 of 3" in printed.out
    assert printed.out.splitlines()[-1] == str(out / "report.html")
    assert "<h1>T</h1>" in (out / "report.html").read_text(encoding="utf-8")


def test_report_goes_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joint().save(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "runs"]) == 0
    assert (tmp_path / "report" / "report.html").is_file()


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert cli.main(["report", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and printed.err.startswith("branchtune report: ")
    return printed.err


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", tmp_path / "out"]
    assert "no record of a run" in complaint(capsys, tmp_path / "missing", *out)
    assert "has a run.json" in complaint(capsys, tmp_path, *out)
    path = run("two\nlines").save(tmp_path / "a") / "run.json"
    run("two\nlines", 1, settings={}).save(tmp_path / "b")
    said = complaint(capsys, tmp_path / "a", tmp_path / "b", *out)
    assert "settings.data" in said and str(tmp_path / "b") in said
    content = json.loads(path.read_text(encoding="utf-8"))
    content["probes"]["knn"]["accuracies"][1][0] = 1.5
    path.write_text(json.dumps(content), encoding="utf-8")
    said = complaint(capsys, tmp_path / "a", *out)
    assert f"{path}: field 'probes.knn.accuracies[1][0]'" in said
    path.write_bytes(b"\xff\xfe{")
    assert f"{path}: cannot be read" in complaint(capsys, tmp_path / "a", *out)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joint().save(tmp_path / "a")
    (tmp_path / "file").write_text("")
    assert "file" in complaint(capsys, tmp_path / "a", "--out", tmp_path / "file")


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["report"], ["nothing"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
        assert "usage: branchtune" in capsys.readouterr().err


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(
        f"\n    {name} " in text
        for name in (
            "check",
            "compare",
            "demo",
            "doctor",
            "presets",
            "report",
            "resume",
            "status",
            "views",
        )
    )
    with pytest.raises(SystemExit):
        cli.main(["report", "--help"])
    text = capsys.readouterr().out
    assert "default: report, in the current folder" in " ".join(text.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["compare", "--list"],
        ["presets"],
        ["presets", "cassle/cifar100"],
        ["status", "."],
        ["report", "runs"],
    ],
)
def test_starts_without_what_trains(tmp_path: Path, arguments: list[str]) -> None:
    """No traceback, no warning, and neither solo-learn, Avalanche nor torch is imported."""
    joint(sample=full().sample).save(tmp_path / "runs")
    code = (
        "import sys; from solo_bridge.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'solo', 'lightning', 'omegaconf', 'avalanche', 'torch', 'sklearn', 'scipy'}\n"
        "print(heavy & set(sys.modules) or 'light')"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "light"
    assert done.stderr == ""


def test_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "solo_bridge", "report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "run.json" in done.stderr


SMALL = ["--samples", "200", "--epochs", "1", "--strategies", "frozen,fine_tuning"]


@pytest.fixture
def _threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cli, "prepare", lambda *modules: None)  # nothing is trained
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
    assert "(--out) or another seed (--seed)" in error and "overwrite" not in error
    with locked(tmp_path / "old"):
        assert "another process" in said(tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["fine_tuning-0"]
    (tmp_path / "file").touch()
    assert "file is a file" in said(tmp_path / "file")


@pytest.mark.usefixtures("_threads")
def test_an_interrupt_says_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def side_by_side(tasks: list[Any], jobs: int, ended: Any) -> None:
        (frozen, *_), _ = tasks
        settings = {"specification": frozen}
        run(frozen, settings=settings).save(tmp_path / "out" / f"{frozen}-0")
        ended(frozen)
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(together, "run_side_by_side", side_by_side)
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
    cli.prepare = lambda *modules: None  # another process, where nothing is hidden
    sys.exit(cli.main(['compare']))
    """
    done = without_solo_learn.run(without_solo_learn.HIDE + code)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "In a checkout of this project: pip install -e '.[solo]' && pip " in done.stderr


def test_the_command_of_a_record_has_what_is_not_usual_and_not_the_seed() -> None:
    def command(*words: str) -> str:
        return cli._command(cli.parser().parse_args(words))

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
    monkeypatch.setattr(cli, "cores", lambda: 6)
    assert cli._jobs(asked, device, threads) == jobs


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("option", ["--jobs", "--threads"])
def test_no_jobs_and_no_threads(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *SMALL, option, "0", "--out", str(tmp_path / "out")]) == 2
    assert f"{option}: expected a whole number of at least 1; got 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_are_listed_in_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({re.match(r"\w+ {2,}", line).end() for line in lines}) == 1  # type: ignore[union-attr]
    assert any(line.endswith("  replay, first 1 %") for line in lines)


def test_presets_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(PRESETS)
    assert lines[-1].endswith("arXiv 2112.15022: barlow_twins")
    assert cli.main(["presets", "lump/cifar10"]) == 0
    text = capsys.readouterr().out
    assert "code: divyam3897/UCL cfaa81d" in text and "plugin lump: memory 256, alpha 0.4" in text
    assert "SGD, lr 0.03 · batch/256; momentum 0.9, weight decay 0.0005; constant\n" in text
    assert "crop 0.2 to 1 at 32, jitter 0.4 0.4 0.4 0.1 with 0.8" in text
    assert cli.main(["presets", "kaizen/cifar100"]) == 0
    text = capsys.readouterr().out
    assert "10 epochs of warm-up from 0.003; to 0 by half a cosine, a step each epoch" in text
    assert cli.main(["presets", "kaizen"]) == 2
    assert "preset: expected one of branch_tuning/cifar100" in capsys.readouterr().err


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


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out == f"branchtune {__version__}\n"
