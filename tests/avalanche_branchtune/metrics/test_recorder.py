"""The record of a run, and everything that is measured in every logger."""

from __future__ import annotations

import copy
import csv
import io
import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import AlternativeValues, MetricValue
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import InteractiveLogger, TensorboardLogger, TextLogger, WandBLogger
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin, SupervisedPlugin
from matplotlib.figure import Figure
from PIL import Image

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.metrics import RunRecorder, run_metrics
from avalanche_branchtune.records import load_run
from avalanche_branchtune.report import group_runs
from avalanche_branchtune.report.notices import notices
from avalanche_branchtune.streams import class_incremental, online, remade
from tests import supervised
from tests.avalanche_branchtune.metrics.measured import analysis, probes, train


class Custom(PluginMetric):
    """Values of every kind, after each epoch."""

    def after_training_epoch(self, strategy: Any) -> list[MetricValue]:
        figure = Figure()
        figure.add_subplot().plot([1, 2])
        values = {
            "Custom/text": "a, b",
            "Custom/tensor": torch.tensor([1.5, 2.0]),
            "Custom/image": AlternativeValues(Image.new("RGB", (4, 4)), object()),
            "Custom/figure": figure,
        }
        x = strategy.clock.train_iterations
        return [MetricValue(self, name, value, x) for name, value in values.items()]

    def result(self) -> None: ...

    def reset(self) -> None: ...


