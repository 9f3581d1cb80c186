"""What stands beside every number."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import torch

from avalanche_branchtune.records import Run, environment, peak_memory_mib
from avalanche_branchtune.records.environment import PACKAGES, SOURCE


def test_versions_and_hardware() -> None:
    found = environment()
    assert json.loads(json.dumps(found)) == found, "it goes into a record"
    assert found["versions"]["torch"] == version("torch")
    assert set(found["versions"]) <= set(PACKAGES)
    assert found["threads"] == torch.get_num_threads()
    assert Run("a", 1).environment == found


def test_a_package_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(environment.__globals__, "PACKAGES", ("torch", "not-there"))
    assert list(environment()["versions"]) == ["torch"]


def test_solo_learn_may_be_a_source_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("solo")
    module.__file__ = str(tmp_path / "solo" / "__init__.py")
    monkeypatch.setitem(sys.modules, "solo", module)
    assert environment()["versions"]["solo-learn"] == SOURCE
    monkeypatch.setitem(environment.__globals__, "distribution", not_installed)
    assert environment()["versions"]["solo-learn"] == SOURCE
    monkeypatch.delitem(sys.modules, "solo")
    assert environment()["versions"]["solo-learn"] == version("solo-learn")


def not_installed(package: str) -> None:
    raise PackageNotFoundError(package)


def test_peak_memory_is_that_of_the_process() -> None:
    held = torch.ones(64 * 1024**2 // 4)
    now = psutil.Process().memory_info().rss / 1024**2
    del held
    assert 64 < 0.95 * now < peak_memory_mib() == peak_memory_mib(torch.device("cpu"))
