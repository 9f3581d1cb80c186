"""metrics → records ← report: none is loaded against the arrows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Torch and Avalanche load jinja2 and matplotlib too, so what counts is who asks for them.
IMPORTED = """
import builtins, importlib, json, sys

def part(name):
    names = name.split(".")
    return names[min(1, len(names) - 1)] if names[0] == "avalanche_branchtune" else names[0]

def noting(name, given=None, *others):
    by = str((given or {}).get("__name__"))
    if by.startswith("avalanche_branchtune."):
        asked.setdefault(part(by), set()).add(part(name))
    return original(name, given, *others)

original, asked, loaded = builtins.__import__, {}, {}
builtins.__import__ = noting
for package in ("records", "metrics", "report"):
    importlib.import_module(f"avalanche_branchtune.{package}")
    loaded[package] = [part(m) for m in sys.modules if m.startswith("avalanche_branchtune.")]
print(json.dumps([loaded, {by: list(names) for by, names in asked.items()}]))
"""


@pytest.fixture(scope="module")
def imports() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    command = [sys.executable, "-c", IMPORTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded, asked = json.loads(done.stdout.splitlines()[-1])
    return loaded, asked


def test_records_load_neither_metrics_nor_report(imports: tuple[dict[str, list[str]], ...]) -> None:
    loaded, asked = imports
    assert "records" in loaded["records"] and "pydantic" in asked["records"]
    assert not {"metrics", "report"} & {*loaded["records"], *asked["records"]}


def test_metrics_load_no_page(imports: tuple[dict[str, list[str]], ...]) -> None:
    loaded, asked = imports
    assert {"metrics", "records"} <= set(loaded["metrics"]) and "records" in asked["metrics"]
    assert "report" not in {*loaded["metrics"], *asked["metrics"]}
    for package in set(loaded["metrics"]) & set(asked):
        assert not {"jinja2", "matplotlib"} & set(asked[package]), package


def test_the_report_asks_for_no_metrics(imports: tuple[dict[str, list[str]], ...]) -> None:
    _, asked = imports
    assert {"records", "jinja2", "matplotlib"} <= set(asked["report"])
    assert "metrics" not in asked["report"]
