"""Python in a process of its own, where solo-learn can be hidden or replaced."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, where solo-learn can be hidden or replaced."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


HIDE = """
    import importlib.util, sys
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda n, *a: None if n.split(".")[0] == "solo" else real(n, *a)
"""
