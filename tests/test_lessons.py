"""Lessons: one source each, solutions that are right, and scripts that run in time."""

from __future__ import annotations

import os
import re
import resource
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from solo_bridge.lessons.checks import EXERCISES

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "lessons"
MAKE: dict[str, Any] = runpy.run_path(str(PAGES / "make.py"))
LESSONS = sorted(PAGES.glob("[1-9]_*.md"))
PARTS = ("**Time:**", "**Afterwards you know**", "**What this does not show.**", "## To read")
SECONDS = 120
"""Of CPU, of a lesson's processes together, also on a machine that does other work besides."""


def code(page: Path) -> list[str]:
    cells = MAKE["cells"](page.read_text(encoding="utf-8"))
    return [text for kind, text in cells if kind == "code"]


def test_notebooks_and_scripts_are_those_of_the_pages() -> None:
    made = MAKE["made"]()
    assert len(made) == 2 * len(LESSONS) == 10
    there = set((ROOT / "examples" / "lessons").iterdir())
    assert there == made.keys(), "make lessons"
    assert [p for p, text in made.items() if p.read_text(encoding="utf-8") != text] == []


def test_every_exercise_is_asked_once_and_solved(capsys: pytest.CaptureFixture[str]) -> None:
    asked = re.findall(r'^check\("(.*?)"', "\n".join("\n".join(code(p)) for p in LESSONS), re.M)
    assert sorted(asked) == sorted(EXERCISES)
    exec("\n".join(code(PAGES / "solutions.md")), {})
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said == dict.fromkeys(EXERCISES, "right!")


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_a_lesson_says_what_it_takes_and_installs_nothing_by_itself(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for part in PARTS:
        assert part in text
    install, *rest = code(page)
    assert "pip install" in install and all(line[0] == "#" for line in install.splitlines())
    assert "pip install" not in "\n".join(rest)
    figures = [int(number) for number in re.findall(r"^\*Figure (\d)\.", text, re.M)]
    assert figures and figures == list(range(1, len(figures) + 1))


def test_a_page_that_no_notebook_can_be_made_of_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing else"):
        MAKE["cells"]("---\nfile_format: mystnb\n---\n```{note}\nonly for the site\n```\n")
    with pytest.raises(ValueError, match="front matter"):
        MAKE["cells"]("---\ntitle: none\n---\ntext\n")


@pytest.mark.slow
@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_a_lesson_runs_in_time(page: Path, tmp_path: Path) -> None:
    script = ROOT / "examples" / "lessons" / f"{page.stem}.py"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "not yet" in done.stdout, "its exercises are open"
    assert after.ru_utime - before.ru_utime < SECONDS
