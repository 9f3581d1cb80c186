"""metrics → records ← report: none is loaded against the arrows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Which of the packages are loaded, and what they ask for themselves: others load jinja2 and
# matplotlib as well (torch, Avalanche).
IMPORTED = """
import builtins, importlib, json, sys
original, asked = builtins.__import__, set()

def noting(name, given=None, *others):
    if str((given or {}).get("__name__")).startswith("avalanche_branchtune"):
        asked.add(name.partition(".")[0])
    return original(name, given, *others)

builtins.__import__ = noting
importlib.import_module(sys.argv[1])
loaded = {".".join(m.split(".")[:2]) for m in sys.modules if m.startswith("avalanche_branchtune.")}
print(json.dumps([sorted(loaded), sorted(asked)]))
"""


def imported(package: str) -> tuple[set[str], set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, package], capture_output=True, text=True, check=True
    )
    loaded, asked = json.loads(done.stdout.splitlines()[-1])
    return {name.removeprefix("avalanche_branchtune.") for name in loaded}, set(asked)


@pytest.mark.parametrize(
    ("package", "without"), [("metrics", {"report"}), ("records", {"report", "metrics"})]
)
def test_no_page_is_loaded(package: str, without: set[str]) -> None:
    loaded, asked = imported(f"avalanche_branchtune.{package}")
    assert {package, "records"} <= loaded and not without & loaded
    assert "torch" in asked and not {"jinja2", "matplotlib"} & asked


def test_the_report_does_not_load_metrics() -> None:
    loaded, asked = imported("avalanche_branchtune.report")
    assert {"report", "records"} <= loaded and "metrics" not in loaded
    assert {"jinja2", "matplotlib"} <= asked
