"""SelfSupervised over Avalanche streams: what it trains, and what it refuses."""

from __future__ import annotations

import copy
import itertools
import random
from typing import Any

import pytest
import torch
from avalanche.benchmarks import (
    SplitCIFAR10,  # noqa: F401  (the real loader stays importable)
    task_incremental_benchmark,
)
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics, timing_metrics
from avalanche.logging import InteractiveLogger
from avalanche.training.plugins import (
    AGEMPlugin,
    EvaluationPlugin,
    EWCPlugin,
    GEMPlugin,
    LRSchedulerPlugin,
    LwFPlugin,
    MASPlugin,
    ReplayPlugin,
)
from PIL import Image
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, is_expanded
from avalanche_branchtune.errors import (
    BatchSizeError,
    EmptyExperienceError,
    IncompatiblePluginError,
    LabelError,
    UnknownOptionError,
    UnreadableImageError,
    ViewsError,
)
from avalanche_branchtune.evaluation import knn_probe
from avalanche_branchtune.streams import (
    class_incremental,
    data_incremental,
    domain_incremental,
    hide_labels,
    split_domains,
    unlabelled_folder,
    without_labels,
)
from solo_bridge import (
    Augmentation,
    EvalTransform,
    SelfSupervised,
    SelfSupervisedMethod,
    SoloMethod,
    solo_views,
)
from solo_bridge.plugins import PeriodicFineTuningPlugin, SelfSupervisedEWCPlugin
from tests.selfsupervised import METHODS, VIEW, backbone, data, method, strategy, stream, weights


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        pytest.param(n, o, marks=[] if o == "lars" or n == "simclr" else pytest.mark.slow)
        for n in METHODS
        for o in ("lars", "sgd", "adam", "adamw")
    ],
)
def test_methods_learn_with_every_optimizer_and_branch_tuning(name: str, optimizer: str) -> None:
    losses: list[list[float]] = []

    class Losses(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            losses.append([])

        def after_backward(self, strategy: Any, **kwargs: Any) -> None:
            losses[-1].append(strategy.loss.item())

    model = method(name)
    rate = {"lars": 2.0, "sgd": 0.5, "adam": 0.05, "adamw": 0.05}[optimizer]
    branches = BranchTuningPlugin(verbose=False)
    run = strategy(model, [Losses(), branches], optimizer=optimizer, lr=rate, train_epochs=6)
    before = weights(model.backbone)
    for experience in stream().train_stream:
        run.train(experience)
        assert not torch.equal(weights(model.backbone), before)
        before = weights(model.backbone)
    assert branches.summaries[0].layers == (4 if name == "byol" else 2)
    assert not is_expanded(model)
    mean = [sum(epoch) / len(epoch) for epoch in losses]
    assert min(mean[1:6]) < mean[0]


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_weights_and_labels_never_enter_the_loss(name: str) -> None:
    def train(dataset: Any) -> Tensor:
        run = strategy(method(name), [BranchTuningPlugin(verbose=False)])
        torch.manual_seed(1)
        random.seed(1)
        for experience in data_incremental(dataset, data(), 2).train_stream:
            run.train(experience)
        return weights(run.model)

    reference = train(data())
    assert torch.isfinite(reference).all()
    assert torch.equal(train(data()), reference)
    constant = data(40)
    constant.targets = [3] * len(constant)
    partly, unlabelled = hide_labels(data(40), 0.5), without_labels(data(40))
    # The same images in the same order: only labels differ.
    labelled = _train_in_order(name, data(40))
    for other in (constant, partly, unlabelled):
        assert torch.equal(_train_in_order(name, other), labelled)


def _train_in_order(name: str, dataset: Any) -> Tensor:
    run = strategy(method(name), [BranchTuningPlugin(verbose=False)])
    random.seed(2)
    torch.manual_seed(2)
    benchmark = data_incremental(dataset, data(), 1)
    run.train(benchmark.train_stream[0], shuffle=False)
    run.train(benchmark.train_stream[0], shuffle=False)
    return weights(run.model)


def test_online_classifier_is_not_trained() -> None:
    model = method()
    run = strategy(model)
    before = copy.deepcopy(model.solo.classifier.state_dict())
    run.train(stream().train_stream[0])
    after = model.solo.classifier.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    held = {id(p) for g in run.optimizer.param_groups for p in g["params"]}
    assert not held & {id(p) for p in model.solo.classifier.parameters()}


def test_each_experience_has_a_fresh_optimizer_and_schedule() -> None:
    rates: list[float] = []
    optimizers: list[int] = []

    class Rates(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            rates.append(strategy.optimizer.param_groups[0]["lr"])
            optimizers.append(id(strategy.optimizer))
            if strategy.clock.train_exp_iterations == 0:
                assert not strategy.optimizer.state

    settings = {"warmup_epochs": 1.0, "warmup_start_lr": 0.0}
    run = strategy(plugins=[Rates()], lr=2.56, optimizer_settings=settings, train_epochs=4)
    for experience in stream().train_stream:
        run.train(experience)
    first, second = rates[:8], rates[8:]
    assert first == second
    assert first[0] == 0.0
    assert max(first) == pytest.approx(2.56 * 20 / 256), "scaled by batch / 256"
    assert first[-1] < 0.1 * max(first)
    assert len(set(optimizers)) == 2


def test_scaled_learning_rate_is_stated(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run = strategy(lr=0.4)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * 20 / 256)
    assert "scaled to 0.03125 for 20" in caplog.text
    assert strategy(lr=0.4, scale_lr=False).optimizer.param_groups[0]["lr"] == 0.4


def test_momentum_schedule_starts_anew_in_each_experience() -> None:
    taus: list[float] = []

    class Taus(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            taus.append(strategy.model.solo.momentum_updater.cur_tau)

    model = method("byol")
    run = strategy(model, [Taus()])
    for experience in stream().train_stream:
        run.train(experience)
        assert model.solo.momentum_updater.cur_tau == pytest.approx(1.0)
    assert taus[:4] == taus[4:]
    assert taus[0] == 0.99


def test_momentum_network_follows_the_online_one_through_branches() -> None:
    """Oracle: the exponential moving average of the folded kernels, step by step."""
    model = method("byol", tau=(0.5, 0.5))
    momentum = model.solo.momentum_pairs[0][1]
    expected: list[Tensor] = []

    def kernel(net: nn.Module) -> Tensor:
        layer: Any = net[0]
        return (layer.folded_weight() if is_expanded(net) else layer.weight).detach().clone()

    class Average(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            expected.append(kernel(momentum))

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            expected[-1] = 0.5 * expected[-1] + 0.5 * kernel(model.backbone)
            assert torch.allclose(kernel(momentum), expected[-1], atol=1e-6)

    run = strategy(model, [Average(), BranchTuningPlugin(verbose=False)])
    for experience in stream().train_stream:
        run.train(experience)
        assert torch.allclose(momentum[0].weight, expected[-1], atol=1e-6)
    assert not any(p.requires_grad for p in momentum.parameters())


def test_avalanche_metrics_loggers_and_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    evaluator = EvaluationPlugin(
        loss_metrics(minibatch=True, epoch=True, experience=True, stream=True),
        timing_metrics(epoch=True),
        loggers=[InteractiveLogger()],
    )
    run = strategy(evaluator=evaluator, eval_every=1)
    benchmark = stream()
    for experience in benchmark.train_stream:
        results = run.train(experience, eval_streams=[benchmark.test_stream])
    assert results["Loss_Epoch/train_phase/train_stream"] > 0
    buffers = [b.clone() for b in run.model.buffers()]
    results = run.eval(benchmark.test_stream)
    assert results["Loss_Stream/eval_phase/test_stream"] > 0
    assert all(torch.equal(a, b) for a, b in zip(buffers, run.model.buffers(), strict=True))
    assert "Loss_Epoch" in capsys.readouterr().out


def test_default_evaluator_prints_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    from solo_bridge.strategy import loss_evaluator

    run = strategy(evaluator=loss_evaluator)
    run.train(stream().train_stream[0])
    assert "Loss_Epoch/train_phase/train_stream" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["front", "back"])
def test_replay_brings_old_images_as_views(place: str) -> None:
    sizes: list[list[int]] = []

    class Sizes(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            sizes.append([])

        def after_forward(self, strategy: Any, **kwargs: Any) -> None:
            assert len(strategy.mb_x) == 2
            sizes[-1].append(len(strategy.mb_x[0]))

    plugins = [ReplayPlugin(mem_size=20, batch_size_mem=10), Sizes()]
    own = BranchTuningPlugin(verbose=False)
    run = strategy(plugins=[own, *plugins] if place == "front" else [*plugins, own])
    for experience in stream().train_stream:
        run.train(experience)
    assert set(sizes[0]) == {20}
    assert max(sizes[1]) == 30


def test_schedules_count_the_iterations_that_replay_adds() -> None:
    rates: list[float] = []
    taus: list[float] = []

    class Look(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            rates.append(strategy.optimizer.param_groups[0]["lr"])
            taus.append(strategy.model.solo.momentum_updater.cur_tau)

    replay = ReplayPlugin(mem_size=20, batch_size_mem=10)
    settings = {"warmup_epochs": 0.0}
    model = method("byol")
    run = strategy(model, [replay, Look()], lr=2.56, optimizer_settings=settings, train_epochs=4)
    for experience in stream().train_stream:
        run.train(experience)
    second = rates[8:]
    assert len(second) == 12, "3 iterations an epoch instead of 2"
    assert all(a > b > 0 for a, b in itertools.pairwise(second[1:])), "falls to the last step"
    assert all(a < b < 1 for a, b in itertools.pairwise(taus[8:]))
    assert model.solo.momentum_updater.cur_tau == pytest.approx(1.0)


def test_data_and_domain_incremental_streams() -> None:
    digits = data(200)
    domains = split_domains(digits)
    for benchmark in (
        data_incremental(digits, data(), 3),
        domain_incremental(domains[:3], domains[:3]),
    ):
        run = strategy(plugins=[BranchTuningPlugin(verbose=False)])
        for experience in benchmark.train_stream:
            run.train(experience)
        assert run.clock.train_exp_counter == 3


def test_views_made_by_the_data_are_taken_as_they_are() -> None:
    views = solo_views([VIEW])
    benchmark = class_incremental(data(), data(), 2, train_transform=views)
    run = strategy()
    run.views = None
    run.train(benchmark.train_stream[0])
    assert run.clock.train_iterations > 0


class Numbers(SupervisedPlugin):
    """Looks each sample of a minibatch up before views were made of it."""

    needs = frozenset({"index"})

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        plain = strategy.plain_data("Numbers")
        assert strategy.minibatch.index.device.type == "cpu"
        for number, label, view in zip(
            strategy.minibatch.index.tolist(), strategy.mb_y.tolist(), strategy.mb_x[0], strict=True
        ):
            image, own, *_ = plain[number]
            assert isinstance(image, Image.Image) and own == label
            assert torch.equal(EvalTransform(8)(image), view)
            self.seen.append(number)


@pytest.mark.parametrize("tasks", [False, True], ids=["plain", "with task labels"])
@pytest.mark.parametrize("name", ["simclr", "deepclusterv2"])
def test_a_plugin_that_needs_them_gets_the_samples_numbers(name: str, tasks: bool) -> None:
    """Beside plugins with loaders of their own: EWC's has the numbers too, the buffer's not."""
    train, numbers = stream(), Numbers()
    if tasks:
        train = task_incremental_benchmark(train, reset_task_labels=True)
    others: list[Any] = [SelfSupervisedEWCPlugin(1.0)]
    if name == "simclr":
        others.append(PeriodicFineTuningPlugin(steps=1, memory=40))
    plain = EvalTransform(8)
    run = strategy(
        method(name), [numbers, *others], views=lambda i: [plain(i)] * 2, train_epochs=1, lr=0.1
    )
    for experience in train.train_stream:
        numbers.seen.clear()
        run.train(experience, num_workers=0 if tasks else 2)
        assert len(numbers.seen) == len(set(numbers.seen)) == 40
    run.eval(train.test_stream, loss=name == "simclr")


def test_numbers_are_not_there_unasked() -> None:
    run = strategy(train_epochs=1)
    run.train(stream().train_stream[0])
    assert run.minibatch.index is None


def test_worker_processes_load_views() -> None:
    run = strategy(train_epochs=1)
    run.train(stream().train_stream[0], num_workers=2)
    assert run.clock.train_iterations == 2


def test_replayed_or_small_last_batches() -> None:
    run = strategy(train_mb_size=64)
    run.train(stream().train_stream[0])
    assert run.clock.train_iterations == 2, "50 images: one incomplete minibatch, kept"
    run = strategy(train_mb_size=20)
    run.train(stream().train_stream[0])
    assert run.clock.train_iterations == 4, "50 images: the last 10 are dropped"


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_mixed_precision_stays_near_full_precision(precision: str) -> None:
    def first_loss(kind: str) -> float:
        losses: list[float] = []

        class First(SupervisedPlugin):
            def after_backward(self, strategy: Any, **kwargs: Any) -> None:
                losses.append(strategy.loss.item())

        run = strategy(plugins=[First()], precision=kind)
        random.seed(0)
        torch.manual_seed(0)
        run.train(stream().train_stream[0])
        assert all(p.dtype == torch.float32 for p in run.model.parameters())
        return losses[0]

    full, mixed = first_loss("32"), first_loss(precision)
    assert mixed != full
    assert mixed == pytest.approx(full, rel=0.02)


class Own(SelfSupervisedMethod):
    """A method of one's own: views in, loss out."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone()

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def loss(self, views: Any) -> Tensor:
        a, b = (self.backbone(v) for v in views)
        return (a - b).square().mean() + (a.std(0) - 1).square().mean()


def test_a_method_of_ones_own() -> None:
    torch.manual_seed(0)
    own = Own()
    run = strategy(own, [BranchTuningPlugin(verbose=False)], views=solo_views([VIEW]), lr=0.1)
    benchmark = stream()
    for experience in benchmark.train_stream:
        run.train(experience)
    result = knn_probe(own, benchmark.train_stream[0].dataset, benchmark.test_stream[0].dataset)
    assert 0 <= result.accuracy <= 1


# ---- bad input


def test_empty_experience() -> None:
    experience = stream().train_stream[0]
    experience._dataset = experience.dataset.subset([])
    with pytest.raises(EmptyExperienceError, match="experience 0 has no samples"):
        strategy().train(experience)


def test_batch_of_one() -> None:
    with pytest.raises(BatchSizeError, match="train_mb_size ≥ 2"):
        strategy(train_mb_size=1).train(stream().train_stream[0])


def test_label_outside_the_declared_classes() -> None:
    model = method(num_classes=3)
    with pytest.raises(LabelError, match=r"outside the 3 classes"):
        strategy(model).train(stream().train_stream[0])


def test_wrong_number_and_sizes_of_views() -> None:
    three = solo_views([VIEW, Augmentation(crop_size=8)])
    with pytest.raises(ViewsError, match="simclr compares 2 views, the data yields 3"):
        strategy(views=three).train(stream().train_stream[0])
    uneven = solo_views([Augmentation(crop_size=8), Augmentation(crop_size=6)])
    with pytest.raises(ViewsError, match=r"views of one size.*\(3, 6, 6\), \(3, 8, 8\)"):
        strategy(views=uneven).train(stream().train_stream[0])
    with pytest.raises(UnknownOptionError, match="cannot compare small views"):
        method("barlow_twins", small_views=2)


def test_small_views_where_the_method_takes_them() -> None:
    pipelines = [VIEW, Augmentation(crop_size=6, num_crops=2)]
    model = method("simclr", small_views=2, augmentations=pipelines)
    run = strategy(model)
    run.train(stream().train_stream[0])
    assert run.clock.train_iterations > 0


def test_normalised_tensors_cannot_be_augmented() -> None:
    benchmark = class_incremental(
        data(), data(), 2, train_transform=lambda image: torch.randn(3, 8, 8) * 3
    )
    with pytest.raises(ViewsError, match="remove Normalize"):
        strategy().train(benchmark.train_stream[0])


def test_unreadable_image_names_the_file(tmp_path: Any) -> None:
    for i in range(20):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "7.png").write_bytes(b"no image")
    benchmark = data_incremental(unlabelled_folder(tmp_path), unlabelled_folder(tmp_path), 1)
    with pytest.raises(UnreadableImageError, match=r"7\.png"):
        strategy(train_mb_size=10).train(benchmark.train_stream[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "rmsprop"}, "lars, sgd, adam, adamw; got 'rmsprop'"),
        ({"precision": "64"}, "32, bf16, 16"),
        ({"on_non_finite": "ignore"}, "stop, skip, lower_scale"),
        ({"on_non_finite": "lower_scale"}, "precision='16' on a GPU only"),
        ({"check_finite_every": 0}, "at least 1; got 0"),
        ({"optimizer_settings": {"scheduler": "step"}}, "warmup_cosine, cosine, none"),
        ({"plugins": ["branch_tuning"]}, r"plugins=…\).*build\('branch_tuning', method, …\)"),
        ({"plugins": [BranchTuningPlugin]}, r"plugins=…\).*write BranchTuningPlugin\(…\)"),
    ],
)
def test_unknown_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        strategy(**options)


def test_a_scheduler_for_another_optimizer_is_refused() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with pytest.raises(IncompatiblePluginError, match="each experience has a fresh one"):
        strategy(plugins=[LRSchedulerPlugin(scheduler)])


@pytest.mark.parametrize(
    "plugin",
    [EWCPlugin(1.0), MASPlugin(1.0, 0.5), LwFPlugin(1, 2), GEMPlugin(4, 0.5), AGEMPlugin(4, 4)],
)
def test_plugins_for_class_outputs_are_refused_before_anything_is_trained(plugin: Any) -> None:
    with pytest.raises(IncompatiblePluginError, match=r"under SelfSupervised: .* class outputs"):
        strategy(plugins=[plugin])


def test_what_users_of_supervised_strategies_bring_along() -> None:
    model = method()
    with pytest.raises(UnknownOptionError, match="fresh optimizer: pass its name"):
        strategy(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(UnknownOptionError, match="a bare network has none"):
        SelfSupervised(backbone())
    with pytest.raises(UnknownOptionError, match=r"warmup_epochs.*got 'warmup'"):
        strategy(optimizer_settings={"warmup": 3})
    with pytest.raises(UnknownOptionError, match=r"lr=….*at least 0; got -"):
        strategy(lr=-1.0)
    with pytest.raises(BatchSizeError, match="train_mb_size=0"):
        strategy(train_mb_size=0)


@pytest.mark.parametrize("setting", ["temprature", "lr", "batch_size"])
def test_unknown_settings_of_a_method(setting: str) -> None:
    with pytest.raises(UnknownOptionError, match=rf"{setting}=….*temperature.*SelfSupervised"):
        method(**{setting: 7})


def test_warmup_longer_than_the_experience() -> None:
    run = strategy(optimizer_settings={"warmup_epochs": 10})
    with pytest.raises(UnknownOptionError, match=r"warmup_epochs=10.*has 2 epochs"):
        run.train(stream().train_stream[0])


def test_unknown_methods_and_backbones() -> None:
    with pytest.raises(UnknownOptionError, match=r"barlow_twins, byol.*simclr.*got 'moco'"):
        SoloMethod("moco")
    with pytest.raises(UnknownOptionError, match="resnet19"):
        SoloMethod("simclr", "resnet19")
    with pytest.raises(UnknownOptionError, match=r"expected features \(N, D\)"):
        SoloMethod("simclr", nn.Conv2d(3, 8, 3), image_size=8)


def test_the_method_may_come_first_without_a_warning_also_in_subclasses() -> None:
    class Inherits(SelfSupervised):
        pass

    class Renames(SelfSupervised):
        def __init__(self, net: Any, **settings: Any) -> None:
            super().__init__(net, **settings)

    for kind in (SelfSupervised, Inherits, Renames):
        model = method()
        assert kind(model, evaluator=None, lr=1.0).model is model  # a warning is an error here
