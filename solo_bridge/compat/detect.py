"""Which solo-learn is there, found without importing it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from solo_bridge.compat.schedule import WarmupCosine

COMMANDS = ("pip install -e '.[solo]'", "pip install --no-deps solo-learn==1.0.2")
"""What installs a solo-learn that works, in a checkout; --no-deps because 1.0.2 pins torch==1.9.1.
"""

HOW = f"{COMMANDS[1]}; what it needs is the extra [solo], in a checkout: {COMMANDS[0]}"
"""Ends every message about a solo-learn that cannot be worked with."""


@dataclass(frozen=True)
class Found:
    """What was found before anything of solo-learn was imported.

    :param location: folder of the package ``solo``, or None.
    :param version: version in the installed metadata, or None for a source tree.
    :param needs_pl_bolts: True if its code imports ``pl_bolts``.
    """

    location: Path | None
    version: str | None
    needs_pl_bolts: bool


def find() -> Found:
    """Look for solo-learn without importing it.

    :return: what was found.
    """
    spec = importlib.util.find_spec("solo")
    if spec is None or not spec.submodule_search_locations:
        return Found(None, None, False)
    location = Path(next(iter(spec.submodule_search_locations)))
    version = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        distribution = importlib.metadata.distribution("solo-learn")
        # A source tree earlier on the path hides an installed release: its version says nothing.
        if Path(str(distribution.locate_file("solo"))).resolve() == location.resolve():
            version = distribution.version
    base = location / "methods" / "base.py"
    text = base.read_text(encoding="utf-8") if base.is_file() else ""
    return Found(location, version, "import pl_bolts" in text or "from pl_bolts" in text)


@contextlib.contextmanager
def pl_bolts_for(found: Found) -> Iterator[None]:
    """Provide the one name that solo-learn 1.0.2 needs of ``pl_bolts``, while it is imported.

    Nothing is done for a solo-learn that does not ask for it, or where a real
    pl_bolts serves; afterwards ``sys.modules`` is as before.

    :param found: the solo-learn that is about to be imported.
    """
    if not found.needs_pl_bolts or _real_pl_bolts_serves():
        yield
        return
    names = ("pl_bolts", "pl_bolts.optimizers", "pl_bolts.optimizers.lr_scheduler")
    before = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "pl_bolts"}
    for name in before:
        del sys.modules[name]
    stand_ins = {n: types.ModuleType(n) for n in names}
    stand_ins[names[-1]].LinearWarmupCosineAnnealingLR = WarmupCosine  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _real_pl_bolts_serves() -> bool:
    try:
        module = importlib.import_module("pl_bolts.optimizers.lr_scheduler")
    except Exception:  # old releases fail in many ways on current torch and lightning
        return False
    return hasattr(module, "LinearWarmupCosineAnnealingLR")
