"""Everything that is measured as Avalanche metrics, and its record."""

from __future__ import annotations

import csv
import io
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import AlternativeValues, MetricValue
from avalanche.logging import InteractiveLogger, TensorboardLogger, TextLogger, WandBLogger
from avalanche.training import JointTraining
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.analysis import layerwise_cka
from avalanche_branchtune.errors import ProbeError, RecordError
from avalanche_branchtune.evaluation import (
    ClassifierProbe,
    FeatureCache,
    KNNProbe,
    LinearProbe,
    StreamProbe,
)
from avalanche_branchtune.metrics import (
    AnalysisMetric,
    ContinualEvaluation,
    ProbeMetric,
    RunRecorder,
    run_metrics,
)
from avalanche_branchtune.records import load_run
from avalanche_branchtune.streams import class_incremental
from tests import supervised


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


class Seeded(SupervisedPlugin):
    """Avalanche's own evaluation draws from the random state; epochs begin from a known one."""

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        torch.manual_seed(strategy.clock.train_iterations)


def train(
    metrics: list[Any],
    loggers: list[Any],
    evaluate: Callable[[int], bool] = lambda t: True,
    plugins: tuple[Any, ...] = (),
    **settings: Any,
) -> Any:
    stream = supervised.benchmark()
    evaluator = EvaluationPlugin(*metrics, loggers=loggers)
    strategy = supervised.strategy(
        [BranchTuningPlugin(verbose=False), Seeded(), *plugins], evaluator=evaluator, **settings
    )
    for t, experience in enumerate(stream.train_stream):
        strategy.train(experience, eval_streams=[stream.test_stream])
        if evaluate(t):
            strategy.eval(stream.test_stream)
    return strategy


def probes(scope: str = "all") -> list[StreamProbe]:
    stream = supervised.benchmark()
    cache = FeatureCache()
    shared: dict[str, Any] = {"cache": cache}
    return [
        StreamProbe(ClassifierProbe(), stream.train_stream, stream.test_stream, **shared),
        StreamProbe(
            KNNProbe(5), stream.train_stream, stream.test_stream, backbone="features", **shared
        ),
        StreamProbe(
            LinearProbe("sgd", lr=0.3, epochs=5),
            stream.train_stream,
            stream.test_stream,
            scope="seen",
            backbone="features",
            **shared,
        ),
    ]


def analysis() -> AnalysisMetric:
    torch.manual_seed(5)
    joint = supervised.Net().features
    return AnalysisMetric(
        supervised.benchmark().test_stream, joint=joint, samples=32, backbone="features"
    )


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


def test_stability_compares_with_the_network_before_the_experience() -> None:
    metric = analysis()
    snapshots: list[nn.Module] = []
    stream = supervised.benchmark()
    strategy = supervised.strategy(
        [BranchTuningPlugin(verbose=False)],
        evaluator=EvaluationPlugin(metric, loggers=[InteractiveLogger()]),
    )
    import copy

    for experience in stream.train_stream:
        strategy.train(experience)
        snapshots.append(copy.deepcopy(strategy.model.features))
        strategy.eval(stream.test_stream)
    old = torch.utils.data.ConcatDataset(
        [torch.utils.data.Subset(stream.test_stream[i].dataset.eval(), range(16)) for i in (0, 1)]
    )
    expected = layerwise_cka(snapshots[2], snapshots[1], old, batch_size=32)
    assert metric.stability[2] == pytest.approx(expected, rel=1e-9)
    new = torch.utils.data.Subset(stream.test_stream[1].dataset.eval(), range(16))
    assert metric.plasticity[1] == pytest.approx(layerwise_cka(snapshots[1], metric.joint, new))


def test_an_experience_that_was_not_evaluated_is_measured_before_the_next(tmp_path: Path) -> None:
    runs = []
    for name, evaluate in {"always": lambda t: True, "at the end": lambda t: t == 2}.items():
        recorder = RunRecorder(tmp_path / name, name)
        train(run_metrics(probes(), analysis()), [recorder], evaluate)
        runs.append(load_run(tmp_path / name))
    first, second = runs
    for name, found in first.probes.items():
        assert second.probes[name] == found
    assert first.stability == second.stability and first.plasticity == second.plasticity


def test_evaluation_during_an_experience_is_no_row_of_the_matrix(tmp_path: Path) -> None:
    runs = []
    for every in (-1, 1):
        recorder = RunRecorder(tmp_path / str(every), "a")
        train(run_metrics(probes()), [recorder], eval_every=every)
        runs.append(load_run(tmp_path / str(every)))
    for name, found in runs[0].probes.items():
        assert runs[1].probes[name].accuracies == found.accuracies


def test_measuring_leaves_training_alone(tmp_path: Path) -> None:
    plain = train([], [InteractiveLogger()], lambda t: False).model.state_dict()
    recorder = RunRecorder(tmp_path, "a")
    measured = train(run_metrics(probes(), analysis()), [recorder]).model.state_dict()
    for name, value in plain.items():
        assert torch.equal(value, measured[name]), name


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


