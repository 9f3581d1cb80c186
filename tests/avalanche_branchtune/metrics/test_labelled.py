"""An online probe that learns from labelled images beside the training."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, split_online_stream
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from avalanche_branchtune import BranchTuningPlugin, is_expanded
from avalanche_branchtune.errors import LabelError, ProbeError, UnknownOptionError
from avalanche_branchtune.metrics import (
    LabelledImages,
    OnlineProbe,
    OnlineProbeAccuracy,
    RunRecorder,
    run_metrics,
)
from avalanche_branchtune.metrics.online import TRAINING_MODE
from avalanche_branchtune.records import load_run
from avalanche_branchtune.report.groups import group_runs
from avalanche_branchtune.report.tables import settings_tables
from solo_bridge import Joint, SelfSupervised, SelfSupervisedMethod
from solo_bridge.plugins import CaSSLePlugin
from tests import selfsupervised, supervised
from tests.oracles import online_evaluation as oracle

RECORDED = Path(__file__).parents[2] / "recorded"
CLASSES = 6


def backbone() -> nn.Sequential:
    conv, norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
    return nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Method(SelfSupervisedMethod):
    """The oracle's: two views and a momentum backbone, float64."""

    evaluates = False

    def __init__(self, tau: float = 0.9) -> None:
        super().__init__()
        self.backbone = backbone().double()
        self.momentum_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.tau = tau

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.backbone.parameters())}]

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def loss(self, views: Any, **needed: Tensor) -> Tensor:
        a, b = (self.backbone(v) for v in views)
        with torch.no_grad():
            m, _ = (self.momentum_backbone(v) for v in views)
        return oracle.own_loss(a, b, m)

    @torch.no_grad()
    def after_step(self) -> None:
        pairs = zip(self.momentum_backbone.parameters(), self.backbone.parameters(), strict=True)
        for p, q in pairs:
            p.copy_(self.tau * p + (1 - self.tau) * q)


def pattern(*shape: int, of: float = 0, by: float = 1.0) -> Tensor:
    """Sines, as the recorded numbers were made of."""
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return by * torch.sin(numbers * 0.7 + of).reshape(shape)


