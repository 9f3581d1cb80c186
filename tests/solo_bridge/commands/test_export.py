"""The command ``branchtune export``; what it writes is tested in tests/solo_bridge."""

from __future__ import annotations

from pathlib import Path

import pytest

from solo_bridge import cli, exporting
from solo_bridge.commands import export
from tests.solo_bridge.commands.made import SIZE, network, refused


def test_formats_are_those_that_can_be_written() -> None:
    assert tuple(exporting.FORMATS) == export.FORMATS


def test_a_file_and_how_it_was_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "a.pt", tmp_path / "new" / "b.safetensors"
    network(path)
    assert cli.main(["export", str(path), str(out), *SIZE, "--format", "safetensors"]) == 0
    compared = "read back: outputs bit-equal on 4 random images of 8 pixels"
    assert capsys.readouterr().out == f"{out}: small_resnet(4), {compared}\n"
    said = refused(capsys, "export", path, tmp_path / "c.pt", *SIZE, "--format", "safetensors")
    assert "expected a name ending in .safetensors" in said

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "_weights", interrupted)
    before = out.read_bytes()
    assert cli.main(["export", str(path), str(out), *SIZE, "--format", "safetensors"]) == 130
    assert capsys.readouterr().err == "branchtune export: interrupted\n"
    assert list(out.parent.iterdir()) == [out] and out.read_bytes() == before
