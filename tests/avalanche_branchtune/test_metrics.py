"""Probes over streams, and everything that is measured as Avalanche metrics."""

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
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.analysis import layerwise_cka
from avalanche_branchtune.errors import ProbeError, RecordError, UnknownOptionError
from avalanche_branchtune.evaluation import (
    ClassifierProbe,
    FeatureCache,
    KNNProbe,
    LinearProbe,
    StreamProbe,
    extract_features,
    knn_probe,
    weighted_knn,
)
from avalanche_branchtune.evaluation.features import fingerprint
from avalanche_branchtune.metrics import (
    AnalysisMetric,
    ProbeMetric,
    RunRecorder,
    run_metrics,
)
from avalanche_branchtune.records import load_run
from tests import supervised


class Counting(nn.Flatten):
    """Features are the pixels; counts the images that it has seen."""

    images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return super().forward(x)


def labelled(labels: list[int], seed: int = 0, noise: float = 0.5) -> TensorDataset:
    y = torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    x = noise * torch.randn(len(y), 1, 2, 4, generator=generator)
    x.flatten(1)[torch.arange(len(y)), y % 8] += 1
    return TensorDataset(x, y)


TRAIN = [labelled([0, 1] * 20), labelled([2, 3] * 20, 1), labelled([4, 5] * 20, 2)]
TEST = [labelled([0, 1] * 15, 3), labelled([2, 3] * 10, 4), labelled([4, 5] * 5, 5)]


# ---- probes


def test_euclidean_knn_against_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 5, 900)
    x = (generator.normal(0, 1, (900, 6)) + y[:, None] * 0.6 + 100).astype("float32")
    classifier = KNeighborsClassifier(7, weights=lambda d: 1 / (d + 1e-5), algorithm="brute")
    expected = classifier.fit(x[:600], y[:600]).predict(x[600:])
    for chunks in ({}, {"chunk": 13, "bank_chunk": 5}, {"bank_chunk": 599}):
        got = weighted_knn(
            torch.from_numpy(x[:600]),
            torch.from_numpy(y[:600]),
            torch.from_numpy(x[600:]),
            k=7,
            distance="euclidean",
            **chunks,
        )
        assert (got.numpy() == expected).mean() >= 0.999, chunks
    assert 0.4 < (expected == y[600:]).mean() < 0.95
    with pytest.raises(UnknownOptionError, match="cosine, euclidean"):
        weighted_knn(torch.ones(3, 2), torch.zeros(3), torch.ones(1, 2), k=1, distance="city")


def test_features_are_computed_once_for_each_model_and_data_set() -> None:
    model, cache = Counting(), FeatureCache()
    for _ in range(3):
        knn_probe(model, TRAIN[0], TEST[0], k=3, cache=cache)
        knn_probe(model, TRAIN[0], TEST[0], k=5, distance="euclidean", cache=cache)
    assert model.images == 40 + 30 and len(cache) == 2
    knn_probe(model, TRAIN[0], TEST[0], k=3)
    assert model.images == 2 * 70, "without a cache nothing is kept"


def test_a_trained_model_is_another_one() -> None:
    model, cache = nn.Sequential(nn.Flatten(), nn.Linear(8, 4)), FeatureCache()
    before = cache.features(model, TRAIN[0])[0].clone()
    with torch.no_grad():
        model[1].weight[0, 0] += 1e-3
    after = cache.features(model, TRAIN[0])[0]
    assert not torch.equal(before, after)
    assert torch.equal(after, extract_features(model, TRAIN[0])[0])
    assert fingerprint(nn.Conv2d(1, 1, 1, stride=1)) != fingerprint(nn.Conv2d(1, 1, 1, stride=2))


def test_the_cache_is_bounded() -> None:
    cache = FeatureCache(max_mib=50 * 8 * 4 / 1024**2)  # 50 samples of 8 features, labels extra
    for data in TRAIN:
        cache.features(nn.Flatten(), data)
    assert len(cache) == 1
    cache.features(nn.Flatten(), TRAIN[-1])
    assert cache.mib == (40 * 8 * 4 + 40 * 8) / 1024**2


