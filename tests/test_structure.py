"""The folders of tests are those of the packages."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def folders(top: Path) -> set[Path]:
    """``top`` and the folders below it that hold Python files, relative to the repository."""
    return {file.parent.relative_to(ROOT) for file in top.rglob("*.py")}


@pytest.mark.parametrize("package", ["avalanche_branchtune", "solo_bridge"])
def test_every_folder_of_tests_mirrors_one_of_its_package(package: str) -> None:
    there = {Path("tests") / folder for folder in folders(ROOT / package)}
    here = folders(ROOT / "tests" / package)
    assert Path("tests") / package in here
    assert sorted(here - there) == [], "tests of what? no such folder in the package"


def test_every_folder_of_tests_is_a_package() -> None:
    """Else two files of one name, as ``test_features.py``, would be one module to pytest."""
    lacking = {f for f in folders(ROOT / "tests") if not (ROOT / f / "__init__.py").exists()}
    assert sorted(lacking) == []
