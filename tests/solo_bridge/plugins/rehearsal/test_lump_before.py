"""LUMP before augmentation: images are mixed, from the second experience on."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.logging import InteractiveLogger
from avalanche.training.plugins import EvaluationPlugin
from PIL import Image
from scipy import stats
from torch import Tensor
from torch.utils.data import Dataset

from avalanche_branchtune import BranchTuningPlugin, is_expanded
from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError, ViewsError
from avalanche_branchtune.streams import data_incremental, domain_incremental
from solo_bridge import SelfSupervised, solo_views
from solo_bridge.plugins.distillation.cassle import CaSSLePlugin
from solo_bridge.plugins.rehearsal.lump import LUMPPlugin
from solo_bridge.plugins.rehearsal.lump_before import MixedViews, Mixing
from tests.selfsupervised import VIEW, data, method, strategy, stream, weights

SIX = ("simclr", "byol", "barlow_twins", "mocov2plus", "vicreg", "swav")


def before(memory: int = 256, alpha: float = 0.4) -> LUMPPlugin:
    return LUMPPlugin(memory, alpha, views="before_augmentation")


def _twice(image: Any) -> list[Tensor]:
    return [image, image]


def test_share_is_drawn_from_beta_for_each_image_and_is_that_of_all_its_views() -> None:
    mixing = Mixing(0.4)
    mixing.images, mixing.active = [torch.zeros(1, 1, 1), torch.full((1, 1, 1), -4.0)], True
    views = MixedViews(_twice, mixing)
    torch.manual_seed(0)
    found = [views(torch.ones(1, 1, 1)) for _ in range(3000)]
    assert all(torch.equal(a, b) for a, b in found)
    values = torch.tensor([float(a) for a, _ in found])
    below = values < 0  # surely the memory's second image: 1 · ν − 4 (1 − ν)
    shares = torch.where(below, (values + 4) / 5, values)
    mixing.images = mixing.images[:1]
    values = torch.tensor([float(views(torch.ones(1, 1, 1))[0]) for _ in range(3000)])
    assert stats.kstest(values.numpy(), stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    # ν < 0.8 and the second of two images: as often as chance has it
    chance = stats.beta(0.4, 0.4).cdf(0.8) / 2
    assert abs(float(below.float().mean()) - chance) < 0.03
    assert shares.min() >= 0 and shares.max() <= 1


# ---- the memory


class Flat(Dataset[Any]):
    """Float images of one value each."""

    def __init__(self, value: float, samples: int = 40, target: int = 0) -> None:
        self.value, self.targets = value, [target] * samples

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 8, 8), self.value), self.targets[index]


class Look(SupervisedPlugin):
    """Remembers the pixel and the label of every image that is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[float]] = []
        self.labels: list[list[int]] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.seen.append([])
        self.labels.append([])

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        a, b = strategy.mb_x
        assert torch.equal(a, b), "one mixed image, two views"
        self.seen[-1] += a[:, 0, 0, 0].tolist()
        self.labels[-1] += strategy.mb_y.tolist()


def _flat_run(workers: int, **settings: Any) -> tuple[Look, LUMPPlugin, SelfSupervised]:
    look, lump = Look(), before(memory=16)
    domains = [Flat(0.0, target=3), Flat(1.0, target=5), Flat(1.0, target=7)]
    torch.manual_seed(3)
    run = strategy(method("vicreg"), [lump, look], views=_twice, lr=0.01, **settings)
    for experience in domain_incremental(domains, domains).train_stream:
        run.train(experience, num_workers=workers)
    return look, lump, run


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_mixed_from_the_second_experience_on(workers: int) -> None:
    look, lump, _ = _flat_run(workers)
    first, second, third = look.seen
    assert set(first) == {0.0}
    assert len(set(second)) == len(second) == 80, (
        "each image, in each epoch, has a share of its own"
    )
    assert min(second) > 0 and max(second) <= 1 and 0.3 < np.mean(second) < 0.7
    assert set(look.labels[1]) == {5}, "labels are left alone"
    values = [float(image[0, 0, 0]) for image in lump.images]
    assert len(values) == 16 and set(values) == {0.0, 1.0}, "unmixed, as they came"
    assert np.mean(third) > np.mean(second), "the memory has white images by now"
    again, *_ = _flat_run(workers)
    assert again.seen == look.seen, "runs can be repeated"


def _flipped(image: Image.Image) -> Image.Image:
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    return image.transpose(flip) if torch.rand(()) < 0.5 else image


def test_unmixed_views_are_what_the_method_gets_without_the_plugin() -> None:
    """In the first experience nothing differs; the memory is filled when it is over."""
    benchmark = data_incremental(data(), data(), 2, train_transform=_flipped)
    found = []
    for plugins in ([], [before()]):
        run = strategy(method(), plugins)
        torch.manual_seed(1)
        np.random.seed(1)
        run.train(benchmark.train_stream[0])
        found.append(weights(run.model))
    assert torch.equal(*found)
    assert len(plugins[0].images) == 50