def test_scopes_are_what_they_say() -> None:
    everything = StreamProbe(KNNProbe(5), TRAIN, TEST).measure(nn.Flatten(), 1)
    x, y = torch.cat([d.tensors[0] for d in TRAIN]), torch.cat([d.tensors[1] for d in TRAIN])
    right = total = 0
    for i, data in enumerate(TEST):
        by_hand = knn_probe(nn.Flatten(), TensorDataset(x, y), data, k=5)
        assert everything.accuracies[i] == by_hand.accuracy < 1
        right, total = right + by_hand.accuracy * len(data), total + len(data)
    assert everything.overall == pytest.approx(right / total)

    seen = StreamProbe(KNNProbe(5), TRAIN, TEST, scope="seen").measure(nn.Flatten(), 2)
    bank = TensorDataset(x[:80], y[:80])
    assert seen.accuracies[:2] == [knn_probe(nn.Flatten(), bank, d, k=5).accuracy for d in TEST[:2]]
    assert seen.accuracies[2] is None and seen.name if hasattr(seen, "name") else True
    nothing = StreamProbe(KNNProbe(5), TRAIN, TEST, scope="seen").measure(nn.Flatten(), 0)
    assert nothing.accuracies == [None] * 3 and nothing.overall is None

    each = StreamProbe(KNNProbe(5), TRAIN, TEST, scope="experience").measure(nn.Flatten(), 0)
    assert each.accuracies == [
        knn_probe(nn.Flatten(), a, b, k=5).accuracy for a, b in zip(TRAIN, TEST, strict=True)
    ]
    assert each.overall > everything.overall
    assert {everything.settings["fitted on"], seen.settings["fitted on"]} == {
        "all experiences of the stream",
        "the experiences trained so far",
    }


def test_one_test_set_for_all_experiences() -> None:
    shared = [labelled([0, 1] * 20, 7)]
    trains = [labelled([0, 1] * 20, s) for s in range(3)]
    probe = StreamProbe(KNNProbe(5), trains, shared, scope="seen")
    one, three = probe.measure(nn.Flatten(), 1), probe.measure(nn.Flatten(), 3)
    assert len(one.accuracies) == 1 and one.accuracies[0] != three.accuracies[0]


def test_transfer_to_another_data_set_and_few_labels() -> None:
    other_train, other_test = [labelled([6, 7] * 50, 8)], [labelled([6, 7] * 50, 9)]
    probe = StreamProbe(LinearProbe(), other_train, other_test, label_share=0.1)
    result = probe.measure(nn.Flatten(), 2)
    assert 0.5 < result.overall < 1
    assert result.settings["training labels"] == "10% of each class"


def test_the_networks_own_classifier() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 6))
    result = StreamProbe(ClassifierProbe(), TRAIN, TEST).measure(model, 0)
    x, y = TEST[1].tensors
    assert result.accuracies[1] == (model(x).argmax(1) == y).double().mean()
    assert result.settings["probe"].startswith("the network's own classifier")


def relabelled(data: TensorDataset) -> TensorDataset:
    return TensorDataset(data.tensors[0], data.tensors[1] + 0)


def test_bad_input() -> None:
    with pytest.raises(UnknownOptionError, match="all, seen, experience"):
        StreamProbe(KNNProbe(), TRAIN, TEST, scope="past")
    with pytest.raises(ProbeError, match="3 training and 2 test experiences"):
        StreamProbe(KNNProbe(), TRAIN, TEST[:2], scope="seen")
    with pytest.raises(ProbeError, match="at least one of each"):
        StreamProbe(KNNProbe(), [], TEST)
    with pytest.raises(ProbeError, match=r"no training sample is labelled \[4, 5\]"):
        StreamProbe(KNNProbe(5), TRAIN[:2], TEST).measure(nn.Flatten(), 0)
    with pytest.raises(ProbeError, match="no sample of test experience 1 has a label"):
        StreamProbe(KNNProbe(5), TRAIN, [TEST[0], labelled([-1, -1]), TEST[2]]).measure(
            nn.Flatten(), 0
        )
    with pytest.raises(ProbeError, match="has no attribute `features`"):
        StreamProbe(KNNProbe(5), TRAIN, TEST, backbone="features").measure(nn.Flatten(), 0)
    with pytest.raises(ProbeError, match="labelled data"):
        knn_probe(nn.Flatten(), TensorDataset(torch.ones(9, 1, 2, 4)), TEST[0])


def test_a_label_set_that_changes_is_refused() -> None:
    changing = [TEST[0], relabelled(TEST[1]), TEST[2]]
    probe = StreamProbe(KNNProbe(5), TRAIN, changing)
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 4))
    probe.measure(model, 1)
    with torch.no_grad():
        model[1].weight += 1  # another network: features and labels are read anew
    changing[1].tensors[1][0] = 5
    with pytest.raises(ProbeError, match=r"test experience 1 changed from \[2, 3\] to \[2, 3, 5\]"):
        probe.measure(model, 2)