def stand_in_for_wandb(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Avalanche 0.6's W&B logger runs, on what it uses of wandb (it breaks on wandb 0.31)."""
    logged: dict[str, Any] = {}
    module: Any = types.ModuleType("wandb")
    module.__version__ = "0"
    module.util = types.SimpleNamespace(generate_id=lambda: "0")
    module.viz = types.SimpleNamespace(CustomChart=type("CustomChart", (), {}))
    module.run = types.SimpleNamespace(_label=lambda **kwargs: None)
    module.init = lambda **kwargs: None
    module.log = lambda values, step: logged.update(values)
    module.Image = module.Histogram = lambda *args, **kwargs: "shown"
    monkeypatch.setitem(sys.modules, "wandb", module)
    return logged


def test_everything_reaches_every_logger_and_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = io.StringIO()
    uploaded = stand_in_for_wandb(monkeypatch)
    recorder = RunRecorder(tmp_path / "run", "Branch-tuning", seed=3, settings={"data": "noise"})
    loggers = [
        InteractiveLogger(),
        TextLogger(text),
        TensorboardLogger(tmp_path / "tb"),
        WandBLogger(),
        recorder,
    ]
    metrics = run_metrics(probes(), analysis())
    strategy = train([*metrics, Custom()], loggers)
    wanted = {
        "kNN_Acc_Stream/eval_phase/test_stream",
        "kNN_Acc_Exp/eval_phase/test_stream/Exp002",
        "kNN_Forgetting/eval_phase/test_stream",
        "kNN_FWT/eval_phase/test_stream",
        "classifier_Final_Acc/eval_phase/test_stream",
        "linear_seen_Acc_Exp/eval_phase/test_stream/Exp001",
        "Stability/eval_phase/test_stream",
        "Plasticity/eval_phase/test_stream",
        "Branch_Norm/eval_phase/test_stream",
        "Train_Seconds/eval_phase/test_stream",
        "Eval_Seconds/eval_phase/test_stream",
    }
    assert wanted <= set(strategy.evaluator.get_last_metrics())
    printed = capsys.readouterr().out
    for name in wanted:
        assert name in text.getvalue() and name in printed
    loggers[2].writer.flush()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert wanted <= set(events.Tags()["scalars"])
    assert wanted <= set(uploaded)

    with (tmp_path / "run/metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert wanted <= {row["metric"] for row in rows}
    custom = {row["metric"]: row["value"] for row in rows if row["metric"].startswith("Custom")}
    assert custom["Custom/text"] == "a, b"
    assert json.loads(custom["Custom/tensor"]) == [1.5, 2.0]
    for kind in ("image", "figure"):
        with Image.open(tmp_path / "run" / custom[f"Custom/{kind}"]) as picture:
            assert picture.width >= 4

    run = load_run(tmp_path / "run")
    assert run.complete and run.name == "Branch-tuning" and run.seed == 3
    assert run.settings["data"] == "noise" and run.settings["batch size"] == 8
    assert set(run.probes) == {"classifier", "kNN", "linear_seen"}
    last = strategy.evaluator.get_last_metrics()
    summary = run.probes["kNN"].summary(3)
    assert summary["forgetting"] == last["kNN_Forgetting/eval_phase/test_stream"]
    assert run.probes["linear_seen"].accuracies[0][1:] == [None, None]
    assert "forward_transfer" not in run.probes["linear_seen"].summary(3)
    # The matrix is what a probe says of the network as it now is.
    test = supervised.benchmark().test_stream
    model = strategy.model.eval()
    for i, experience in enumerate(test):
        x, y = zip(*[(item[0], item[1]) for item in experience.dataset], strict=True)
        by_hand = (model(torch.stack(x)).argmax(1) == torch.tensor(y)).double().mean()
        assert run.probes["classifier"].accuracies[2][i] == pytest.approx(float(by_hand))
    assert len(run.seconds) == len(run.evaluation_seconds) == 3 and min(run.seconds) > 0
    assert run.branch_norms[0] == {} and set(run.branch_norms[1]) == {"features.0", "features.3"}
    assert min(run.branch_norms[2].values()) > 0
    assert run.stability[0] == {} and 0 < run.stability[2]["0"] <= 1.01
    assert set(run.plasticity[0]) == {"0", "1", "3"}
    assert run.sample is not None and run.sample.features.shape == (48, 32)
    assert set(run.sample.experiences.tolist()) == {0, 1, 2}


def test_an_interrupted_run_is_a_partial_one(tmp_path: Path) -> None:
    class Killed(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_counter == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run_metrics(probes()), [RunRecorder(tmp_path, "a")], plugins=(Killed(),))
    run = load_run(tmp_path)
    assert (run.finished, run.n_experiences, run.complete) == (2, 3, False)
    assert set(run.probes["kNN"].summary(3)) == {"continual_accuracy"}


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train(run_metrics(probes()[:1]), [RunRecorder(tmp_path, "a")])
    with pytest.raises(RecordError, match="holds the record of a run already"):
        RunRecorder(tmp_path, "b")
    RunRecorder(tmp_path, "b", overwrite=True)


def test_settings_are_kept_as_text_where_json_knows_no_better(tmp_path: Path) -> None:
    settings = {
        "root": tmp_path,
        "lr": np.float32(0.5),
        "device": torch.device("cpu"),
        "limit": float("inf"),
        "sizes": (1, np.int64(2)),
    }
    recorder = RunRecorder(tmp_path, "a", seed=np.int64(3), settings=settings)
    train(run_metrics(probes()[:1]), [recorder])
    run = load_run(tmp_path)
    assert run.seed == 3 and run.settings["lr"] == 0.5 and run.settings["sizes"] == [1, 2]
    assert run.settings["root"] == str(tmp_path) and run.settings["limit"] == "inf"
    for wrong in ({"seed": "3"}, {"n_experiences": -2}, {"name": 7}):
        with pytest.raises(RecordError, match=f"{next(iter(wrong))}="):
            RunRecorder(tmp_path / "b", **{"name": "b", **wrong})


def test_overwriting_leaves_nothing_of_the_older_run(tmp_path: Path) -> None:
    train(run_metrics(probes()), [RunRecorder(tmp_path, "a")])
    assert (tmp_path / "features.npz").exists()
    RunRecorder(tmp_path, "b", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.csv"]


def recorded_with(folder: Path, seed: int, *workers: int, plugins: tuple[Any, ...] = ()) -> Any:
    """Train an experience with each number of loader processes."""
    recorder = RunRecorder(folder / str(seed), "a", seed=seed)
    strategy = supervised.strategy(
        [copy.deepcopy(p) for p in plugins],
        evaluator=EvaluationPlugin(loggers=[recorder]),
        train_epochs=1,
    )
    for experience, number in zip(supervised.benchmark().train_stream, workers, strict=False):
        strategy.train(experience, num_workers=number)
    return load_run(folder / str(seed)).settings


@pytest.mark.parametrize("plugin", [None, ReplayPlugin])
def test_workers_of_the_loader_are_recorded(tmp_path: Path, plugin: Any) -> None:
    """Each draws random numbers of its own: other workers, other weights."""
    plugins = (plugin(8, batch_size_mem=4),) if plugin else ()
    assert recorded_with(tmp_path, 0, 0, 0, plugins=plugins)["loader workers"] == 0
    assert recorded_with(tmp_path, 1, 0, 1, plugins=plugins)["loader workers"] == [0, 1]
    assert recorded_with(tmp_path, 2, 1, 1, plugins=plugins)["loader workers"] == 1
    with pytest.raises(RecordError, match=r"settings\.loader workers is 0 in .*, but 1 in"):
        group_runs([tmp_path / "0", tmp_path / "2"])
    another = load_run(tmp_path / "0")
    another.seed = 5
    assert len(group_runs([tmp_path / "0", another])) == 1


def test_the_stream_can_be_made_again_from_the_record(tmp_path: Path) -> None:
    data = supervised.dataset(48)
    stream = class_incremental(data, data, 2, seed=1)
    for seed, benchmark in enumerate((stream, online(stream, 12), supervised.benchmark())):
        recorder = RunRecorder(tmp_path / str(seed), "a", seed=seed)
        strategy = supervised.strategy([], evaluator=EvaluationPlugin(loggers=[recorder]))
        strategy.train(benchmark.train_stream[0])
    runs = [load_run(tmp_path / str(seed)) for seed in range(3)]
    assert runs[0].stream["class_order"] == stream.class_order
    again = remade(runs[1].stream, (data, data)).train_stream
    for experience, other in zip(online(stream, 12).train_stream, again, strict=True):
        assert list(experience.dataset.targets) == list(other.dataset.targets)
    assert runs[2].stream == {}, "one of Avalanche's own"
    runs[1].settings, runs[1].n_experiences = runs[0].settings, runs[0].n_experiences
    assert len(group_runs(runs[:2])) == 1, "runs on other orders are averaged, as ever"


def test_a_checkpoint_from_before_processes_were_noted_is_gone_on_with(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path / "run", "branch_tuning")
    strategy = SimpleNamespace(evaluator=SimpleNamespace(metrics=[]))
    recorder._save(strategy)
    for name in ("_begun", "_processes"):
        del vars(recorder)[name]
    del recorder.run.stream  # which came later still
    recorder.restored(more=False, away=0.0)
    recorder._save(strategy)
    assert load_run(tmp_path / "run").environment["processes"] == 1


def test_a_run_without_probes_is_whole_and_its_page_says_so(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path / "run", "fine-tuning", seed=0)
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[recorder])
    strategy, benchmark = supervised.strategy([], evaluator=evaluator), supervised.benchmark(2)
    for trained, experience in enumerate(benchmark.train_stream, start=1):
        strategy.train(experience)
        assert load_run(tmp_path / "run").finished == trained
    strategy.eval(benchmark.test_stream)
    assert load_run(tmp_path / "run").complete
    (said,) = notices(group_runs([tmp_path / "run"]))
    assert said.startswith("No probe was recorded for fine-tuning") and "metrics.csv" in said
