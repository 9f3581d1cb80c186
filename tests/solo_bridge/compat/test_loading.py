"""Importing solo-learn, and refusing what cannot be worked with."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalanche_branchtune.errors import UnsupportedSoloLearnError
from tests.solo_bridge.without_solo_learn import HIDE, run


def test_importing_without_solo_learn_gives_the_exact_command() -> None:
    result = run(HIDE + "    from solo_bridge import SoloMethod")
    assert result.returncode == 1
    assert "UnsupportedSoloLearnError: solo_bridge needs solo-learn" in result.stderr
    assert "solo-learn. pip install --no-deps solo-learn==1.0.2; " in result.stderr
    assert "the extra [solo], in a checkout: pip install -e '.[solo]'" in result.stderr


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("class BaseMethod:\n    def __init__(self, options): ...", "has an API that is not known"),
        ("import a_module_that_is_missing", "cannot be imported: No module named"),
    ],
)
def test_unsupported_solo_learn_is_refused(tmp_path: Path, base: str, message: str) -> None:
    package = tmp_path / "solo" / "methods"
    package.mkdir(parents=True)
    (tmp_path / "solo" / "__init__.py").touch()
    (package / "__init__.py").write_text("METHODS = {}")
    (package / "base.py").write_text(base)
    code = f"""
    import sys
    sys.path.insert(0, {str(tmp_path)!r})
    from solo_bridge import build
    """
    result = run(code)
    assert "UnsupportedSoloLearnError" in result.stderr
    assert message in result.stderr
    assert str(tmp_path) in result.stderr


def test_error_is_an_import_error() -> None:
    assert issubclass(UnsupportedSoloLearnError, ImportError)
