"""Runs of configurations: what stands in their folders, and how they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("hydra")

from hydra.core.plugins import Plugins

from avalanche_branchtune.checkpoints.lock import locked
from avalanche_branchtune.errors import ConfigError
from avalanche_branchtune.records import load_run
from solo_bridge import cli
from solo_bridge.augmentation import Augmentation
from solo_bridge.comparison import Comparison
from solo_bridge.comparison.asked import Asked
from solo_bridge.comparison.configured import tuples
from solo_bridge.comparison.experiment import forget_pixels
from solo_bridge.comparison.progress import Progress
from solo_bridge.comparison.resumed import made
from solo_bridge.config import settings_from_config
from solo_bridge.run import launching
from solo_bridge.run.composing import hydra, sweep
from solo_bridge.run.launching import launch
from solo_bridge.run.running import Run, run_of
from solo_bridge.status import status
from tests.solo_bridge.config.examples import written
from tests.solo_bridge.run.tiny import tiny

CASSLE = ("strategy=branch_tuning+cassle", "options.cassle.weight=0.3")


@pytest.fixture()
def heard() -> Iterator[None]:
    """SIGINT is heard as in a terminal: shells have it ignored in what they run behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def accuracies(folder: Path) -> Any:
    found = load_run(folder).probes["kNN"]
    return found.accuracies, found.overall


@pytest.mark.usefixtures("heard")
def test_a_run_the_same_again_and_one_that_is_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tiny(tmp_path / "one", *CASSLE)
    assert cli.main(["run", *words]) == 0
    (folder,) = (tmp_path / "one").glob("*/*-0")
    assert folder.name == "branch_tuning+cassle,cassle.weight=0.3-0"
    run = load_run(folder)
    assert run.complete and run.name == "Branch-tuning + CaSSLe (cassle.weight=0.3)"
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["options"] == {"cassle": {"weight": 0.3}}
    asked = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert made(asked["settings"]) == run_of(words).experiment
    capsys.readouterr()

    for again in (words, [str(folder)]):
        assert cli.main(["run", *again]) == 0
        out = capsys.readouterr().out
        assert out.count("\n") == 1 and "this run is finished" in out
    assert cli.main(["resume", str(folder)]) == 0
    assert "all runs are finished" in capsys.readouterr().out
    assert cli.main(["probe", str(folder), "--json", str(tmp_path / "probed.json")]) == 0
    probed = json.loads((tmp_path / "probed.json").read_text(encoding="utf-8"))
    assert probed["probes"]["kNN"]["accuracies"] == accuracies(folder)[0][-1], "on its own stream"
    assert cli.main(["probe", str(folder), "--experiences", "2"]) == 2
    assert "the run's own stream says how many" in capsys.readouterr().err

    asked["settings"]["stream_options"]["seed"] = 3
    (folder / "comparison.json").write_text(json.dumps(asked), encoding="utf-8")
    found = []
    for seed in ("4", "3"):
        words = ["probe", str(folder), "--seed", seed, "--json", str(tmp_path / "probed.json")]
        assert cli.main(words) == 0
        found.append(json.loads((tmp_path / "probed.json").read_text(encoding="utf-8")))
    assert ["seed 4" in one["stream"] for one in found] == [True, False], "the stream's seed too"

    ask_to_end_once(monkeypatch)
    elsewhere = ["run", "--config", str(folder / "config.yaml"), f"out={tmp_path / 'two'}"]
    assert cli.main([*elsewhere, "hardware.keep_checkpoints=true"]) == 130
    (other,) = (tmp_path / "two").glob("*/*-0")
    assert other.relative_to(tmp_path / "two") == folder.relative_to(tmp_path / "one")
    last = capsys.readouterr().err.splitlines()[-1]
    assert "go on with: branchtune resume" in last and other.name in last
    assert status(other).state == "interrupted"
    assert cli.main(["resume", str(other)]) == 0
    assert status(other).state == "done"
    assert list(other.glob("state-*.pt")), "as it was told when it was begun"
    assert accuracies(other) == accuracies(folder), "it ends as if it had not been cut"

    changed = {**config, "training": {**config["training"], "lr": 0.5}}
    (folder / "config.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    assert cli.main(["run", str(folder / "config.yaml")]) == 2
    assert "'lr': 0.5" in capsys.readouterr().err


def test_decoded_images_stay_while_a_run_will_want_them(tmp_path: Path) -> None:
    experiment = run_of(tiny(tmp_path)).experiment
    new = Asked.of(vars(experiment), "fine_tuning")
    (tmp_path / "pixels").mkdir()
    for finished in (False, True):
        replace(new, finished=True).save(tmp_path / "a-0")
        replace(new, finished=finished).save(tmp_path / "b-0")
        forget_pixels(tmp_path)
        assert (tmp_path / "pixels").exists() != finished


def test_one_job_that_fails_is_named_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = "hardware.device=cuda"  # where the jobs run, not here
    runs = [run_of(tiny(tmp_path, f"seed={seed}", there)) for seed in (0, 1, 2)]

    class Launcher:
        """The second job ends with an error, which comes when its result is asked for."""

        def launch(self, overrides: Any, initial_job_idx: int) -> Any:
            errors = [None, RuntimeError("Traceback …\n  File …\nKeyError: 'a'\n"), None]
            return [Result(error) for error in errors]

    class Result:
        def __init__(self, error: Exception | None) -> None:
            self.error = error

        @property
        def return_value(self) -> None:
            if self.error is not None:
                raise self.error

    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *args: Launcher())
    ends = iter([False] * 3 + [True, False, True])  # asked before the jobs, and after them
    monkeypatch.setattr(Run, "finished", lambda run: next(ends))
    monkeypatch.setattr("solo_bridge.run.launching.checked", lambda runs, here: None)
    assert launch(runs, []) == {str(runs[1].folder): "KeyError: 'a'"}


