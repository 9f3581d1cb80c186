"""LUMP: augmented views are mixed, in every minibatch but the first."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import task_incremental_benchmark
from avalanche.benchmarks.scenarios import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from PIL import Image
from scipy import stats
from torch import Tensor

from avalanche_branchtune import BranchTuningPlugin, is_expanded
from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError, ViewsError
from avalanche_branchtune.metrics import OnlineProbe
from avalanche_branchtune.streams import data_incremental
from solo_bridge import Augmentation, solo_views
from solo_bridge.plugins import CaSSLePlugin, KaizenPlugin, LUMPPlugin
from solo_bridge.plugins.rehearsal import mixing, reservoir
from solo_bridge.plugins.rehearsal.lump import VIEWS
from solo_bridge.plugins.rehearsal.replay_view import OneView, crop_and_flip
from tests.oracles.replay import StepByStep
from tests.selfsupervised import (
    ALL_METHODS,
    VIEW,
    data,
    method,
    strategy,
    stream,
    weights,
)
from tests.solo_bridge.plugins.rehearsal.patterns import (
    RATE,
    Look,
    Tiny,
    another_view,
    benchmark,
    image,
    run_of,
    two_views,
)


class Drawn:
    """Remembers what was drawn, as it is drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.choices: list[list[int]] = []
        self.places: list[list[int]] = []
        self.shares: list[float] = []
        for module, name, kept in (
            (reservoir, "some_of", self.choices),
            (reservoir, "candidates", self.places),
            (mixing, "share", self.shares),
        ):
            monkeypatch.setattr(module, name, self._keeping(getattr(module, name), kept))

    @staticmethod
    def _keeping(draw: Any, kept: list[Any]) -> Any:
        def drawn(*args: Any) -> Any:
            kept.append(draw(*args))
            return kept[-1]

        return drawn


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch)


# ---- the training step


def three_views(x: Tensor) -> list[Tensor]:
    return [*two_views(x), x.square()]


@pytest.mark.parametrize("memory", [3, 6, 50], ids=["fewer than a minibatch", "6", "all"])
@pytest.mark.parametrize("views", [two_views, three_views])
def test_weights_after_every_step_are_those_of_the_oracle(
    memory: int, views: Any, drawn: Drawn
) -> None:
    torch.manual_seed(0)
    look, plugin = Look(), LUMPPlugin(memory, replay_view=another_view)
    run = run_of([plugin, look], views=views)
    for experience in benchmark().train_stream:
        run.train(experience)
    assert len(look.weights) == 18 and len(drawn.shares) == len(drawn.choices) == 17
    oracle = StepByStep(Tiny(), views, another_view, memory, RATE, drawn.choices, drawn.places)
    shares = list(drawn.shares)
    for numbers, found in zip(look.minibatches, look.weights, strict=True):
        oracle.lump([image(n) for n in numbers], shares)
        assert torch.allclose(found, oracle.states[-1], rtol=1e-10, atol=1e-12)
    assert all(torch.equal(i, oracle.held[k][0]) for k, i in enumerate(plugin.images))
    assert len(plugin.images) == len(oracle.held) == memory
    assert plugin.procedure.memory.held.seen == 72, "an image counts each time"


