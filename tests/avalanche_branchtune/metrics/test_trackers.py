"""Runs in W&B and Trackio, by the packages themselves, without a network."""

from __future__ import annotations

import copy
import csv
import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import AlternativeValues, MetricValue, TensorImage
from avalanche.logging import BaseLogger
from avalanche.logging import WandBLogger as AvalanchesWandBLogger
from avalanche.training.plugins import EvaluationPlugin
from matplotlib.figure import Figure
from PIL import Image

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.evaluation import ClassifierProbe, StreamProbe
from avalanche_branchtune.metrics import (
    RunRecorder,
    TensorBoardLogger,
    TrackioLogger,
    WandBLogger,
    run_metrics,
)
from tests import supervised, wandb_files
from tests.jobs import in_job

# wandb and Trackio leave sockets and databases to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb looks for a git repository and samples the machine, which takes seconds here."""
    for name in ("DISABLE_GIT", "SILENT", "X_DISABLE_META", "X_DISABLE_STATS"):
        monkeypatch.setenv(f"WANDB_{name}", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")


class Kinds(PluginMetric):
    """A text and a tensor after each epoch."""

    def after_training_epoch(self, strategy: Any) -> list[MetricValue]:
        x = strategy.clock.train_iterations
        values = {"text": "a, b", "tensor": torch.tensor([1.5, float("nan"), 2.0])}
        return [MetricValue(self, f"Custom/{name}", value, x) for name, value in values.items()]

    def result(self) -> None: ...

    def reset(self) -> None: ...


def pictures() -> list[MetricValue]:
    """One of each kind."""
    image, figure = Image.new("RGB", (4, 4)), Figure()
    values = {
        "image": AlternativeValues(image, object()),
        "tensor": TensorImage(torch.zeros(3, 4, 4)),
        "figure": figure,
    }
    return [MetricValue(Kinds(), f"Custom/{name}", v, 99) for name, v in values.items()]


class Stops(SupervisedPlugin):
    """Ctrl-C in a step."""

    def __init__(self, step: int | None) -> None:
        super().__init__()
        self.step = step

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_iterations == self.step:
            raise KeyboardInterrupt

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train(folder: Path, kind: type, stops: int | None = None, **init: Any) -> Any:
    """Train a run of two experiences, or go on with it; return its logger."""
    recorder = RunRecorder(
        folder, "Naive", seed=3, settings={"data": "noise"}, resume=(folder / "run.json").exists()
    )
    stream = supervised.benchmark(2)
    with kind(recorder, **init) as logger:
        probe = StreamProbe(ClassifierProbe(), stream.train_stream, stream.test_stream)
        metrics = [*run_metrics([probe]), Kinds()]
        checkpoints = Checkpoints(folder, resume=True, every_epochs=1)
        strategy = supervised.strategy(
            [Stops(stops), checkpoints],
            evaluator=EvaluationPlugin(*metrics, loggers=[recorder, logger]),
        )
        checkpoints.attach(strategy)
        for experience in stream.train_stream:
            strategy.train(experience)
            strategy.eval(stream.test_stream)
        checkpoints.finish(keep=True)
        logger.log_metrics(pictures())
    return logger


def numbers(folder: Path) -> dict[tuple[int, str], float]:
    """(iteration, metric) → value: what the recorder wrote of numbers."""
    with (folder / "metrics.csv").open(newline="") as stream:
        every = list(csv.DictReader(stream))
    written = [r for r in every if not r["metric"].startswith("Custom")]
    return {(int(r["iteration"]), r["metric"]): float(r["value"]) for r in written}


def sent(rows: dict[int, dict[str, Any]]) -> dict[tuple[int, str], float]:
    """The same of what was sent: later rows go before earlier ones, as in ``metrics.csv``."""
    return {
        (row["iteration"], name): value
        for _, row in sorted(rows.items())
        for name, value in row.items()
        if name not in ("iteration", "experience") and not name.startswith("Custom")
    }


def test_a_run_in_parts_is_one_run_of_wandb(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, WandBLogger, stops=10, mode="offline")
    logger = train(tmp_path, WandBLogger, mode="offline", group="tests")
    first, second = wandb_files.runs(tmp_path)
    for records in (first, second):
        (run,) = wandb_files.kinds(records, "run")
        assert (run.run_id, run.project) == (logger.id, "avalanche-branchtune")
    assert run.run_group == "tests" and run.display_name == tmp_path.name
    assert [wandb_files.kinds(r, "exit")[0].exit_code for r in (first, second)] == [1, 0]

    begun, gone_on = wandb_files.rows(first), wandb_files.rows(second)
    assert set(begun) & set(gone_on), "what came after the checkpoint is sent under its number"
    rows = begun | gone_on
    assert sorted(rows) == list(range(len(rows)))
    assert sent(rows) == pytest.approx(numbers(tmp_path), nan_ok=True)
    assert "experience" not in rows[0], "nothing was trained yet"
    assert {row["experience"] for row in rows.values() if "experience" in row} == {0, 1}
    custom = [row for row in rows.values() if "Custom/text" in row]
    assert len(custom) == 4 and {row["Custom/text"] for row in custom} == {"a, b"}
    for row in custom:
        histogram = row["Custom/tensor"]
        assert histogram["_type"] == "histogram" and sum(histogram["values"]) == 2
    last = rows[max(rows)]
    assert last["iteration"] == 99
    shown = [last[f"Custom/{name}"] for name in ("image", "tensor", "figure")]
    assert {(one["_type"], one["format"]) for one in shown} == {("image-file", "png")}
    assert [one["width"] for one in shown][:2] == [4, 4] and shown[2]["width"] > 100

    settings = wandb_files.settings(second)
    assert settings["data"] == "noise" and settings["seed"] == 3 and settings["batch size"] == 8
    assert settings["environment"]["versions"]["torch"] == torch.__version__.split("+")[0]
    assert not wandb_files.kinds(first, "artifact"), "it is not complete"
    record = wandb_files.kinds(second, "artifact")[-1]
    assert [entry.path for entry in record.manifest.contents] == ["run.json"]
    assert record.manifest.contents[0].size == (tmp_path / "run.json").stat().st_size


def test_avalanches_own_does_not_run_with_this_wandb() -> None:
    with pytest.raises(AttributeError, match="generate_id"):
        AvalanchesWandBLogger()
    bare = AvalanchesWandBLogger.__new__(AvalanchesWandBLogger)
    bare.import_wandb()
    with pytest.raises(AttributeError, match="viz"):
        bare.log_single_metric("a", 1.0, 0)


@pytest.mark.parametrize(("kind", "name"), [(WandBLogger, "wandb"), (TrackioLogger, "trackio")])
def test_a_package_that_is_missing_is_named(
    kind: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnknownOptionError, match=rf"pip install 'avalanche-branchtune\[{name}\]'"):
        kind(RunRecorder(tmp_path, "a"))


def test_a_copy_has_no_connection(tmp_path: Path) -> None:
    logger = WandBLogger(RunRecorder(tmp_path, "a"), "mine", mode="offline")
    logger._run = (x for x in ())  # cannot be pickled, as a connection
    for twin in (pickle.loads(pickle.dumps(logger)), copy.deepcopy(logger)):
        assert isinstance(twin, BaseLogger) and twin._run is None
        assert (twin.id, twin.project, twin.init) == (logger.id, "mine", {"mode": "offline"})


def test_a_run_in_parts_is_one_run_of_trackio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", TrackioLogger, stops=10, auto_log_cpu=False)
    logger = train(tmp_path / "run", TrackioLogger, auto_log_cpu=False)
    (file,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(file) as base:
        there = base.execute("select run_name, step, metrics from metrics").fetchall()
        (settings,) = base.execute("select config from configs").fetchone()
        (content,) = base.execute("select manifest from artifact_versions order by id").fetchall()[
            -1
        ]
    assert {name for name, _, _ in there} == {f"run-{logger.id}"}
    rows = {step: json.loads(metrics) for _, step, metrics in there}
    assert sorted(rows) == list(range(len(there))), "no row twice, none missing"
    assert sent(rows) == pytest.approx(numbers(tmp_path / "run"), nan_ok=True)
    assert json.loads(settings)["data"] == "noise"
    assert json.loads(content)[0]["size"] == (tmp_path / "run/run.json").stat().st_size


def test_a_run_in_parts_is_one_run_of_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, TensorBoardLogger, stops=10)
    twin = pickle.loads(pickle.dumps(train(tmp_path, TensorBoardLogger)))
    assert twin._last == 99
    twin.writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"histograms": 0, "images": 0})
    events.Reload()
    found = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    written = {(e.step, name): e.value for name, every in found.items() for e in every}
    assert written == pytest.approx(numbers(tmp_path), rel=1e-6, nan_ok=True)
    steps = [e.step for e in events.Histograms("Custom/tensor")]
    assert steps == [3, 6, 9, 12], "9 was written twice"
    for name in ("image", "figure"):
        assert [event.step for event in events.Images(f"Custom/{name}")] == [99]