def test_no_second_job_is_begun_for_a_run_that_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run_of(tiny(tmp_path, f"seed={seed}")) for seed in (0, 1)]
    begun: list[Any] = []

    class Launcher:
        def launch(self, overrides: Any, initial_job_idx: int) -> Any:
            begun.extend(overrides)
            return [KeyError("a")] * len(overrides)

    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *args: Launcher())
    with locked(runs[1].folder):
        failed = launch(runs, [])
    assert failed[str(runs[1].folder)] == launching.AT_WORK
    assert begun == [[f"+file='{(runs[0].folder / 'config.yaml').resolve()}'"]]


def test_a_launcher_is_asked_for_in_words_that_its_jobs_can_compose_anew(tmp_path: Path) -> None:
    words = ["hardware=slurm", "hydra.launcher.timeout_min=10"]
    runs = [run_of(tiny(tmp_path, "hardware.device=cpu"))]
    asked = launching._asked(runs, words)
    again = launching._composed(asked)
    assert again.hydra.launcher.gpus_per_node == 0 and again.hydra.launcher.timeout_min == 10
    assert again.hydra.sweep.dir.startswith(f"{tmp_path}/.jobs/")
    job = hydra().config_loader.load_sweep_config(again, ["+file=a"])
    assert job.hydra.launcher._target_ == again.hydra.launcher._target_
    assert job.hydra.launcher.timeout_min == 10 and job.file == "a"
    with pytest.raises(ConfigError, match=r"timeout_min=1: .* give 4 minutes or more"):
        launch(runs, [words[0], "hydra.launcher.timeout_min=1"])
    assert not runs[0].folder.exists()


def test_each_job_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submitit = pytest.importorskip("submitit")
    with launching._each_waited_for():
        executor = submitit.AutoExecutor(tmp_path / "%j", cluster="local")
        found = [job.results()[0] for job in executor.map_array(_divide, [0, 2])]
    assert isinstance(found[0], launching._Lost) and found[1] == 0.5
    assert Path(found[0].log).is_file()
    assert capsys.readouterr().out.startswith("jobs ")


def _divide(by: int) -> float:
    return 1 / by