def test_two_probes_of_one_name_are_refused(tmp_path: Path) -> None:
    stream = supervised.benchmark()
    same = [
        StreamProbe(KNNProbe(k), stream.train_stream, stream.test_stream, backbone="features")
        for k in (3, 5)
    ]
    with pytest.raises(ProbeError, match=r"two probes have one name \(kNN, kNN\)"):
        run_metrics(same)
    with pytest.raises(ProbeError, match="two probes are called 'kNN'"):
        train([ProbeMetric(p) for p in same], [RunRecorder(tmp_path, "a")])


@pytest.mark.parametrize("order", [[1, 0], [0, 0], [0, 2]])
def test_another_order_than_the_streams_is_refused(order: list[int]) -> None:
    stream = supervised.benchmark()
    evaluator = EvaluationPlugin(*run_metrics(probes()), loggers=[InteractiveLogger()])
    strategy = supervised.strategy([], evaluator=evaluator)
    with pytest.raises(ProbeError, match=r"experience \d is to be trained"):
        for i in order:
            strategy.train(stream.train_stream[i])


def test_a_probe_of_another_stream_is_refused() -> None:
    def with_order(order: list[int]) -> Any:
        train, test = supervised.dataset(), supervised.dataset(seed=1)
        return class_incremental(train, test, 3, class_order=order)

    ours, theirs = with_order([0, 1, 2, 3, 4, 5]), with_order([4, 5, 2, 3, 0, 1])
    for made in (
        lambda s: ProbeMetric(StreamProbe(KNNProbe(2), s.train_stream, s.test_stream)),
        lambda s: ContinualEvaluation(StreamProbe(KNNProbe(2), s.train_stream, s.test_stream), 9),
    ):
        for stream in (ours, theirs):
            run = supervised.strategy([], evaluator=EvaluationPlugin(made(stream)), train_epochs=1)
            if stream is ours:
                run.train(ours.train_stream)
            else:
                with pytest.raises(ProbeError, match=r"with the classes \[0, 1\] …, .* \[4, 5\]"):
                    run.train(ours.train_stream)


def test_metrics_belong_to_one_run() -> None:
    metrics = run_metrics(probes())
    train(metrics, [InteractiveLogger()])
    with pytest.raises(ProbeError, match="make new metrics for a new run"):
        train(metrics, [InteractiveLogger()])


def test_the_last_experience_is_measured_without_eval(tmp_path: Path) -> None:
    train(run_metrics(probes(), analysis()), [RunRecorder(tmp_path, "a")], lambda t: False)
    run = load_run(tmp_path)
    assert run.complete and len(run.stability) == 3 and run.probes["kNN"].summary(3)["forgetting"]
    assert len(run.evaluation_seconds) == 3 and min(run.evaluation_seconds) > 0


@pytest.mark.parametrize(("every", "epochs"), [(1, 1), (1, 3), (2, 3), (0, 2)])
def test_periodic_evaluation_leaves_no_experience_out(
    tmp_path: Path, every: int, epochs: int
) -> None:
    recorder = RunRecorder(tmp_path, "a")
    never = lambda t: False  # noqa: E731
    train(run_metrics(probes()[:1]), [recorder], never, eval_every=every, train_epochs=epochs)
    assert load_run(tmp_path).complete


def test_avalanches_joint_training_is_one_experience(tmp_path: Path) -> None:
    stream = supervised.benchmark()
    metrics = run_metrics(probes())
    evaluator = EvaluationPlugin(*metrics, loggers=[RunRecorder(tmp_path, "joint")])
    model = supervised.Net()
    strategy = JointTraining(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=8,
        evaluator=evaluator,
    )
    strategy.train(stream.train_stream)
    strategy.eval(stream.test_stream)
    run = load_run(tmp_path)
    assert run.n_experiences == 1 and run.complete
    assert None not in run.probes["linear_seen"].accuracies[0]
    assert set(run.probes["kNN"].summary(1)) == {"final_accuracy"}


def test_online_streams_are_counted_by_their_experiences(tmp_path: Path) -> None:
    stream = supervised.benchmark(2)
    streams = stream.train_stream, stream.test_stream
    metrics = run_metrics([StreamProbe(KNNProbe(5), *streams, backbone="features")])
    evaluator = EvaluationPlugin(*metrics, loggers=[RunRecorder(tmp_path, "online")])
    strategy = supervised.strategy([], evaluator=evaluator, train_epochs=1)
    parts = split_online_stream(stream.train_stream, 10, access_task_boundaries=True)
    strategy.train(parts)
    strategy.eval(stream.test_stream)
    run = load_run(tmp_path)
    assert (run.n_experiences, run.finished) == (2, 2) and len(run.seconds) == 2


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


def test_joint_training_is_one_experience(tmp_path: Path) -> None:
    stream = supervised.benchmark()
    metric = ProbeMetric(
        StreamProbe(
            KNNProbe(5),
            stream.train_stream,
            stream.test_stream,
            scope="seen",
            backbone="features",
        )
    )
    evaluator = EvaluationPlugin(metric, loggers=[RunRecorder(tmp_path, "joint")])
    strategy = supervised.strategy([], evaluator=evaluator)
    strategy.train(supervised.benchmark(1).train_stream)
    strategy.eval(stream.test_stream)
    run = load_run(tmp_path)
    assert run.n_experiences == 1 and run.complete
    found = run.probes["kNN_seen"]
    assert None not in found.accuracies[0], "joint training has seen all experiences"
    assert found.summary(1) == {"final_accuracy": pytest.approx(np.mean(found.accuracies[0]))}