def test_remembered_images_come_from_the_stream_and_hold_nothing_else() -> None:
    known = {image.tobytes() for image in data().images}
    lump = before(memory=30)
    run = strategy(plugins=[lump])
    for experience in stream().train_stream:
        run.train(experience)
    assert len(lump.images) == 30
    assert all(isinstance(i, Image.Image) and i.tobytes() in known for i in lump.images)

    class Slices(Flat):
        def __init__(self) -> None:
            super().__init__(0.5)
            self.images = torch.rand(40, 3, 8, 8)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return self.images[index], 0

    lump = before(memory=30)
    benchmark = data_incremental(Slices(), data(), 2)
    strategy(plugins=[lump]).train(benchmark.train_stream[0])
    assert all(len(i.untyped_storage()) == 3 * 8 * 8 * 4 for i in lump.images)


def test_memory_does_not_grow_over_twenty_experiences() -> None:
    lump = before(memory=12)
    run = strategy(plugins=[lump], train_mb_size=10, train_epochs=1)
    sizes = []
    for experience in data_incremental(data(400), data(), 20).train_stream:
        run.train(experience)
        sizes.append(len(pickle.dumps(lump)))
    assert len(lump.images) == 12
    assert max(sizes) - min(sizes) < 64


def test_the_loss_in_evaluation_is_that_of_unmixed_images() -> None:
    black, white = Flat(0.0), Flat(1.0)
    seen: list[float] = []

    class Watch(SupervisedPlugin):
        def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
            seen.extend(strategy.mb_x[0][:, 0, 0, 0].tolist())

    look, lump = Look(), before(memory=16)
    evaluator = EvaluationPlugin(loss_metrics(stream=True), loggers=[InteractiveLogger()])
    run = strategy(
        method("vicreg"),
        [lump, look, Watch()],
        views=_twice,
        lr=0.01,
        evaluator=evaluator,
        eval_every=1,
    )
    benchmark = domain_incremental([black, white], [white, white])
    for experience in benchmark.train_stream:
        run.train(experience, eval_streams=[benchmark.test_stream])
    run.eval(benchmark.test_stream)
    assert seen and set(seen) == {1.0}
    assert len(set(look.seen[1])) == 80, "mixing went on after each evaluation"


@pytest.mark.parametrize(
    "name", ["simclr", *(pytest.param(n, marks=pytest.mark.slow) for n in SIX if n != "simclr")]
)
def test_three_experiences_beside_other_plugins_in_any_order(name: str) -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        lump, cassle = before(memory=20), CaSSLePlugin(hidden=8)
        branches = BranchTuningPlugin(verbose=False)
        plugins = [[lump, cassle, branches][i] for i in order]
        run = strategy(method(name), plugins, train_epochs=1, lr=0.1)
        for experience in data_incremental(data(120), data(), 3).train_stream:
            run.train(experience)
            assert not is_expanded(run.model)
        assert cassle.terms["distillation"] != 0 and len(branches.summaries) == 2
        assert torch.isfinite(weights(run.model)).all()
        assert len(lump.images) == 20


def test_pickled_and_put_into_another_strategy_it_goes_on() -> None:
    benchmark = stream()
    lump = before(memory=16)
    strategy(plugins=[lump]).train(benchmark.train_stream[0])
    revived = pickle.loads(pickle.dumps(lump))
    run = strategy(plugins=[revived])
    assert run.views.mixing is revived.procedure.mixing
    run.train(benchmark.train_stream[1])
    assert len(revived.images) == 16 and len(revived.procedure.reservoir.keys) == 16
    again = pickle.loads(pickle.dumps(run.views))
    assert [i.tobytes() for i in again.mixing.images] == [i.tobytes() for i in revived.images]


def test_an_interrupted_experience_leaves_the_memory_and_can_be_trained_again() -> None:
    class Stop(SupervisedPlugin):
        armed = True

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            if self.armed and strategy.clock.train_exp_counter == 1:
                raise KeyboardInterrupt

    stop, lump = Stop(), before(memory=16)
    run = strategy(plugins=[lump, BranchTuningPlugin(verbose=False), stop])
    benchmark = stream()
    run.train(benchmark.train_stream[0])
    held = list(lump.images)
    with pytest.raises(KeyboardInterrupt):
        run.train(benchmark.train_stream[1])
    assert lump.images == held
    stop.armed = False
    run.train(benchmark.train_stream[1])
    assert lump.images != held and not lump.procedure.mixing.active


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0}, "LUMPPlugin.memory.*at least 1; got 0"),
        ({"memory": 2.5}, "whole number"),
        ({"alpha": 0.0}, "alpha.*above 0; got 0"),
        ({"alpha": float("nan")}, "alpha.*got nan"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        before(**options)


def test_data_that_yields_views_has_no_image_to_mix() -> None:
    benchmark = data_incremental(data(), data(), 2, train_transform=solo_views([VIEW]))
    run = strategy(plugins=[before()])
    with pytest.raises(ViewsError, match=r"yields views by itself.*return the image"):
        run.train(benchmark.train_stream[0])
    assert run.clock.train_iterations == 0

    class Own(type(method())):  # type: ignore[misc]
        def default_views(self) -> None:
            return None

    model = method()
    model.__class__ = Own
    with pytest.raises(ViewsError, match=r"makes no views.*SelfSupervised\(views=…\)"):
        strategy(model, [before()])


def test_a_plugin_that_is_not_around_the_views() -> None:
    run = strategy()
    run.plugins.append(before())
    with pytest.raises(IncompatiblePluginError, match=r"pass it to SelfSupervised\(plugins"):
        run.train(stream().train_stream[0])