def ask_to_end_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send a SIGINT after the first epoch of the second experience."""
    advance, cut = Progress.after_training_epoch, list[int]()

    def asked_to_end(self: Progress, strategy: Any, *args: Any, **kwargs: Any) -> None:
        advance(self, strategy, *args, **kwargs)
        if strategy.clock.train_exp_counter == 1 and not cut:
            cut.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "after_training_epoch", asked_to_end)


def test_jobs_of_a_sweep_have_folders_of_their_own(tmp_path: Path) -> None:
    words = ["seed=0", "strategy=fine_tuning,cassle", "training.lr=0.1,0.2"]
    runs = [run_of(one) for one in sweep(tiny(tmp_path, *words))]
    assert len({run.folder for run in runs}) == 4
    assert len({run.out for run in runs}) == 2, "what is compared lies together"
    assert {run.experiment.training["lr"] for run in runs} == {0.1, 0.2}


def test_a_preset_is_trained_as_compare_trains_it(tmp_path: Path) -> None:
    """The oracle is what ``compare --preset`` has trained with, by another way."""
    found = run_of(
        ["preset=paper/cifar100_5", "strategy=branch_tuning+cassle", "stream.root=x"]
    ).experiment
    theirs = Comparison.as_published("branch_tuning/cifar100", samples=100)
    stream = theirs.stream()
    one, other = (e.strategy("branch_tuning+cassle", stream, None) for e in (found, theirs))
    assert one.optimizer_settings == other.optimizer_settings
    for name in ("train_epochs", "train_mb_size", "precision", "lr_scale"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.augmentations == other.augmentations
    assert one.model.settings == other.model.settings
    assert [type(p) for p in one.plugins] == [type(p) for p in other.plugins]
    cassle, wanted = (
        next(p for p in s.plugins if "CaSSLe" in type(p).__name__) for s in (one, other)
    )
    assert cassle.hidden == wanted.hidden == 2048
    for mine, its in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert mine.equal(its)


def test_a_configuration_of_solo_learn_is_a_start(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = run_of([f"out={tmp_path}", "stream.n_experiences=5", "stream.size=8"], path)
    theirs = settings_from_config(path)
    one, config = found.experiment, found.config
    assert (one.epochs, one.batch) == (theirs.strategy["train_epochs"], 4)
    assert config["training"]["lr"] == theirs.strategy["lr"]
    assert (
        theirs.strategy["optimizer_settings"].items() <= one.training["optimizer_settings"].items()
    )
    assert [Augmentation(**tuples(v)) for v in one.augmentations] == theirs.augmentations
    for name in ("proj_hidden_dim", "proj_output_dim", "pred_hidden_dim", "large_views"):
        assert one.method_options[name] == theirs.method[name]
    assert one.method_options["tau"] == list(theirs.method["tau"])
    assert one.backbone_options == theirs.method["backbone_kwargs"]
    assert run_of([], _saved(config, tmp_path)).experiment == one, "a complete one stays as it is"


def _saved(config: dict[str, Any], folder: Path) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.mark.parametrize("what", ["job", "composed"])
def test_the_configuration_is_printed(capsys: pytest.CaptureFixture[str], what: str) -> None:
    assert cli.main(["run", "preset=laptop", "--cfg", what]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["training"]["epochs"] == 6
    assert printed["method"]["temperature"] == (0.2 if what == "job" else None)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_a_sweep_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], launcher: str
) -> None:
    if launcher != "basic":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    more = [] if launcher == "basic" else [f"hydra/launcher={launcher}"]
    words = tiny(tmp_path, "strategy=fine_tuning,joint", "seed=0,1", *more)
    assert cli.main(["run", "--multirun", *words]) == 0
    (out,) = (path for path in tmp_path.iterdir() if not path.name.startswith("."))
    names = {path.name for path in out.iterdir() if (path / "run.json").exists()}
    assert names == {"fine_tuning-0", "fine_tuning-1", "joint-0", "joint-1"}
    assert (out / "report.html").exists()
    assert cli.main(["run", "--multirun", *words]) == 0
    assert "4 of them finished before" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path: Path) -> None:
    """In a process of its own, since the job takes the place of it."""
    words = tiny(tmp_path, "hardware.processes=2")
    command = [sys.executable, "-m", "branchtune", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("*/*-0")
    run = load_run(folder)
    assert run.complete and run.environment["processes"] == 2
