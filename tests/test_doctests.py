"""Every public function and class beside ``tests`` in pytest's ``testpaths`` has an example."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest


def without_example(module: ModuleType) -> list[str]:
    """List what is public, defined in the module, and has no example that doctest would run."""
    run = {test.name for test in doctest.DocTestFinder().find(module) if test.examples}
    return [
        name
        for known, thing in vars(module).items()
        if not known.startswith("_")
        and (inspect.isclass(thing) or inspect.isroutine(inspect.unwrap(thing)))
        and thing.__module__ == module.__name__
        and ((name := f"{module.__name__}.{known}") not in run or "Example::" not in thing.__doc__)
    ]


def documented_modules(config: pytest.Config) -> list[ModuleType]:
    files: list[Path] = []
    for path in map(config.rootpath.joinpath, config.getini("testpaths")):
        if path.name != "tests":
            files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    names = [f.relative_to(config.rootpath).with_suffix("").as_posix() for f in files]
    return [importlib.import_module(n.removesuffix("/__init__").replace("/", ".")) for n in names]


def test_every_public_function_and_class_has_an_example(pytestconfig: pytest.Config) -> None:
    modules = documented_modules(pytestconfig)
    names = {module.__name__ for module in modules}
    assert {"avalanche_branchtune.surgery", "avalanche_branchtune.evaluation.knn"} <= names
    assert [name for module in modules for name in without_example(module)] == []


def test_the_examples_are_run(pytestconfig: pytest.Config) -> None:
    assert "--doctest-modules" in pytestconfig.getini("addopts")


SOURCE = '''
from os.path import join
from contextlib import contextmanager

def good():
    """One.

    Example::

        >>> 1 + 1
        2
    """

@contextmanager
def wrapped():
    """Has none."""

def words():
    """Only speaks of an Example:: here."""

def bare(): pass

class Thing: pass

def _private(): pass
'''


def test_what_lacks_an_example_is_listed() -> None:
    module = ModuleType("made_up")
    exec(SOURCE, vars(module))
    listed = without_example(module)
    assert listed == [f"made_up.{name}" for name in ("wrapped", "words", "bare", "Thing")]
