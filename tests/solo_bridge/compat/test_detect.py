"""Finding solo-learn without importing it."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from solo_bridge.compat import find, load
from solo_bridge.compat.detect import Found, pl_bolts_for
from solo_bridge.compat.schedule import WarmupCosine


def test_stand_in_for_pl_bolts_is_there_only_during_the_import() -> None:
    asks = Found(Path("."), "1.0.2", needs_pl_bolts=True)
    assert "pl_bolts" not in sys.modules
    with pl_bolts_for(asks):
        from pl_bolts.optimizers.lr_scheduler import (  # type: ignore[import-not-found]
            LinearWarmupCosineAnnealingLR,
        )

        assert LinearWarmupCosineAnnealingLR is WarmupCosine
    assert not any(n.split(".")[0] == "pl_bolts" for n in sys.modules)
    with pl_bolts_for(Found(Path("."), "1.0.6", needs_pl_bolts=False)):
        assert "pl_bolts" not in sys.modules


def test_a_real_pl_bolts_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["pl_bolts", "pl_bolts.optimizers", "pl_bolts.optimizers.lr_scheduler"]
    real = {n: types.ModuleType(n) for n in names}
    for n, m in real.items():
        monkeypatch.setitem(sys.modules, n, m)
    with pl_bolts_for(Found(Path("."), "1.0.2", needs_pl_bolts=True)):
        assert sys.modules["pl_bolts"] is not real["pl_bolts"], "it lacks the name: not used"
    assert sys.modules["pl_bolts"] is real["pl_bolts"], "and is put back"
    real[names[-1]].LinearWarmupCosineAnnealingLR = object  # type: ignore[attr-defined]
    with pl_bolts_for(Found(Path("."), "1.0.2", needs_pl_bolts=True)):
        assert sys.modules["pl_bolts"] is real["pl_bolts"]


def test_what_was_found() -> None:
    found = find()
    assert found.location is not None
    assert found.location.name == "solo"
    assert found.needs_pl_bolts == (load().name == "release 1.0.2")
