"""Runs that begin with weights of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("hydra")

from avalanche_branchtune.errors import CheckpointError, ConfigError
from avalanche_branchtune.records import load_run
from solo_bridge import cli, save_backbone, save_solo_checkpoint
from solo_bridge.comparison.resumed import made
from solo_bridge.registry import ENTRIES
from solo_bridge.run.running import run_of
from tests.solo_bridge.run.tiny import tiny
from tests.solo_bridge.states import same


def checkpoint(folder: Path, seed: int = 7) -> Path:
    """Of another network of the same kind."""
    other = run_of(tiny(folder, f"seed={seed}")).experiment
    return save_solo_checkpoint(other.network(other.stream()), folder / "trained.ckpt")


def network(*words: str) -> Any:
    experiment = run_of(words).experiment
    return experiment.network(experiment.stream())


def parts(method: Any) -> dict[str, Any]:
    """All that is trained: solo-learn's online classifier is left alone."""
    state = method.solo.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier")}


def test_all_parts_are_those_of_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = checkpoint(tmp_path)
    words = tiny(tmp_path, f"weights={file}")
    begun = network(*words)
    assert same(parts(begun), parts(network(*tiny(tmp_path, "seed=7"))))
    assert not same(parts(begun), parts(network(*tiny(tmp_path))))

    save_backbone(begun.backbone, tmp_path / "backbone.pt")
    alone = network(*tiny(tmp_path, f"weights={tmp_path}"))
    assert same(alone.backbone.state_dict(), begun.backbone.state_dict())
    heads = network(*tiny(tmp_path)).solo.projector.state_dict()
    assert same(alone.solo.projector.state_dict(), heads), "of the seed"
    said = [record.getMessage() for record in caplog.records if "backbone.pt" in record.message]
    assert len(said) == 1 and "missing in the file: projector.0.weight" in said[0]


def test_plugins_begin_with_the_first_experience(tmp_path: Path) -> None:
    file = checkpoint(tmp_path)
    asking = [n for n in ("branch_tuning", "fixed_norms", "kappatune", "clr") if n in ENTRIES]
    assert len(asking) == 4
    for name in asking:
        for more, expected in (
            ([], False),
            ([f"weights={file}"], True),
            ([f"weights={file}", f"options.{name}.pretrained=false"], False),
        ):
            experiment = run_of(tiny(tmp_path, f"strategy={name}", *more)).experiment
            made_of = experiment.strategy(name, experiment.stream(), None).plugins
            found = [p.pretrained for p in made_of if hasattr(p, "pretrained")]
            assert found == [expected], (name, more)


def test_a_run_says_what_it_began_with_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = checkpoint(tmp_path)
    words = tiny(tmp_path / "runs", f"weights={file}", "stream.seed=0", "strategy=branch_tuning")
    assert cli.main(["run", *words]) == 0
    run = run_of(words)
    record = load_run(run.folder)
    assert record.settings["weights"].startswith(f"file {file}, sha256 ")
    assert "begin with the first experience" in record.settings["weights"]
    asked = json.loads((run.folder / "comparison.json").read_text(encoding="utf-8"))
    assert made(asked["settings"]) == run.experiment
    assert run_of([], run.folder / "config.yaml").experiment == run.experiment

    plain = tiny(tmp_path / "runs", "seed=7", "stream.seed=0", "strategy=fine_tuning")
    assert cli.main(["run", *plain]) == 0
    before = load_run(run_of(plain).folder).probes["kNN"].random
    assert record.probes["kNN"].random == before, "the network that was in the file"
    assert run_of(plain).out != run.out, "they are not compared"

    moved = file.rename(tmp_path / "moved-ep=9.ckpt")
    capsys.readouterr()
    for again in ([*words[:-2], f"weights={moved}", *words[-2:]], [str(run.folder)]):
        again = [word for word in again if word != f"weights={file}"]
        assert cli.main(["run", *again]) == 0
        assert "this run is finished" in capsys.readouterr().out
    assert cli.main(["run", *words]) == 2
    assert f"weights: {file} cannot be read" in capsys.readouterr().err

    checkpoint(tmp_path, seed=8)
    assert run_of(words).folder != run.folder, "other weights, another folder"
    with pytest.raises(CheckpointError, match="not the file that the run was begun with"):
        made(asked["settings"]).network(run.experiment.stream())


def test_frozen_learns_nothing(tmp_path: Path) -> None:
    words = tiny(tmp_path / "runs", f"weights={checkpoint(tmp_path)}", "strategy=frozen")
    assert cli.main(["run", *words]) == 0
    found = load_run(run_of(words).folder).probes["kNN"]
    assert found.random is not None and found.accuracies == [found.random] * 2
    plain = tiny(tmp_path / "runs", "strategy=frozen")
    assert cli.main(["run", *plain]) == 0
    found = load_run(run_of(plain).folder).probes["kNN"]
    assert found.random != found.accuracies[0] == found.accuracies[1]


def test_what_cannot_be_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = checkpoint(tmp_path), tmp_path / "runs"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"weights: .*none\.pt cannot be read: No such file"):
        run_of(tiny(out, f"weights={tmp_path}/none.pt"))
    with pytest.raises(ConfigError, match="is no finished run"):
        run_of(tiny(out, f"weights={tmp_path}/empty"))
    with pytest.raises(ConfigError, match="weights: expected a file, got an empty name"):
        run_of(tiny(out, "weights=''"))
    with pytest.raises(ConfigError, match="weights: expected"):
        run_of(tiny(out, "weights=[a,b]"))
    with pytest.raises(ConfigError, match="here it is weights=FILE"):
        run_of(tiny(out, "resume_from_checkpoint=a.ckpt"))
    (tmp_path / "text.pt").write_text("no tensors")
    for given, more in ((file, "backbone.options.width=4"), (tmp_path / "text.pt", "seed=0")):
        assert cli.main(["run", *tiny(out, f"weights={given}", more)]) == 2
        assert str(given) in capsys.readouterr().err
    assert not out.exists()


def test_without_weights_folders_are_those_of_earlier_versions(tmp_path: Path) -> None:
    assert run_of(tiny(tmp_path)).out.name == "digits-simclr-7cb8d1"
    torch.save({}, tmp_path / "a.pt")
    assert run_of(tiny(tmp_path, f"weights={tmp_path}/a.pt")).out.name != "digits-simclr-7cb8d1"
