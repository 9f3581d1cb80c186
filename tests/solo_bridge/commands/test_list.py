"""The command ``branchtune list``."""

from __future__ import annotations

import pytest

from avalanche_branchtune.streams import STREAMS
from solo_bridge import cli
from solo_bridge.commands.list import KINDS
from solo_bridge.comparison.measured import PROBES
from solo_bridge.comparison.scenarios import SCENARIOS
from solo_bridge.compat import load
from solo_bridge.defaults import DEFAULTS
from solo_bridge.presets import PRESETS
from solo_bridge.specification import names


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    assert cli.main(["list", *words]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    return {line[0]: line[1] for line in lines}


def test_all_that_there_is_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(listed(capsys)) == list(KINDS)
    assert listed(capsys, "methods").keys() == DEFAULTS.keys()
    assert listed(capsys, "methods")["mae"] == "ADAMW, lr 0.0002 · batch/256, vit_tiny"
    assert list(listed(capsys, "strategies")) == names()
    assert listed(capsys, "streams").keys() == STREAMS.keys()
    assert listed(capsys, "scenarios") == SCENARIOS
    assert listed(capsys, "probes") == PROBES
    assert listed(capsys, "presets").keys() == PRESETS.keys()
    found = listed(capsys, "backbones")
    assert {n for n, what in found.items() if what == "solo-learn"} == set(load().backbone_names())
    assert found["mobilenet_v2"] == "torchvision" and "timm" in found["…"]
