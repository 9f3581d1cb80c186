"""The command ``branchtune probe``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avalanche_branchtune.evaluation import knn_probe, linear_probe
from avalanche_branchtune.records import load_run
from avalanche_branchtune.streams import image_folder
from solo_bridge import cli
from solo_bridge.comparison import Comparison
from solo_bridge.views import EvalTransform
from tests.solo_bridge.commands.made import SIZE, images, network, refused


def test_accuracies_are_those_of_the_probes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, backbone = images(tmp_path / "data"), network(tmp_path / "a.pt")
    view = EvalTransform(8)
    train, test = (
        [(view(image), label) for image, label in image_folder(data / part)]
        for part in ("train", "test")
    )
    words = ["probe", str(tmp_path / "a.pt"), "--data", str(data), *SIZE, "--k", "3"]
    more = ["--probe", "knn, linear", "--json", str(tmp_path / "a.json")]
    assert cli.main([*words, *more]) == 0
    out = capsys.readouterr().out.splitlines()
    found = json.loads((tmp_path / "a.json").read_text())
    knn, linear = knn_probe(backbone, train, test, k=3), linear_probe(backbone, train, test)
    assert found["probes"]["kNN"]["accuracy"] == knn.accuracy
    assert found["probes"]["linear"]["accuracy"] == linear.accuracy
    assert 0.4 < knn.accuracy <= 1
    assert out[0] == f"{tmp_path / 'a.pt'}: small_resnet(4), 8 pixels, on {data}"
    assert out[1] == f"kNN: {100 * knn.accuracy:.2f} %"
    assert out[2].startswith("  weighted kNN, k 3, T 0.07, distance cosine, features frozen backb")
    assert "torch" in found["environment"]["versions"]
    settings = ["--scope", "experience", "--experiences", "2", "--label-share", "0.5", "--k", "2"]
    assert cli.main([*words, *settings]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "kNN_experience: 100.00 % (of each experience: 100.00, 100.00)", "one class"
    assert "training labels 50% of each class" in out[2]


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pt"
    network(path)
    words = ("probe", path, *SIZE)
    assert "--data: expected a folder with train/<class>" in refused(capsys, *words)
    words = (*words, "--data", images(tmp_path / "data", 3, 2))
    for mistake, said in (
        (["--probe", "knm"], "did you mean knn?"),
        (["--label-share", "0"], "--label-share: expected a share in (0, 1]; got 0.0"),
        (["--size", "0"], "--size: expected a whole number of at least 1"),
        (["--backbone", "resnet81"], "has a model of this name"),
        (["--device", "nowhere"], "device 'nowhere' cannot be used"),
        (["--data", tmp_path], "train: expected a directory"),
        (["--experiences", "3"], "3"),
        (["--trained", "1"], "--trained: of --scope seen"),
        (["--trained", "2", "--scope", "seen"], "--trained: expected a number from 1 to 1; got 2"),
        ([], "there are only 6 labelled samples"),
    ):
        assert said in refused(capsys, *words, *mistake)
    assert "b.pt: there is no such file" in refused(capsys, "probe", tmp_path / "b.pt", *words[2:])


@pytest.mark.slow
def test_a_run_is_judged_as_it_judged_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Comparison(samples=200, epochs=1, experiences=2, width=4).run(
        "branch_tuning", tmp_path, bar=False
    )
    folder = tmp_path / "branch_tuning-0"
    recorded = load_run(folder).probes["kNN"].accuracies[-1]
    assert cli.main(["probe", str(folder), "--json", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["probes"]["kNN"]["accuracies"] == recorded
    (folder / "backbone.pt").unlink()
    capsys.readouterr()
    assert "no backbone.pt, and no checkpoint" in refused(capsys, "probe", folder)
