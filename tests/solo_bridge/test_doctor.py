"""What is said about the installation."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from solo_bridge.cli import main
from solo_bridge.compat import load
from tests.solo_bridge.without_solo_learn import HIDE, run


def test_doctor_runs_without_solo_learn() -> None:
    result = run(HIDE + "    from solo_bridge.cli import main\n    sys.exit(main(['doctor']))")
    assert result.returncode == 1, result.stderr
    assert "solo-learn not found" in result.stdout
    assert "pip install --no-deps solo-learn==1.0.2" in result.stdout


def check(text: str) -> None:
    assert f"API generation: {load().name}" in text
    assert "simclr" in text
    assert f"torch             {torch.__version__.split('+')[0]}" in text


def test_doctor_with_solo_learn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    check(capsys.readouterr().out)


@pytest.mark.slow
def test_doctor_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "solo_bridge", "doctor"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    check(result.stdout)
