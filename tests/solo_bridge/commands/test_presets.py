"""The command ``branchtune presets``."""

from __future__ import annotations

import pytest

from solo_bridge import cli
from solo_bridge.presets import PRESETS


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