# ---- in training


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


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", 99, "newer than this package reads"),
        ("format", "csv", "expected 'avalanche-branchtune run'"),
        ("name", 3, "field 'name': expected str"),
        ("n_experiences", 0, "at least 1"),
        ("seconds", [1, "x"], r"field 'seconds\[1\]': expected float"),
        ("stability", [{"a": "b"}], r"field 'stability\[0\].a'"),
        ("probes", {"kNN": {}}, "field 'probes.kNN.protocol' is missing"),
        ("seed", True, "field 'seed': expected int"),
    ],
)
def test_a_damaged_record_names_file_and_field(
    tmp_path: Path, field: str, value: Any, message: str
) -> None:
    train(run_metrics(probes()[:1]), [RunRecorder(tmp_path, "a")])
    path = tmp_path / "run.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, field: value}))
    with pytest.raises(RecordError, match=message) as error:
        load_run(tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("accuracies", 1), [0.5], "rows of one length"),
        (("accuracies", 1), [0.5, 0.5, 1.5], r"accuracies\[1\]\[2\]': expected an accuracy"),
        (("overall",), [0.5], "overall': expected 3 accuracies"),
        (("random",), "none", "random': expected list"),
        (("random_overall",), 7, "expected an accuracy"),
    ],
)
def test_a_damaged_probe_names_the_field(
    tmp_path: Path, place: tuple[Any, ...], value: Any, message: str
) -> None:
    train(run_metrics(probes()[:1]), [RunRecorder(tmp_path, "a")])
    path = tmp_path / "run.json"
    content = json.loads(path.read_text())
    target = content["probes"]["classifier"]
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=message):
        load_run(tmp_path)


def test_no_record_and_half_a_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no record of a run: expected a file run\.json"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text('{"format": "avalanche-')
    with pytest.raises(RecordError, match=r"run\.json: cannot be read"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(RecordError, match="expected a mapping of fields"):
        load_run(tmp_path)
    train(run_metrics(probes()[:2]), [RunRecorder(tmp_path / "b", "b")])
    (tmp_path / "b/features.npz").write_bytes(b"PK half")
    with pytest.raises(RecordError, match=r"features\.npz: cannot be read"):
        load_run(tmp_path / "b")


@pytest.mark.parametrize("order", [[1, 0], [0, 0], [0, 2]])
def test_another_order_than_the_streams_is_refused(order: list[int]) -> None:
    stream = supervised.benchmark()
    evaluator = EvaluationPlugin(*run_metrics(probes()), loggers=[InteractiveLogger()])
    strategy = supervised.strategy([], evaluator=evaluator)
    with pytest.raises(ProbeError, match=r"experience \d is to be trained"):
        for i in order:
            strategy.train(stream.train_stream[i])


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


def test_an_own_classifier_tells_apart_what_the_scope_says() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 6))
    scores = model(TEST[1].tensors[0])
    for scope, allowed in (("experience", [2, 3]), ("seen", [0, 1, 2, 3])):
        found = StreamProbe(ClassifierProbe(), TRAIN, TEST, scope=scope).measure(model, 2)
        by_hand = torch.tensor(allowed)[scores[:, allowed].argmax(1)] == TEST[1].tensors[1]
        assert found.accuracies[1] == by_hand.double().mean()


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


def test_what_decides_an_accuracy_is_in_its_settings() -> None:
    def settings(**options: Any) -> dict[str, Any]:
        model = nn.Sequential(nn.Flatten(), nn.Identity())
        return StreamProbe(KNNProbe(5), TRAIN, TEST, **options).measure(model, 0).settings

    assert settings(backbone="0") != settings()
    assert settings(label_share=0.011) != settings(label_share=0.014)
    assert settings(label_share=0.5, seed=1) != settings(label_share=0.5)


def test_a_data_set_inside_a_subset_is_not_taken_for_it() -> None:
    part = torch.utils.data.Subset(TEST[0], range(4))
    assert len(StreamProbe(KNNProbe(1), TRAIN[:1], [part]).test[0]) == 4


def test_images_that_are_no_tensors() -> None:
    images = [(Image.new("RGB", (4, 4)), 0)] * 4
    with pytest.raises(ProbeError, match="eval_transform"):
        knn_probe(nn.Flatten(), images, images, k=1)


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
