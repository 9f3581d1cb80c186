"""With which versions the tests pass: ``python -m benchmarks.versions FOLDER 3.10:lowest 3.13``.

For each Python (a version, or a path) an environment is made in FOLDER by uv, with the newest
versions of everything, or with the lowest that ``setup.py`` admits of what it names; tests of every
part run there, and docs/versions.md is written anew with what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import xml.etree.ElementTree as ElementTree
from datetime import date
from pathlib import Path
from typing import Any

from avalanche_branchtune.records.environment import environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/versions.json"
PAGE = ROOT / "docs/versions.md"
SOLO_LEARN = "solo-learn==1.0.2"
TESTS = (
    *("analysis", "evaluation", "records", "checkpoints/test_encoding.py"),
    *("metrics/test_recorder.py", "metrics/test_trackers.py", "streams/test_labels.py"),
    *("test_branches.py", "test_folding.py", "test_norms.py", "test_plugin.py", "test_rates.py"),
)
"""Of avalanche_branchtune."""
OF_BRIDGE = (
    *("test_method.py", "test_checkpoint.py", "test_strategy.py", "test_lars.py", "test_optim.py"),
    *("test_backbones.py", "test_doctor.py", "config", "views"),
)
"""Of solo_bridge."""
SHOWN = (
    *("torch", "torchvision", "avalanche-lib", "numpy", "scikit-learn", "scipy", "matplotlib"),
    *("lightning", "torchmetrics", "timm", "pydantic", "wandb", "tensorboard"),
)
"""Distributions whose versions are noted."""
INTRODUCTION = """# Versions

With which versions tests were run, and what came of it. Written by `make test-versions`, which
makes an environment for each row: *newest* has the newest versions of everything that there is for
that Python, *lowest* the lowest that `setup.py` admits of what it names, and the newest of the
rest. The tests are those of {tests} files and folders, of every part, without those marked slow;
warnings, which are errors in the suite itself, are none here. The whole suite runs with Python 3.11
and the newest versions (`make test`).

"""
NOTES = """
**Norms in eval mode in a network that is compiled already** (`norm_mode="eval"`, not the default):
torch before 2.15 does not see that they are fixed and would go on in training mode, so fixing and
restoring them calls `torch.compiler.reset()` there, and everything compiled is compiled anew.
"""


def run(name: str, folder: Path) -> dict[str, Any]:
    """Make an environment, run the tests in it, and return what came of it.

    :param name: Python, with ``:lowest`` for the lowest versions.
    :param folder: of the environments.
    """
    python, _, kind = name.partition(":")
    home = folder / f"{Path(python).name.removeprefix('python')}-{kind or 'newest'}"
    subprocess.run(["uv", "venv", "--clear", "--python", python, home], check=True)
    resolution = "lowest-direct" if kind == "lowest" else "highest"
    pip = ["uv", "pip", "install", "--python", home]
    subprocess.run([*pip, "--resolution", resolution, f"{ROOT}[solo,test]"], check=True)
    subprocess.run([*pip, "--no-deps", SOLO_LEARN], check=True)
    subprocess.run(["uv", "pip", "uninstall", "--python", home, "avalanche-branchtune"], check=True)
    report = home / "report.xml"
    files = [f"tests/avalanche_branchtune/{f}" for f in TESTS]
    files += [f"tests/solo_bridge/{f}" for f in OF_BRIDGE]
    options = ["-p", "no:cacheprovider", "-o", "filterwarnings=default", f"--junitxml={report}"]
    subprocess.run(
        [home / "bin/python", "-m", "pytest", *options, *files],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    return {"kind": kind or "newest", **_found(report), **_versions(home)}


def _found(report: Path) -> dict[str, Any]:
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname')}.{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    passed = count["tests"] - len(failed) - count["skipped"]
    return {"passed": passed, "failed": failed, "skipped": count["skipped"]}


def _versions(home: Path) -> dict[str, Any]:
    code = (
        "import json, platform; from importlib.metadata import version\n"
        f"names = {SHOWN}\n"
        "print(json.dumps([platform.python_version(), {n: version(n) for n in names}]))"
    )
    found = subprocess.run(
        [home / "bin/python", "-c", code], check=True, capture_output=True, text=True
    )
    python, versions = json.loads(found.stdout)
    return {"python": python, "versions": versions, "date": str(date.today())}


def page(rows: list[dict[str, Any]], made: dict[str, Any]) -> str:
    """Return the page.

    :param rows: see :func:`run`.
    :param made: on which machine.
    """
    lines = [INTRODUCTION.format(tests=len(TESTS) + len(OF_BRIDGE))]
    lines += [f"| Python | | {' | '.join(SHOWN)} | passed | skipped | failed |\n"]
    lines += ["|" + "---|" * (len(SHOWN) + 5) + "\n"]
    for row in rows:
        versions = " | ".join(row["versions"].get(name, "–") for name in SHOWN)
        counts = f"{row['passed']} | {row['skipped']} | {', '.join(row['failed']) or '–'}"
        lines += [f"| {row['python']} | {row['kind']} | {versions} | {counts} |\n"]
    lines += [f"\nOn {made['cores']} cores of an {made['processor']}, CPU only.\n"]
    return "".join([*lines, NOTES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the environments, which take some 6 GB each")
    parser.add_argument(
        "pythons", nargs="*", help="such as 3.10:lowest, 3.13; none: the page alone"
    )
    options = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    known["machine"] = {k: v for k, v in environment().items() if k in ("cores", "processor")}
    for name in options.pythons:
        row = run(name, options.folder.resolve())
        same = [r["python"] == row["python"] and r["kind"] == row["kind"] for r in known["rows"]]
        known["rows"] = [r for r, old in zip(known["rows"], same, strict=True) if not old] + [row]
        known["rows"].sort(key=lambda r: ([*map(int, r["python"].split("."))], r["kind"]))
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    PAGE.write_text(page(known["rows"], known["machine"]))


if __name__ == "__main__":
    main()
