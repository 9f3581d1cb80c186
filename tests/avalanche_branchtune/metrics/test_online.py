"""The linear probe that is trained during training."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import LabelError, ProbeError, UnknownOptionError
from avalanche_branchtune.metrics import OnlineProbe, OnlineProbeAccuracy
from avalanche_branchtune.streams import hide_labels, without_labels
from solo_bridge import SelfSupervised, SelfSupervisedMethod, solo_views
from tests import selfsupervised, supervised
from tests.oracles.same_training import Diary

Minibatches = list[list[tuple[Tensor, Tensor]]]
"""In each experience, features and labels of each minibatch."""


class Method(SelfSupervisedMethod):
    """Draws two views together; has a teacher of the same class, and changes features in place."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.backbone = selfsupervised.backbone(width)
        self.momentum_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.projector = nn.Sequential(nn.SiLU(inplace=True), nn.Linear(width, 4))
        self.head = self.projector[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def loss(self, views: Any, **needed: Tensor) -> Tensor:
        a, b = (self.projector(self(v)) for v in views)
        with torch.no_grad():
            c = self.momentum_backbone(views[0]) * 100
        return (a - b).square().mean() - b.var() + c.mean() * 0


class Keep(SupervisedPlugin):
    """Stores what the backbone gave in the forward pass of each minibatch, as float32."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.kept: Minibatches = []
        self.now: list[Tensor] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.kept.append([])

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.now = []
        forward = type(self.backbone).forward

        def watched(x: Tensor) -> Tensor:
            y = forward(self.backbone, x)
            self.now.append(y.detach().clone().float())
            return y

        self.backbone.forward = watched

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        del self.backbone.forward
        labels = strategy.mb_y
        self.kept[-1].append((torch.cat(self.now), torch.cat([labels] * len(self.now))))


def train_alone(kept: Minibatches, classes: int, lr: float, reset: bool) -> tuple[Tensor, Tensor]:
    """A linear classifier and SGD with momentum, written out."""
    size = kept[0][0][0].shape[1]
    w, b = torch.zeros(classes, size), torch.zeros(classes)
    vw, vb = torch.zeros_like(w), torch.zeros_like(b)
    for experience in kept:
        if reset:
            w, b, vw, vb = (torch.zeros_like(v) for v in (w, b, vw, vb))
        for x, y in experience:
            x, y = x[y >= 0], y[y >= 0]
            if len(y) == 0:
                continue
            difference = (x @ w.T + b).softmax(dim=1) - F.one_hot(y, classes)
            vw = 0.9 * vw + difference.T @ x / len(y)
            vb = 0.9 * vb + difference.mean(dim=0)
            w, b = w - lr * vw, b - lr * vb
    return w, b


def with_views(model: Any, plugins: list[Any], **settings: Any) -> SelfSupervised:
    views = solo_views([selfsupervised.VIEW])
    return selfsupervised.strategy(model, plugins, **{"lr": 0.1, "views": views, **settings})


def train(run: Any, stream: Any) -> None:
    torch.manual_seed(0)
    for experience in list(stream)[:3]:
        run.train(experience)


def setting(kind: str) -> tuple[Any, Any, Any, dict[str, Any], int]:
    """Model, strategy, training stream, arguments of the probe, number of classes."""
    if kind == "supervised":
        torch.manual_seed(0)
        make = supervised.strategy
        stream = supervised.benchmark().train_stream
        return supervised.Net(), make, stream, {"backbone": "features"}, 6
    torch.manual_seed(0)
    model: Any = Method() if kind.startswith("own") else selfsupervised.method("byol")
    options = {"precision": "bf16"} if kind.endswith("bf16") else {}

    def build(plugins: list[Any], model: Any, **settings: Any) -> SelfSupervised:
        return with_views(model, plugins, **options, **settings)

    shown = {"half": 0.5, "none": 0.0}.get(kind.split()[-1], 1.0)
    data = selfsupervised.data()
    hidden = {0.5: lambda: hide_labels(data, 0.5), 0.0: lambda: without_labels(data)}
    stream = selfsupervised.stream(5, hidden.get(shown, lambda: data)()).train_stream
    return model, build, stream, {}, 10


KINDS = ["supervised", "byol", "byol bf16", "own", "own bf16", "own half"]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_classifier_is_that_of_plain_sgd_on_the_same_features(kind: str, reset: bool) -> None:
    model, build, stream, options, classes = setting(kind)
    keep = Keep(model.features if kind == "supervised" else model.backbone)
    probe = OnlineProbe(classes, lr=0.2, reset=reset, **options)
    train(build([probe, BranchTuningPlugin(verbose=False), keep], model), stream)
    assert len(keep.kept) == 3
    samples = 8 if kind == "supervised" else 40  # two views
    assert {len(y) for e in keep.kept for _, y in e} == {samples}
    w, b = train_alone(keep.kept, classes, 0.2, reset)
    assert probe.classifier is not None
    torch.testing.assert_close(probe.classifier.weight.detach(), w, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(probe.classifier.bias.detach(), b, rtol=1e-5, atol=1e-6)
    assert w.abs().max() > 0.01


@pytest.mark.parametrize(
    ("kind", "norm_mode"),
    [
        *((kind, "affine") for kind in [*KINDS, "own none"]),
        ("byol", "eval"),
        *(
            pytest.param(k, "eval", marks=pytest.mark.slow)
            for k in [*KINDS, "own none"]
            if k != "byol"
        ),
    ],
)
def test_training_is_the_same_with_and_without(kind: str, norm_mode: str) -> None:
    diaries = []
    for probed in (False, True):
        model, build, stream, options, classes = setting(kind)
        probe = OnlineProbe(classes, **options)
        diary, branches = Diary(), BranchTuningPlugin(verbose=False, norm_mode=norm_mode)
        train(build([branches, diary, *([probe] if probed else [])], model), stream)
        assert (probe.classifier is not None) == (probed and kind != "own none")
        diaries.append(diary.entries)
    assert len(diaries[0]) == len(diaries[1]) > 12
    for a, b in zip(*diaries, strict=True):
        assert a == b


def test_without_labels_nothing_is_learnt() -> None:
    model, build, stream, _, _ = setting("own none")
    probe = OnlineProbe(10)
    run = build([probe], model, evaluator=EvaluationPlugin(OnlineProbeAccuracy(probe, [])))
    train(run, stream)
    assert (probe.classifier, probe.train_accuracy) == (None, None)
    assert run.evaluator.get_all_metrics() == {}
    with pytest.raises(ProbeError, match="no labelled minibatch"):
        probe.accuracy(model, stream[0].dataset)


def test_it_learns_and_gives_metrics() -> None:
    benchmark = supervised.benchmark(1, samples=240)
    probe = OnlineProbe(6, backbone="features")
    metric = OnlineProbeAccuracy(probe, benchmark.test_stream, batch_size=50)
    run = supervised.strategy([probe], evaluator=EvaluationPlugin(metric), train_epochs=4)
    run.eval(benchmark.test_stream)
    assert run.evaluator.get_all_metrics() == {}, "there is no classifier yet"
    run.train(benchmark.train_stream[0])
    run.eval(benchmark.test_stream)
    values = run.evaluator.get_all_metrics()
    x, epochs = values["Online_Probe_Acc_Epoch/train_phase/train_stream"]
    assert x == [30, 60, 90, 120]
    assert epochs[-1] == probe.train_accuracy == metric.result() > 0.6  # chance: 1/6
    assert epochs[-1] > epochs[0]
    _, (tested,) = values["Online_Probe_Acc_Exp/eval_phase/test_stream/Exp000"]
    assert values["Online_Probe_Acc_Stream/eval_phase/test_stream"] == ([120], [tested])
    assert tested == probe.accuracy(run.model, benchmark.test_stream[0].dataset) > 0.6
    assert probe.protocol == (
        "linear probe, online, lr 0.1, momentum 0.9, classes 6, classifier kept over the stream, "
        "trained on features of the training views, augmented, tested on frozen backbone in eval "
        "mode, without augmentation"
    )


def test_running_accuracy_is_of_this_epoch_before_each_step() -> None:
    model, build, stream, options, _ = setting("supervised")
    keep, probe = Keep(model.features), OnlineProbe(6, lr=0.2, **options)
    run = build([probe, keep], model, train_epochs=3)
    run.train(stream[0])
    done = keep.kept[0]
    assert len(done) == 6
    right = total = 0
    for i in (4, 5):
        x, y = done[i]
        w, b = train_alone([done[:i]], 6, 0.2, False)
        right, total = right + int(((x @ w.T + b).argmax(dim=1) == y).sum()), total + len(y)
    assert (right > 0, total) == (True, 16)
    assert probe.train_accuracy == right / total


def test_classifier_is_trained_in_float32_inside_autocast() -> None:
    model, build, stream, options, _ = setting("supervised")
    keep, probe = Keep(model.features), OnlineProbe(6, lr=0.2, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        train(build([probe, keep], model), stream)
    w, _ = train_alone(keep.kept, 6, 0.2, False)
    assert probe.classifier is not None
    torch.testing.assert_close(probe.classifier.weight.detach(), w, rtol=1e-5, atol=1e-6)


def test_accuracy_on_test_data_leaves_out_what_has_no_label() -> None:
    probe = OnlineProbe(6, backbone="features")
    run = supervised.strategy([probe])
    run.train(supervised.benchmark(1).train_stream[0])
    x, y = supervised.dataset(48, seed=1).tensors
    hidden = torch.where(torch.arange(48) < 20, -1, y)
    model = run.model
    model.train()
    before = copy.deepcopy(model.state_dict())
    found = probe.accuracy(model, TensorDataset(x, hidden))
    assert all(m.training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()
    assert probe.classifier is not None
    with torch.no_grad():
        guesses = probe.classifier(model.features(x[20:])).argmax(dim=1)
    assert found == pytest.approx((guesses == y[20:]).double().mean().item())
    with pytest.raises(ProbeError, match="no test sample"):
        probe.accuracy(model, TensorDataset(x, torch.full((48,), -1)))
    with pytest.raises(LabelError, match="label 6"):
        probe.accuracy(model, TensorDataset(x, y + 1))


class Copies(SupervisedPlugin):
    """Pickles and copies the network in the middle of training."""

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        text = pickle.dumps(strategy.model)
        assert b"OnlineProbe" not in text
        copied = copy.deepcopy(strategy.model)
        assert not any(m._forward_hooks for m in copied.modules())


def test_network_stays_itself_in_training_and_after_an_interruption() -> None:
    class Broken(Method):
        armed = False

        def loss(self, views: Any, **needed: Tensor) -> Tensor:
            loss = super().loss(views)
            if self.armed:
                raise KeyboardInterrupt
            return loss

    torch.manual_seed(0)
    model, probe = Method(), OnlineProbe(10)
    stream = list(selfsupervised.stream(5).train_stream)
    with_views(model, [Copies(), probe]).train(stream[0])

    model = Broken()
    run = with_views(model, [OnlineProbe(10), probe])
    run.train(stream[0])
    model.armed = True
    with pytest.raises(KeyboardInterrupt):
        run.train(stream[1])
    assert len(model.backbone._forward_hooks) == 2, "the pass was interrupted"
    model.armed = False
    run.eval(stream[1])
    assert probe._listener._outputs == []
    assert not model.backbone._forward_hooks
    model.armed = True
    with pytest.raises(KeyboardInterrupt):
        run.train(stream[1])
    model.armed = False
    run.train(stream[1])
    assert not model.backbone._forward_hooks
    assert probe.train_accuracy is not None


def test_only_outputs_with_a_row_for_each_label_are_used() -> None:
    class Crops(Method):
        def loss(self, views: Any, **needed: Tensor) -> Tensor:
            small = torch.cat([v[:, :, :4, :4] for v in views])
            return super().loss(views) + self.projector(self.backbone(small)).var()

    torch.manual_seed(0)
    model = Crops()
    keep, probe = Keep(model.backbone), OnlineProbe(10)
    train(with_views(model, [keep, probe]), selfsupervised.stream(5).train_stream)
    kept = [[(x[:40], y[:40]) for x, y in e] for e in keep.kept]
    assert {len(x) for e in keep.kept for x, _ in e} == {80}
    w, _ = train_alone(kept, 10, 0.1, False)
    assert probe.classifier is not None
    torch.testing.assert_close(probe.classifier.weight.detach(), w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Net has no module called 'backbone'"),
        ({"backbone": "body"}, "backbone='body'"),
        ({"backbone": "features.0"}, r"expected features \(8, D\), the backbone gave \[\(8, 6"),
        ({"backbone": lambda model: nn.Identity()}, "it was not called"),
    ],
)
def test_what_gives_no_features(options: dict[str, Any], said: str) -> None:
    run = supervised.strategy([OnlineProbe(6, **options)])
    with pytest.raises(ProbeError, match=said):
        run.train(supervised.benchmark().train_stream[0])


def test_damaged_features_and_labels() -> None:
    stream = supervised.benchmark().train_stream
    run = supervised.strategy([OnlineProbe(6, backbone="features")])
    run.train(stream[0])
    with torch.no_grad():
        run.model.features[0].weight[0] = float("nan")
    with pytest.raises(ProbeError, match="not finite in experience 1, epoch 0, step 0"):
        run.train(stream[1])

    top = max(int(y) for e in stream for y in e.dataset.targets)
    assert top == 5
    run = supervised.strategy([OnlineProbe(5, backbone="features")], train_epochs=1)
    with pytest.raises(LabelError, match="label 5 lies outside the 5 classes"):
        train(run, stream)

    wide = supervised.Net()
    probe = OnlineProbe(6, backbone=lambda model: model.now)
    wide.now = wide.features
    run = supervised.strategy([probe], wide)
    run.train(stream[0])
    wide.now = wide.fc
    with pytest.raises(ProbeError, match="gave 6 features, before 32"):
        run.train(stream[1])


def test_probe_that_is_no_plugin() -> None:
    metric = OnlineProbeAccuracy(OnlineProbe(6, backbone="features"), [])
    run = supervised.strategy([], evaluator=EvaluationPlugin(metric))
    with pytest.raises(ProbeError, match="not among the plugins"):
        run.train(supervised.benchmark().train_stream[0])


@pytest.mark.parametrize(("classes", "lr"), [(0, 0.1), (3, 0.0)])
def test_what_cannot_be_a_probe(classes: int, lr: float) -> None:
    with pytest.raises(UnknownOptionError, match=r"OnlineProbe\((num_classes|lr)=…\)"):
        OnlineProbe(classes, lr=lr)
