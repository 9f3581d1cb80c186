"""The command ``branchtune``."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from avalanche_branchtune import __version__
from solo_bridge import cli
from solo_bridge.commands import COMMANDS
from tests.run_records import full, joint


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
    assert all(f"\n    {name} " in text for name in COMMANDS)
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
        ["list", "methods"],
        ["list", "probes"],
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


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out == f"branchtune {__version__}\n"


def test_a_full_disk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/run.json")

    monkeypatch.setattr(cli, "command", lambda name: SimpleNamespace(run=full))
    assert cli.main(["report", "runs"]) == 2
    assert capsys.readouterr().err == (
        "branchtune report: [Errno 28] No space left on device: 'runs/run.json': make room, and "
        "give the same command again\n"
    )


def test_equal_warnings_are_shown_once() -> None:
    """As where no handlers are set: pytest has its own."""
    code = (
        "import logging\n"
        "from solo_bridge.cli import said_once\n"
        "with said_once():\n"
        "    for text in ('a', 'b', 'a', 'a'): logging.getLogger('x').warning('%s', text)\n"
        "logging.getLogger('x').warning('a')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["a", "b", "a"]