def test_one_share_for_a_minibatch_from_beta(drawn: Drawn) -> None:
    torch.manual_seed(0)
    found = [mixing.share(0.4) for _ in range(3000)]
    assert stats.kstest(found, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    drawn.shares.clear()
    look = Look()
    run = run_of([LUMPPlugin(8, replay_view=lambda x: torch.full_like(x, 3.0)), look])
    run.train(benchmark().train_stream[0])
    for numbers, views, share in zip(
        look.minibatches[1:], look.views[1:], drawn.shares, strict=True
    ):
        for number, row in zip(numbers, views[0], strict=True):
            expected = share * two_views(image(number))[0] + (1 - share) * 3
            assert torch.allclose(row, expected)


def test_remembered_images_get_a_new_crop_and_flip_in_the_size_of_the_first_pipeline() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    first = replace(VIEW, crop_size=6, num_crops=1, mean=mean, std=std)
    run = strategy(method(augmentations=[first, replace(first, blur_prob=0.5)]))
    expected = Augmentation(
        crop_size=6, crop_min_scale=0.08, jitter_prob=0, grayscale_prob=0, mean=mean, std=std
    )
    assert crop_and_flip(run, "") == expected and expected.flip_prob == 0.5
    plugin = LUMPPlugin(memory=20)
    run = strategy(method(augmentations=[first, replace(first, blur_prob=0.5)]), [plugin])
    run.train(stream().train_stream[0])
    grey = OneView(crop_and_flip(run, ""))(Image.new("RGB", (8, 8), (128, 128, 128)))
    assert grey.shape == (3, 6, 6)
    for channel, m, s in zip(grey, mean, std, strict=True):
        assert torch.allclose(channel, torch.tensor((128 / 255 - m) / s), atol=1e-5)
    left = np.zeros((8, 8, 3), dtype=np.uint8)
    left[:, :4] = 255
    view = OneView(replace(expected, crop_min_scale=1.0))
    bright = [
        bool((v := view(Image.fromarray(left)))[0, :, 0].mean() > v.mean()) for _ in range(99)
    ]
    assert 25 < sum(bright) < 75, "mirrored half of the time"


def test_a_stored_view_is_the_unmixed_one_and_the_image_is_as_it_came() -> None:
    known = {i.tobytes() for i in data().images}
    plugin = LUMPPlugin(memory=30)
    run = strategy(method(), [plugin], lr=0.1)
    seen: list[Tensor] = []

    class Unmixed(SupervisedPlugin):
        def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            seen.extend(strategy.mb_x[1].clone())

    run.plugins.append(Unmixed())
    for experience in stream().train_stream:
        run.train(experience)
    items = plugin.procedure.memory.held.items
    assert len(items) == 30 and all(i.image.tobytes() in known for i in items)
    stored = {tuple(i.kept[0].flatten().tolist()) for i in items}
    assert stored <= {tuple(view.flatten().tolist()) for view in seen}
    assert all(len(i.kept) == 1 for i in items)
    size = 3 * 8 * 8 * 4
    assert all(len(i.kept[0].untyped_storage()) == size for i in items), "and no more"


@pytest.mark.parametrize("workers", [0, 2])
def test_runs_can_be_repeated(workers: int) -> None:
    found = []
    for _ in range(2):
        plugin, model = LUMPPlugin(memory=30), method()
        run = strategy(model, [plugin], lr=0.1, train_epochs=1)
        torch.manual_seed(0)
        np.random.seed(0)
        for experience in stream().train_stream:
            run.train(experience, num_workers=workers)
        found.append(weights(model))
    assert torch.equal(*found)


def test_nothing_is_mixed_in_evaluation() -> None:
    found: list[list[Tensor]] = []

    class Evaluated(SupervisedPlugin):
        def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
            found[-1] += [v.clone() for v in strategy.mb_x]

    plugin = LUMPPlugin(memory=8, replay_view=another_view)
    for plugins in ([plugin], []):
        run = run_of([*plugins, Evaluated()])
        found.append([])
        if plugins:
            run.train(benchmark().train_stream[0])
            held = plugin.procedure.memory.held
        run.eval(benchmark().test_stream)
    assert found[0] and all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert plugin.procedure.memory.held is held


@pytest.mark.parametrize("name", ["simclr", "byol", "barlow_twins", "mocov2plus", "swav", "mae"])
def test_three_experiences_beside_other_plugins_in_any_order(name: str) -> None:
    if name not in ALL_METHODS:
        pytest.skip("not in this solo-learn")
    for order in ((0, 1, 2), (2, 1, 0)):
        lump, branches = LUMPPlugin(memory=20), BranchTuningPlugin(verbose=False)
        others = [lump, branches] if name == "mae" else [lump, CaSSLePlugin(hidden=8), branches]
        plugins = [others[i] for i in order if i < len(others)]
        run = strategy(method(name), plugins, train_epochs=1, lr=0.1)
        for experience in data_incremental(data(120), data(), 3).train_stream:
            run.train(experience)
            assert not is_expanded(run.model)
        assert len(branches.summaries) == 2
        assert torch.isfinite(weights(run.model)).all() and len(lump.images) == 20


def test_small_views_are_mixed_with_small_ones() -> None:
    if "swav" not in ALL_METHODS:
        pytest.skip("not in this solo-learn")
    pipelines = [VIEW, replace(VIEW, crop_size=6, num_crops=2)]
    model = method("byol", augmentations=pipelines, small_views=2)
    plugin = LUMPPlugin(memory=20)
    run = strategy(model, [plugin], lr=0.1)
    run.train(stream().train_stream[0])
    shapes = [tuple(view.shape) for view in plugin.procedure.memory.held.items[0].kept]
    assert shapes == [(3, 8, 8), (3, 6, 6), (3, 6, 6)]


def test_task_labels_and_online_parts() -> None:
    tasks = task_incremental_benchmark(stream(), reset_task_labels=True).train_stream
    parts = split_online_stream(stream().train_stream, experience_size=25, shuffle=False)
    known = {i.tobytes() for i in data().images}
    for experiences in (tasks, parts):
        plugin = LUMPPlugin(memory=1000)
        run = strategy(method(), [plugin], lr=0.1, train_epochs=1)
        for experience in experiences:
            run.train(experience)
        assert len(plugin.images) == plugin.procedure.memory.held.seen == 80
        found = {i.tobytes() for i in plugin.images}
        assert len(found) >= 75 and found <= known, "each image under its own number"


# ---- interrupted, pickled


class Stop(SupervisedPlugin):
    def __init__(self, event: str) -> None:
        super().__init__()
        self.armed = True
        setattr(self, event, self._stop)

    def _stop(self, strategy: Any, **kwargs: Any) -> None:
        if self.armed and strategy.clock.train_exp_counter == 1:
            self.armed = False
            raise KeyboardInterrupt


@pytest.mark.parametrize("event", ["before_backward", "after_update", "after_training_exp"])
def test_an_experience_that_is_trained_again_begins_from_the_same_memory(event: str) -> None:
    plugin, stop, held = LUMPPlugin(memory=16), Stop(event), []

    class Begin(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            held.append(plugin.procedure.memory.held)

    run = strategy(method(), [plugin, stop, Begin()], train_epochs=1, lr=0.1)
    first, second = stream().train_stream
    run.train(first)
    with pytest.raises(KeyboardInterrupt):
        run.train(second)
    after = plugin.procedure.memory.held
    assert (after is held[1]) == (event == "before_backward")
    run.train(second)
    assert held[2] is held[1] and held[1] is not held[0] and len(held[1].items) == 16
    assert plugin.procedure.memory.held.seen == 80


def test_pickled_and_put_into_another_strategy_it_goes_on() -> None:
    plugin = LUMPPlugin(memory=16)
    run = strategy(plugins=[plugin], lr=0.1)
    first, second = stream().train_stream
    run.train(first)
    revived = pickle.loads(pickle.dumps(plugin))
    assert [i.tobytes() for i in revived.images] == [i.tobytes() for i in plugin.images]
    other = strategy(copy.deepcopy(run.model), [revived], lr=0.1)
    found = []
    for each in (run, other):
        torch.manual_seed(0)
        np.random.seed(0)
        each.train(second)
        found.append(weights(each.model))
    assert torch.equal(*found)


def test_memory_does_not_grow_over_twenty_experiences() -> None:
    plugin = LUMPPlugin(memory=12)
    run = strategy(plugins=[plugin], train_mb_size=10, train_epochs=1)
    sizes = []
    for experience in data_incremental(data(400), data(), 20).train_stream:
        run.train(experience)
        sizes.append(len(pickle.dumps(plugin)))
    assert len(plugin.images) == 12 and plugin.procedure.memory.held.seen == 400
    assert max(sizes[2:]) < 2.2 * sizes[0], "what is held, and what was before the experience"


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0}, "LUMPPlugin.memory.*at least 1; got 0"),
        ({"alpha": 0.0}, "alpha.*above 0; got 0"),
        (
            {"views": "after"},
            "views=….*one of after_augmentation, before_augmentation; got 'after'",
        ),
        ({"replay_view": "crop"}, "replay_view=….*expected an Augmentation.*got 'crop'"),
        (
            {"views": "before_augmentation", "replay_view": VIEW},
            "views='before_augmentation'.*leave replay_view out",
        ),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        LUMPPlugin(**options)