def _of_a_job(folder: str) -> list[float]:
    ranks.join(torch.device("cpu"))
    recorder = RunRecorder(folder, "a")
    with WandBLogger(recorder, mode="offline") as logger:
        recorder.run.settings["rank"] = ranks.rank()
        logger._go_on() if ranks.leads() else None
        logger.log_metrics([])
        return [ranks.rank(), float(logger._run is not None)]


@pytest.mark.slow
def test_of_several_processes_the_first_one_sends(tmp_path: Path) -> None:
    assert in_job(2, _of_a_job, str(tmp_path)) == [[0, 1.0], [1, 0.0]]
    assert len(wandb_files.runs(tmp_path)) == 1


@pytest.mark.slow
def test_ctrl_c_ends_the_run_there_too(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time, warnings\n"
        "from pathlib import Path\n"
        "from tests.avalanche_branchtune.metrics import test_trackers\n"
        "warnings.simplefilter('ignore')\n"
        "def slowly(self, strategy, *args, **kwargs):\n"
        "    print(strategy.clock.train_iterations, flush=True)\n"
        "    time.sleep(0.1)\n"
        "test_trackers.Stops.after_update = slowly\n"
        "test_trackers.train(Path(sys.argv[1]), test_trackers.WandBLogger, mode='offline')\n"
    )
    root = Path(__file__).parents[3]
    job = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the whole group: wandb's own process, too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
    )
    assert job.stdout is not None
    for line in job.stdout:
        if line.strip() == "8":
            break
    os.killpg(job.pid, signal.SIGINT)
    begin = time.monotonic()
    job.stdout.read()
    assert job.wait() == 130
    assert time.monotonic() - begin < 60
    (records,) = wandb_files.runs(tmp_path / "run")
    assert wandb_files.rows(records)
    assert wandb_files.kinds(records, "exit")[0].exit_code == 130
