"""The command ``branchtune analyse``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avalanche_branchtune.analysis import layerwise_cka
from avalanche_branchtune.streams import unlabelled_folder
from solo_bridge import cli
from solo_bridge.views import EvalTransform
from tests.solo_bridge.commands.made import SIZE, images, network, refused


def test_likeness_of_every_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = images(tmp_path / "data")
    a, b, c = (network(tmp_path / f"{name}.pt", seed) for seed, name in enumerate("abc"))
    paths = [str(tmp_path / f"{name}.pt") for name in "ab"]
    words = ["analyse", *paths, "--data", str(data), *SIZE]
    files = ["--json", str(tmp_path / "a.json"), "--out", str(tmp_path / "a.svg")]
    new = ["--joint", str(tmp_path / "c.pt"), "--new-data", str(data / "train")]
    assert cli.main([*words, *files, *new]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    view = EvalTransform(8)
    old, other = (
        [(view(image), label) for image, label in unlabelled_folder(data / part)]
        for part in ("test", "train")
    )
    for key, reference, seen in (("stability", a, old), ("plasticity", c, other)):
        expected = layerwise_cka(b, reference, seen)
        measured = found[key]["layers"]
        assert measured == pytest.approx(expected, abs=1e-3), "the images in another order"
        assert found[key]["mean"] == pytest.approx(sum(measured.values()) / len(measured))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "S", "P"] and lines[1].split()[0] == "0"
    means = [f"{found[key]['mean']:.4f}" for key in ("stability", "plasticity")]
    assert lines[-3].split() == ["mean", *means]
    assert lines[-1] == str(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    assert cli.main([*words[:2], *words[1:2], *words[3:]]) == 0
    assert capsys.readouterr().out.splitlines()[-2].split() == ["mean", "1.0000"], "with itself"


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pt"
    network(path)
    data = images(tmp_path / "data", 2, 1)
    words = ("analyse", path, path, "--data", data, *SIZE)
    assert "no minibatch of at least 4 samples" in refused(capsys, *words)
    assert "--out: suffix" in refused(capsys, *words, "--out", "a.gif")
    assert "which needs --joint" in refused(capsys, *words, "--new-data", data)
    assert "found nothing" in refused(capsys, *words, "--data", tmp_path / "none")