def test_data_that_yields_views_has_no_image_to_remember() -> None:
    benchmark = data_incremental(data(), data(), 2, train_transform=solo_views([VIEW]))
    run = strategy(plugins=[LUMPPlugin()])
    with pytest.raises(ViewsError, match=r"yields views by itself.*return the image"):
        run.train(benchmark.train_stream[0])
    assert run.clock.train_iterations == 0


def test_views_of_unknown_making_need_a_replay_view() -> None:
    run = strategy(plugins=[LUMPPlugin()], views=solo_views([VIEW]))
    with pytest.raises(ViewsError, match=r"pass replay_view=Augmentation"):
        run.train(stream().train_stream[0])
    assert run.clock.train_iterations == 0
    run = strategy(plugins=[LUMPPlugin(replay_view=VIEW)], views=solo_views([VIEW]), lr=0.1)
    run.train(stream().train_stream[0])
    run = strategy(plugins=[LUMPPlugin(replay_view=replace(VIEW, crop_size=6))])
    with pytest.raises(ViewsError, match=r"view 1, \(3, 8, 8\).*\(3, 6, 6\)"):
        run.train(stream().train_stream[0])


def test_another_number_of_views_than_was_remembered() -> None:
    plugin = LUMPPlugin(8, replay_view=another_view)
    first, second, _ = benchmark().train_stream
    run_of([plugin]).train(first)
    with pytest.raises(ViewsError, match=r"with 2 views.*with 3"):
        run_of([plugin], views=three_views).train(second)


