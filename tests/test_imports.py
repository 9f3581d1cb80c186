"""The import graph of both packages: no circle, nothing upward, no arrow between families.

Read from the text of every module, imports inside of functions included: what is imported late is
needed all the same.
"""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("avalanche_branchtune", "solo_bridge")

LAYERS = {
    "avalanche_branchtune": [
        ("errors", "lazy", "keeping", "hardware", "experiences", "folding", "ranks"),
        ("branches", "optimizers", "rates"),
        ("options", "parts", "lifecycle", "loading", "writing"),
        ("checkpoints", "surgery"),
        ("norms",),
        ("plain_view", "doubts"),
        ("plugin", "fixed_norms", "evaluation", "streams"),
        ("analysis", "records"),
        ("metrics", "report"),
    ],
    "solo_bridge": [
        ("apart", "job", "augmentation", "compiling", "defaults", "finite"),
        ("mean_loss", "side_by_side", "titles"),
        ("compat", "presets"),
        ("views", "backbones", "optim", "lars", "archives", "files", "config", "draws"),
        ("spreading",),
        ("interface", "images"),
        ("method", "minibatch", "conflicts"),
        ("checkpoint", "feeding", "processes", "lasting"),
        ("strategy",),
        ("registry",),
        ("plugins",),
        ("references",),
        ("specification",),
        ("comparison", "lessons"),
        ("study",),
        ("run",),
        ("doctor", "preloaded", "status", "trained"),
        ("exporting",),
        ("commands",),
        ("cli",),
        ("__main__",),
    ],
}
"""The floors of the house: what stands on one may import what stands below, and its neighbours."""


def named(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {named(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
FLOOR = {
    f"{package}.{name}": floor
    for package, floors in LAYERS.items()
    for floor, names in enumerate(floors)
    for name in names
}


@cache
def asked(module: str, late: bool = True) -> frozenset[str]:
    """Everything that a module imports, in functions only if ``late``."""
    found = set()
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}: imports are absolute"
            names = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names.values()}
    return frozenset(found - {module})


@cache
def imported(module: str) -> frozenset[str]:
    """The project's own modules that run when a module is imported, with their packages."""
    found = set()
    for name in asked(module) & FILES.keys():
        parts = name.split(".")
        found |= {".".join(parts[:i]) for i in range(2, len(parts) + 1)} or {name}
    return frozenset(n for n in found if not f"{module}.".startswith(f"{n}."))


def needed(module: str) -> set[str]:
    """A module and all that it imports, directly or not."""
    found, new = {module}, {module}
    while new:
        new = {n for m in new for n in imported(m)} - found
        found |= new
    return found


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_no_module_imports_another_in_a_circle() -> None:
    assert "avalanche_branchtune.surgery" in imported("avalanche_branchtune.norms")
    TopologicalSorter({m: imported(m) for m in FILES}).prepare()  # CycleError names the circle


def test_no_module_imports_one_of_a_higher_floor() -> None:
    rooms = {room(m) for m in FILES} - set(PACKAGES)
    assert rooms == FLOOR.keys(), "a new module has no floor yet, or an old one is gone"
    upward = [
        (module, other)
        for module in FILES
        for other in imported(module)
        if module.split(".")[0] == other.split(".")[0] and "." in module and "." in other
        if FLOOR[room(other)] > FLOOR[room(module)]
    ]
    assert upward == []


def test_the_plugin_knows_nothing_of_the_bridge() -> None:
    bridge = {"solo", "solo_bridge", "lightning", "pytorch_lightning", "omegaconf", "hydra", "timm"}
    for module in FILES:
        if module.split(".")[0] == "avalanche_branchtune":
            assert not {name.split(".")[0] for name in asked(module)} & bridge, module


def test_families_of_plugins_do_not_know_each_other() -> None:
    families = {"distillation", "rehearsal", "partial", "regularizers"}
    prefix = "solo_bridge.plugins."
    arrows = [
        (module, other)
        for module in FILES
        for other in imported(module)
        if module.startswith(prefix) and other.startswith(prefix)
        if {m.split(".")[2] for m in (module, other)} <= families
        if module.split(".")[2] != other.split(".")[2]
    ]
    assert arrows == []


@pytest.mark.parametrize(("package", "uses"), [("records", "pydantic"), ("metrics", "torch")])
def test_what_measures_loads_no_page(package: str, uses: str) -> None:
    """Metrics → records ← report: who only measures needs neither page nor pictures."""
    modules = needed(f"avalanche_branchtune.{package}")
    assert len(modules) > 3
    assert not [m for m in modules if m.startswith("avalanche_branchtune.report")]
    others = {name.split(".")[0] for m in modules for name in asked(m, late=False)}
    assert uses in others and not {"jinja2", "matplotlib"} & others