class TwoViews(Dataset[Any]):
    """9 or more images of an experience as two views that stay the same."""

    def __init__(self, experience: int, samples: int, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(experience)
        views = torch.randn(samples, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
        self.views = (views + experience).to(dtype)
        self.targets = [2 * experience + i % 2 for i in range(samples)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Any:
        return list(self.views[i]), self.targets[i]


SAMPLES = (9, 12, 10)


def unlabelled(dtype: torch.dtype = torch.float64) -> Any:
    views = [TwoViews(e, n, dtype) for e, n in enumerate(SAMPLES)]
    data = [as_classification_dataset(v) for v in views]
    return benchmark_from_datasets(train=data).train_stream


def labelled() -> list[TensorDataset]:
    """Of each experience, more or fewer images than are trained on; some have no label."""
    found = []
    for e, n in enumerate((11, 7, 14)):
        generator = torch.Generator().manual_seed(100 + e)
        x = torch.randn(n, 3, 4, 4, generator=generator, dtype=torch.float64).sub(2 * e)
        y = torch.tensor([-1 if i % 5 == 4 else 2 * e + i % 2 for i in range(n)])
        found.append(TensorDataset(x, y))
    return found


class Doubled:
    """A transform that notes which images it was given."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, image: Tensor) -> Tensor:
        self.seen.append(image)
        return image * 2


class Snapshots(SupervisedPlugin):
    """Writes down, after every step, what the oracle knows."""

    def __init__(self, probe: OnlineProbe | None) -> None:
        super().__init__()
        self.probe = probe
        self.found: list[dict[str, Any]] = []

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        now: dict[str, Any] = {"loss": float(strategy.loss.detach())}
        nets = {"": strategy.model.backbone, "momentum ": strategy.model.momentum_backbone}
        for name, net in nets.items():
            values = (net[0].weight, net[1].weight, net[1].bias)
            values += (net[1].running_mean, net[1].running_var)
            keys = ("kernel", "gamma", "beta", "mean", "variance")
            now.update(
                {f"{name}{k}": v.detach().clone() for k, v in zip(keys, values, strict=True)}
            )
        if self.probe is not None and self.probe.classifier is not None:
            linear = self.probe.classifier
            now |= {"w": linear.weight.detach().clone(), "b": linear.bias.detach().clone()}
        self.found.append(now)


SETTINGS: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.05,
    "weight_decay": 0.01,
    "scale_lr": False,
    "optimizer_settings": {"scheduler": "none"},
    "train_mb_size": 4,
    "train_epochs": 2,
    "evaluator": None,
}


def strategy(model: Any, plugins: list[Any], **settings: Any) -> SelfSupervised:
    return SelfSupervised(model, plugins=plugins, **{**SETTINGS, **settings})


def assert_same(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        got = torch.as_tensor(found[key], dtype=torch.float64)
        value = torch.as_tensor(value, dtype=torch.float64)
        near = 1e-6 if key == "loss" else tolerance  # Avalanche adds losses up in float32
        torch.testing.assert_close(
            got, value, rtol=near, atol=near, msg=f"{key} is {got}, not {value}"
        )


@pytest.mark.parametrize("experiences", ["all", "seen", "current", None])
def test_every_step_is_the_oracle_s(experiences: str | None) -> None:
    """Network, statistics, momentum network and classifier in 14 steps; None: without labels."""
    torch.manual_seed(3)
    model, pictures, doubled = Method(), labelled(), Doubled()
    probe = None
    if experiences is not None:
        images = LabelledImages(pictures, experiences=experiences, transform=doubled, batch_size=5)
        probe = OnlineProbe(CLASSES, labelled=images, lr=0.3)
    snapshots = Snapshots(probe)
    own = [model.backbone[0].weight, model.backbone[1].weight, model.backbone[1].bias]
    nets = [oracle.Net(*(p.detach().clone() for p in own)) for _ in range(2)]

    class First(SupervisedPlugin):
        w, b = torch.zeros(CLASSES, 4), torch.zeros(CLASSES)

        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            if probe is not None and not snapshots.found and probe.classifier is not None:
                self.w = probe.classifier.weight.detach().clone()
                self.b = probe.classifier.bias.detach().clone()

    first = First()
    run = strategy(model, [snapshots, first, *([] if probe is None else [probe])])
    for experience in unlabelled():
        run.train(experience, shuffle=False)

    training = oracle.Training(*nets, first.w, first.b, 0.05, 0.3, 0.01, 0.9)
    label_of = {x.numpy().tobytes(): int(y) for d in pictures for x, y in d}
    belongs = {x.numpy().tobytes(): e for e, d in enumerate(pictures) for x, _ in d}
    drawn = iter(doubled.seen[1:])  # the first gave the size of the features
    expected = []
    for e, n in enumerate(SAMPLES):
        if probe is not None and e > 0:
            assert_same({"w": snapshots.found[len(expected) - 1]["w"]}, {"w": training.w}, 1e-12)
        training.experience()
        may = {"all": {0, 1, 2}, "seen": set(range(e + 1)), "current": {e}}.get(experiences or "")
        data = TwoViews(e, n)
        for _ in range(2):
            met: list[bytes] = []
            for begin in range(0, n - 3, 4):
                views = list(data.views[begin : begin + 4].unbind(dim=1))
                if may is None:
                    step = training.step(views, None, torch.empty(0))
                    del step["w"], step["b"]
                else:
                    own_images = torch.stack([next(drawn) for _ in range(5)])
                    keys = [x.numpy().tobytes() for x in own_images]
                    assert {belongs[k] for k in keys} <= may
                    met += keys
                    labels = torch.tensor([label_of[k] for k in keys])
                    step = training.step(views, own_images * 2, labels)
                expected.append(step)
            whole = sum(len(pictures[i]) for i in may or ()) // 5 * 5
            assert len(set(met[:whole])) == min(whole, len(met)), "each once until all were there"
    assert next(drawn, None) is None
    assert len(snapshots.found) == len(expected) == 14
    for found, wanted in zip(snapshots.found, expected, strict=True):
        assert_same(found, wanted, 1e-11)
    moved = torch.stack([s["mean"] for s in snapshots.found])
    assert moved.diff(dim=0).abs().max() > 0.05


class Fixed(LabelledImages):
    """The recorded minibatches, in their order."""

    def minibatches(
        self, strategy: Any, place: tuple[int, int] = (0, 0)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for t in range(6):
            labels = torch.tensor([(t + 2 * i) % 5 for i in range(6)])
            labels[t % 6] = -1
            yield pattern(6, 3, 4, 4, of=10 * t + 7, by=2.0), labels


class Recorded(Dataset[Any]):
    """The recorded views, four images in each of six steps."""

    targets = (0,) * 24

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> Any:
        return [pattern(4, 3, 4, 4, of=10 * (i // 4) + o)[i % 4] for o in (0, 5)], 0


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_recorded_numbers_of_cassle_s_training_step(optimizer: str) -> None:
    recorded = json.loads((RECORDED / "cassle_online_evaluation.json").read_text())[optimizer]
    model, net = Method(), pattern(4, 3, 3, 3, of=1, by=0.3)
    with torch.no_grad():
        model.backbone[0].weight.copy_(net)
        model.momentum_backbone[0].weight.copy_(net)
    data = TensorDataset(torch.zeros(1, 3, 4, 4).double(), torch.zeros(1).long())
    probe = OnlineProbe(5, labelled=Fixed([data]), lr=0.3)

    class Begin(SupervisedPlugin):
        @torch.no_grad()
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            assert probe.classifier is not None
            probe.classifier.weight.copy_(pattern(5, 4, of=2, by=0.5))
            probe.classifier.bias.copy_(pattern(5, of=3, by=0.1))

    snapshots = Snapshots(probe)
    settings = {"scheduler": "none", "eta": 0.02, "clip": True, "exclude_bias_and_norm": True}
    run = strategy(
        model,
        [probe, Begin(), snapshots],
        optimizer=optimizer,
        optimizer_settings=settings,
        train_epochs=1,
    )
    stream = benchmark_from_datasets(train=[as_classification_dataset(Recorded())]).train_stream
    run.train(stream[0], shuffle=False)
    keys = {
        "loss": "loss",
        "mean": "running_mean",
        "variance": "running_var",
        "momentum mean": "momentum_running_mean",
        "w": "classifier",
        "b": "bias",
    }
    for now, wanted in zip(snapshots.found, recorded, strict=True):
        found = {theirs: now[ours] for ours, theirs in keys.items()}
        assert_same(found, {k: wanted[k] for k in keys.values()}, 1e-12)
    kernel, last = snapshots.found[-1]["kernel"], recorded[-1]
    found = {"sum": kernel.sum(), "norm": kernel.norm(), "kernel": kernel.flatten()[:12]}
    wanted = {"sum": last["kernel_sum"], "norm": last["kernel_norm"], "kernel": last["kernel"]}
    assert_same(found, wanted, 1e-12)


def trained(plugins: list[Any], **settings: Any) -> Any:
    """The tiny method over the stream; views and their order do not depend on random numbers."""
    torch.manual_seed(3)
    run = strategy(Method(), plugins, **settings)
    for e, experience in enumerate(unlabelled()):
        torch.manual_seed(e)
        run.train(experience, shuffle=False)
    return run


def test_the_labels_move_the_statistics_and_no_weight() -> None:
    """In training BatchNorm takes the minibatch's own statistics: those of evaluation differ."""
    plain = trained([])
    probed = trained([OnlineProbe(CLASSES, labelled=LabelledImages(labelled()))])
    for (name, p), q in zip(plain.model.named_parameters(), probed.model.parameters(), strict=True):
        assert torch.equal(p, q), name
    for net in ("backbone", "momentum_backbone"):
        a, b = (getattr(r.model, net)[1].running_mean for r in (plain, probed))
        assert (a - b).abs().max() > 0.05
    assert plain.model.backbone[1].num_batches_tracked * 3 == (
        probed.model.backbone[1].num_batches_tracked * 2
    )


def test_solo_learn_s_momentum_networks_see_the_images_too() -> None:
    counts = []
    for with_labels in (False, True):
        model = selfsupervised.method("byol")
        stream = selfsupervised.stream(2).train_stream
        probe = OnlineProbe(10, labelled=LabelledImages(stream) if with_labels else None)
        selfsupervised.strategy(model, [probe]).train(stream[0])
        nets = (model.backbone, model.momentum_backbone)
        counts.append([int(net[1].num_batches_tracked) for net in nets])
    assert counts == [[8, 8], [12, 12]], "two views in four steps, and four minibatches more"


def test_distillation_is_not_disturbed() -> None:
    """CaSSLe keeps the outputs of the views, whichever plugin comes first."""
    found = []
    for place in (None, 0, 1):
        cassle = CaSSLePlugin("mse", hidden=8)
        plugins: list[Any] = [cassle]
        if place is not None:
            images = LabelledImages(labelled(), experiences="seen", transform=Tensor.float)
            plugins.insert(place, OnlineProbe(CLASSES, labelled=images))
        model = WithProjector()
        torch.manual_seed(3)
        run = strategy(model, plugins)
        terms = []
        for e, experience in enumerate(unlabelled(torch.float32)):
            torch.manual_seed(e)  # the predictor draws first, wherever its plugin stands
            run.train(experience, shuffle=False)
            terms.append(dict(cassle.terms))
        assert "distillation" in terms[1] and terms[1]["distillation"] > 0
        found.append((dict(model.named_parameters()), terms))
    (plain, terms), *others = found
    for weights, seen in others:
        assert seen == terms
        assert all(torch.equal(p, weights[n]) for n, p in plain.items())


class WithProjector(Method):
    """The tiny method with a projector, in float32 as distillation's predictors."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        super().__init__()
        self.float()
        self.projector = nn.Linear(4, 3)

    def parameter_groups(self) -> list[dict[str, Any]]:
        modules = (self.backbone, self.projector)
        return [{"params": [p for m in modules for p in m.parameters()]}]

    def loss(self, views: Any, **needed: Tensor) -> Tensor:
        a, b = (self.projector(self.backbone(v)) for v in views)
        with torch.no_grad():
            self.momentum_backbone(views[0])
        return (a - b).square().mean() - a.var(0).mean().sqrt()


class Held(SupervisedPlugin):
    """In every step: groups of the optimizer that the probe's classifier is in, and their rates."""

    def __init__(self, probe: OnlineProbe) -> None:
        super().__init__()
        self.probe = probe
        self.groups: list[list[Any]] = []
        self.rates: list[tuple[float, float]] = []

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        assert self.probe.classifier is not None
        own = {id(p) for p in self.probe.classifier.parameters()}
        groups = strategy.optimizer.param_groups
        held = [id(p) for g in groups for p in g["params"]]
        assert len(held) == len(set(held)) and own <= set(held)
        assert all(p.grad is not None for p in self.probe.classifier.parameters())
        mine = [g for g in groups if g.get("name") == "OnlineProbe"]
        assert [{id(p) for p in g["params"]} for g in mine] == [own]
        assert mine[0]["weight_decay"] == 0
        self.rates.append((groups[0]["lr"], mine[0]["lr"]))


def assert_left(run: Any, probe: OnlineProbe) -> None:
    assert probe.classifier is not None
    own = {id(p) for p in probe.classifier.parameters()}
    optimizer = getattr(run.optimizer, "optim", run.optimizer)
    assert not own & {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert not own & {id(p) for p in optimizer.state}
    assert not any(g.get("name") == "OnlineProbe" for g in optimizer.param_groups)


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_the_classifier_has_its_own_rate_and_the_network_s_schedule(optimizer: str) -> None:
    probe = OnlineProbe(CLASSES, labelled=LabelledImages(labelled()), lr=0.3)
    held = Held(probe)
    schedule = {"scheduler": "warmup_cosine", "warmup_epochs": 1, "warmup_start_lr": 0.0}
    run = trained([probe, held], scale_lr=True, optimizer=optimizer, optimizer_settings=schedule)
    network = 0.05 * 4 / 256
    assert len(held.rates) == 14
    for mine, its in held.rates:
        assert its / 0.3 == pytest.approx(mine / network)
    assert max(its for _, its in held.rates) == pytest.approx(0.3)
    assert_left(run, probe)


def test_under_any_strategy() -> None:
    """Naive, whose optimizer lives on; the record of the run says how it was trained."""
    benchmark = supervised.benchmark(samples=96)
    images = LabelledImages(benchmark.train_stream, experiences="seen")
    probe = OnlineProbe(6, backbone="features", labelled=images)
    held, metric = Held(probe), OnlineProbeAccuracy(probe, benchmark.test_stream)
    run = supervised.strategy([probe, held], evaluator=EvaluationPlugin(metric))
    classifiers = []
    for e, experience in enumerate(benchmark.train_stream):
        run.train(experience)
        assert_left(run, probe)
        classifiers.append(probe.classifier)
        assert probe.classifier is not None
        found = sorted({int(y) for d in images.datasets[: e + 1] for _, y, *_ in d})
        assert len(found) == 2 * (e + 1)
    assert len(held.rates) == 24 and set(held.rates) == {(0.05, 0.1)}
    run.eval(benchmark.test_stream)
    values = run.evaluator.get_last_metrics()
    overall = values["Online_Probe_Acc_Stream/eval_phase/test_stream"]
    assert overall == probe.accuracy(run.model, supervised.dataset(96, seed=1)) > 0.3
    assert probe.train_accuracy is not None


def test_the_record_of_a_run_says_that_the_statistics_have_seen_the_images(tmp_path: Path) -> None:
    runs = []
    for name in ("plain", "labelled"):
        benchmark = supervised.benchmark(1)
        images = LabelledImages(benchmark.train_stream) if name == "labelled" else None
        probe = OnlineProbe(6, backbone="features", labelled=images)
        evaluator = EvaluationPlugin(*run_metrics([]), loggers=[RunRecorder(tmp_path / name, name)])
        supervised.strategy([probe], evaluator=evaluator, train_epochs=1).train(
            benchmark.train_stream[0]
        )
        runs.append(load_run(tmp_path / name))
    assert "online probe" not in runs[0].settings
    said = runs[1].settings["online probe"]
    assert said["trained on"].startswith("labelled images of all experiences, also of those to co")
    assert said["network"] == TRAINING_MODE and said["labelled minibatch"] == "the training's"
    assert probe.protocol == (
        "linear probe, online, lr 0.1, optimizer the network's, classes 6, classifier kept over "
        "the stream, trained on labelled images of all experiences, also of those to come, one "
        "augmented view each, beside the training data, labelled minibatch the training's, network "
        "in training mode for these images: its running statistics have seen them, tested on "
        "frozen backbone in eval mode, without augmentation"
    )
    tables = settings_tables(group_runs(runs))
    assert TRAINING_MODE in str([t.rows for t in tables])


def test_branch_tuning_beside_it_in_either_order() -> None:
    """Fixed norms stay fixed in the labelled images' pass; the classifier stays in the optimizer
    while branches come and go."""
    for order in (1, -1):
        probe = OnlineProbe(CLASSES, labelled=LabelledImages(labelled()), lr=0.1)
        held, branches = Held(probe), BranchTuningPlugin(verbose=False, norm_mode="eval")
        model, kernels = Method(), []

        class Watch(SupervisedPlugin):
            def after_update(self, strategy: Any, **kwargs: Any) -> None:
                nets = (strategy.model.backbone, strategy.model.momentum_backbone)
                assert len({is_expanded(net) for net in nets}) == 1
                means = torch.stack([net[1].running_mean for net in nets])
                kernels.append((is_expanded(nets[0]), means.clone()))  # noqa: B023

        run = strategy(model, [*[probe, branches][::order], held, Watch()])
        for experience in unlabelled():
            run.train(experience)
            assert_left(run, probe)
        assert [expanded for expanded, _ in kernels] == [False] * 4 + [True] * 10
        for (_, a), (expanded, b) in pairwise(kernels):
            assert torch.equal(a, b) == expanded
        assert not is_expanded(model)


def test_parts_of_an_online_stream_go_on_with_the_classifier() -> None:
    stream = split_online_stream(
        selfsupervised.stream(2).train_stream,
        experience_size=25,
        access_task_boundaries=True,
        shuffle=False,
    )
    images = LabelledImages(selfsupervised.stream(2).train_stream, experiences="seen")
    probe = OnlineProbe(10, labelled=images)
    held = Held(probe)
    run = selfsupervised.strategy(selfsupervised.method("byol"), [probe, held], train_epochs=1)
    classifiers = []
    for part in stream:
        run.train(part)
        classifiers.append(probe.classifier)
    assert classifiers[0] is classifiers[1] and classifiers[2] is classifiers[3]
    assert len(held.rates) == run.clock.train_iterations == 4


class Stop(SupervisedPlugin):
    """Notes the classifier with which training begins; interrupts in a step, or at the end."""

    def __init__(self, probe: OnlineProbe) -> None:
        super().__init__()
        self.probe = probe
        self.at: int | str | None = None
        self.began: list[Tensor] = []

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_epochs == 0:
            assert self.probe.classifier is not None
            self.began.append(self.probe.classifier.weight.detach().clone())

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_iterations == self.at:
            raise KeyboardInterrupt

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        if self.at == "end":
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", [0, 3, "end"])
@pytest.mark.parametrize("again", [1, 3])
def test_an_experience_that_is_trained_again_begins_as_it_did(at: Any, again: int) -> None:
    probe = OnlineProbe(CLASSES, labelled=LabelledImages(labelled()))
    stop = Stop(probe)
    run = strategy(Method(), [probe, stop])
    stream = unlabelled()
    run.train(stream[0])
    assert probe.classifier is not None
    left = probe.classifier.weight.detach().clone()
    stop.at = at
    for _ in range(again):
        with pytest.raises(KeyboardInterrupt):
            run.train(stream[1])
        assert not torch.equal(probe.classifier.weight, left)
    run.eval(stream[0])
    stop.at = None
    run.train(stream[1])
    run.train(stream[1])  # finished, and once more
    assert len(stop.began) == 1 + again + 2
    assert all(torch.equal(w, left) for w in stop.began[1:])
    assert_left(run, probe)
    run.train(stream[2])
    assert not torch.equal(stop.began[-1], left)


def test_copies_and_pickles_while_training() -> None:
    class Copies(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            probe = strategy.plugins[0]
            assert probe._minibatches is not None
            for other in (copy.deepcopy(probe), pickle.loads(pickle.dumps(probe))):
                assert other._minibatches is None
                assert torch.equal(other.classifier.weight, probe.classifier.weight)

    images = LabelledImages(labelled())
    trained([OnlineProbe(CLASSES, labelled=images), Copies()], train_epochs=1)


def test_a_new_classifier_in_each_experience() -> None:
    probe = OnlineProbe(CLASSES, labelled=LabelledImages(labelled()), reset=True)
    stop = Stop(probe)
    trained([probe, stop])
    a, b, c = stop.began
    assert not torch.equal(a, b) and not torch.equal(b, c)
    assert all(w.abs().max() <= 0.5 for w in stop.began), "nn.Linear's bound for 4 features"
    assert "new in each experience" in probe.protocol


def test_minibatches_without_any_label_and_labels_outside() -> None:
    x = torch.randn(8, 3, 4, 4).double()
    probe = OnlineProbe(CLASSES, labelled=LabelledImages([TensorDataset(x, torch.full((8,), -1))]))
    stop = Stop(probe)
    run = trained([probe, stop])
    assert probe.classifier is not None and probe.train_accuracy is None
    assert torch.equal(probe.classifier.weight, stop.began[0]) and torch.isfinite(run.loss).all()
    probe = OnlineProbe(3, labelled=LabelledImages([TensorDataset(x, torch.full((8,), 3))]))
    with pytest.raises(LabelError, match="label 3 lies outside the 3 classes"):
        trained([probe])


def test_sixteen_bit_brain_floats() -> None:
    stream = selfsupervised.stream(2).train_stream
    probe = OnlineProbe(10, labelled=LabelledImages(stream))
    run = selfsupervised.strategy(selfsupervised.method("byol"), [probe], precision="bf16")
    for experience in stream:
        run.train(experience)
    assert probe.classifier is not None and probe.classifier.weight.dtype == torch.float32
    assert torch.isfinite(probe.classifier.weight).all() and probe.train_accuracy is not None
    assert 0 <= probe.accuracy(run.model, selfsupervised.stream(2).test_stream[0]) <= 1


def test_damaged_networks_and_what_gives_no_features() -> None:
    images = LabelledImages(labelled())
    probe = OnlineProbe(CLASSES, labelled=images)
    run = strategy(Method(), [probe])
    stream = unlabelled()
    run.train(stream[0])
    damaged = copy.deepcopy(images)
    damaged.datasets[0].tensors[0].fill_(float("nan"))
    run.plugins[0].labelled = damaged
    with pytest.raises(ProbeError, match="not finite in experience 1, epoch 0, step 0"):
        run.train(stream[1])
    probe = OnlineProbe(CLASSES, labelled=images, backbone="backbone.3")
    with pytest.raises(ProbeError, match=r"expected features \(1, D\).*\(1, 3, 1, 1\).*labelled"):
        strategy(Method(), [probe]).train(stream[0])


# ---- the images


def of(n: int, begin: int = 0) -> TensorDataset:
    return TensorDataset(torch.arange(begin, begin + n).view(n, 1, 1, 1), torch.arange(n))


def in_training(**settings: Any) -> Any:
    """A strategy as far as the images of all experiences know it."""
    experience = SimpleNamespace(current_experience=0, origin_stream=range(3))
    found = SimpleNamespace(
        experience=experience, model=nn.Identity(), train_mb_size=4, dataloader=range(3)
    )
    vars(found).update(settings)
    return found


def met(images: LabelledImages, strategy: Any, minibatches: int) -> list[list[int]]:
    torch.manual_seed(0)
    some = images.minibatches(strategy)
    return [next(some)[0].flatten().tolist() for _ in range(minibatches)]


@pytest.mark.parametrize(
    ("size", "expected"), [(None, 4), (3, 3), ("epoch", 4), (10, 10), (11, 10), (99, 10)]
)
def test_sizes_of_minibatches_and_their_end(size: Any, expected: int) -> None:
    """10 images, 3 steps: 4, 4 and 2 that are dropped, then all of them anew."""
    images = LabelledImages([of(6), of(4, 6)], batch_size=size)
    found = met(images, in_training(), 8)
    assert {len(batch) for batch in found} == {expected}
    each = 10 // expected
    for begin in range(0, 8 - each, each):
        once = [i for batch in found[begin : begin + each] for i in batch]
        assert len(set(once)) == len(once) and set(once) <= set(range(10))
    assert found[0] != found[each], "shuffled anew"


def test_a_dropped_rest_is_another_one_each_time() -> None:
    found = met(LabelledImages([of(10)]), in_training(), 40)
    assert {i for batch in found for i in batch} == set(range(10))


def test_which_view_is_taken() -> None:
    views = [torch.full((1, 2, 2), float(i)) for i in range(4)]
    data = [[("image", 5, 0)]]

    def first(images: LabelledImages, **settings: Any) -> float:
        view, label = images.views(in_training(**settings))[0]
        assert label == 5
        return float(view.mean())

    two = nn.Identity()
    two.large_views = 2
    plain = LabelledImages(data)
    assert first(plain, views=lambda image: views) == 3, "the last"
    assert first(plain, views=lambda image: views, model=two) == 1, "the last full-size one"
    assert first(LabelledImages([[(views, 5)]]), model=two) == 1
    assert first(LabelledImages([[(views[2], 5)]])) == 2
    chosen = LabelledImages(data, transform=lambda image: views[:3])
    assert first(chosen, views=lambda image: views, model=two) == 2, "the user's own come first"
    with pytest.raises(ProbeError, match=r"as a tensor, got str: pass transform=…"):
        first(plain)
    with pytest.raises(ProbeError, match=r"samples \(image, label"):
        first(LabelledImages([["image"]]))


def test_the_last_pipeline_of_a_solo_learn_method() -> None:
    grey = replace(selfsupervised.VIEW, num_crops=1, grayscale_prob=1.0)
    colour = replace(grey, grayscale_prob=0.0)
    model = selfsupervised.method("byol", augmentations=[colour, grey])
    run = selfsupervised.strategy(model)
    run.experience = selfsupervised.stream(2).train_stream[0]
    view, _ = LabelledImages(selfsupervised.stream(2).train_stream).views(run)[0]
    mean, deviation = (torch.tensor(x).view(3, 1, 1) for x in (grey.mean, grey.std))
    pixels = view * deviation + mean
    assert view.shape == (3, 8, 8) and (pixels - pixels[:1]).abs().max() < 1e-5


@pytest.mark.parametrize("experiences", ["seen", "current"])
def test_another_stream_than_the_one_in_training_is_refused(experiences: str) -> None:
    for images in (labelled()[:2], [*labelled(), labelled()[0]]):
        probe = OnlineProbe(CLASSES, labelled=LabelledImages(images, experiences=experiences))
        with pytest.raises(ProbeError, match=rf"has 3 experiences, .* given {len(images)}"):
            strategy(Method(), [probe]).train(unlabelled()[0])


@pytest.mark.parametrize("experiences", ["seen", "current"])
def test_joint_training_sees_all(experiences: str) -> None:
    doubled = Doubled()
    images = LabelledImages(labelled(), experiences=experiences, transform=doubled, batch_size=32)
    run = Joint(Method(), plugins=[OnlineProbe(CLASSES, labelled=images)], **SETTINGS)
    run.train(unlabelled())
    steps = run.clock.train_iterations
    assert steps == 2 * (31 // 4) and len(doubled.seen) == 1 + 32 * steps
    assert len({x.numpy().tobytes() for x in doubled.seen}) == 32


@pytest.mark.parametrize(
    ("stream", "options", "error", "said"),
    [
        ([], {}, ProbeError, "got none"),
        (of(3), {}, ProbeError, "got the samples of one data set"),
        ([of(3), of(0)], {}, ProbeError, "no samples"),
        ([of(3)], {"experiences": "past"}, UnknownOptionError, "experiences=….*'past'"),
        ([of(3)], {"batch_size": 0}, UnknownOptionError, "batch_size=…"),
        ([of(3)], {"batch_size": "epochs"}, UnknownOptionError, "did you mean epoch"),
        ([of(3)], {"num_workers": -1}, UnknownOptionError, "num_workers=…"),
    ],
)
def test_what_cannot_be_labelled_images(
    stream: Any, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        LabelledImages(stream, **options)


def test_what_is_no_labelled_images() -> None:
    with pytest.raises(UnknownOptionError, match=r"OnlineProbe\(labelled=….*got a list"):
        OnlineProbe(6, labelled=labelled())  # type: ignore[arg-type]