def test_a_loader_without_numbers() -> None:
    class Own(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            strategy.dataloader = torch.utils.data.DataLoader(
                strategy.experience.dataset.train(), batch_size=20
            )

    run = strategy(plugins=[LUMPPlugin(), Own()])
    with pytest.raises(IncompatiblePluginError, match="a loader without them"):
        run.train(stream().train_stream[0])


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(
    ("name", "reason"), [("supcon", "learns from labels"), ("deepclusterv2", "by the number")]
)
def test_methods_that_know_more_than_the_image(name: str, reason: str, views: str) -> None:
    if name not in ALL_METHODS:
        pytest.skip("not in this solo-learn")
    run = strategy(method(name), [LUMPPlugin(views=views)])
    with pytest.raises(IncompatiblePluginError, match=reason):
        run.train(stream().train_stream[0])
    assert run.clock.train_iterations == 0


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(
    "other", [KaizenPlugin, LUMPPlugin, ReplayPlugin, lambda: OnlineProbe(num_classes=10)]
)
def test_plugins_that_cannot_stand_beside_it(other: Any, views: str) -> None:
    with pytest.raises(IncompatiblePluginError, match="LUMPPlugin beside"):
        strategy(plugins=[LUMPPlugin(views=views), other()])
    run = strategy(plugins=[LUMPPlugin(views=views)])
    run.plugins.append(other())
    with pytest.raises(IncompatiblePluginError, match="LUMPPlugin beside"):
        run.train(stream().train_stream[0])
