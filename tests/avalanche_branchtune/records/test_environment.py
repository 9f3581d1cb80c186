"""What stands beside every number."""

from __future__ import annotations

import json
from importlib.metadata import version

import psutil
import pytest
import torch

from avalanche_branchtune.records import Run, environment, peak_memory_mib
from avalanche_branchtune.records.environment import PACKAGES


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


def test_peak_memory_is_that_of_the_process() -> None:
    held = torch.ones(64 * 1024**2 // 4)
    now = psutil.Process().memory_info().rss / 1024**2
    del held
    assert 64 < 0.95 * now < peak_memory_mib() == peak_memory_mib(torch.device("cpu"))
