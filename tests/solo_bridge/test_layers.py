"""Modules import downward only, also inside functions, so that none needs another half made."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import solo_bridge

ROOT = Path(solo_bridge.__file__).parent
LAYERS = [
    ("augmentation", "defaults", "compat"),
    ("views", "backbones", "optim", "lars", "files", "config"),
    ("method",),
    ("checkpoint", "strategy"),
    ("registry",),
    ("plugins",),
    ("references",),
    ("comparison",),
    ("doctor", "__main__"),
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def named(path: Path) -> str:
    inside = path.relative_to(ROOT.parent).with_suffix("")
    return ".".join(inside.parts).removesuffix(".__init__")


FILES = {named(path): path for path in ROOT.rglob("*.py")}


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            inside = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in inside.values()}
    return found & FILES.keys() - {module}


def test_no_module_imports_another_in_a_circle() -> None:
    graph = {module: imported(module) for module in FILES}
    assert "solo_bridge.config" in graph["solo_bridge.method"]
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_module_imports_one_of_a_higher_layer() -> None:
    def rank(module: str) -> int | None:
        return RANK.get(module.split(".")[1]) if "." in module else None

    upward = [
        (module, other)
        for module in FILES
        for other in imported(module)
        if None not in (rank(module), rank(other)) and rank(other) > rank(module)  # type: ignore[operator]
    ]
    assert upward == []
