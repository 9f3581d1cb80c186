"""LUMP: what is mixed with what, by how much, and when."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.logging import InteractiveLogger
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from PIL import Image
from scipy import stats
from torch import Tensor
from torch.utils.data import Dataset

from avalanche_branchtune import BranchTuningPlugin, is_expanded
from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError, ViewsError
from avalanche_branchtune.metrics import OnlineProbe
from avalanche_branchtune.streams import data_incremental, domain_incremental
from solo_bridge import SelfSupervised, solo_views
from solo_bridge.plugins.distillation.cassle import CaSSLePlugin
from solo_bridge.plugins.distillation.kaizen import KaizenPlugin
from solo_bridge.plugins.rehearsal.lump import LUMPPlugin, MixedViews, Mixing
from solo_bridge.plugins.rehearsal.mixing import mixed
from solo_bridge.plugins.rehearsal.reservoir import Reservoir
from tests.oracles.replay import mixed_by_hand
from tests.selfsupervised import ALL_METHODS, VIEW, data, method, strategy, stream, weights

SIX = ("simclr", "byol", "barlow_twins", "mocov2plus", "vicreg", "swav")


# ---- mixing


def _random(seed: int, height: int = 5, width: int = 4, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _array(image: Any) -> np.ndarray:
    """An image of any kind as (H, W, C) in 0 to 255."""
    if isinstance(image, Tensor):
        scaled = image.double() * (255 if image.is_floating_point() else 1)
        return scaled.permute(1, 2, 0).numpy()
    array = np.asarray(image).astype(np.float64)
    return array[:, :, None] if array.ndim == 2 else array


KINDS: dict[str, Any] = {
    "pil": Image.fromarray,
    "array": lambda a: a,
    "uint8": lambda a: torch.from_numpy(a).permute(2, 0, 1).contiguous(),
    "float": lambda a: torch.from_numpy(a).permute(2, 0, 1).double() / 255,
}


@pytest.mark.parametrize(("new", "old"), list(itertools.product(KINDS, KINDS)))
def test_pixels_are_mixed_as_by_hand_whatever_the_images_are(new: str, old: str) -> None:
    a, b = _random(0), _random(1)
    for share in (0.0, 0.3, 0.85, 1.0):
        found = mixed(KINDS[new](a), KINDS[old](b), share)
        assert type(found) is type(KINDS[new](a))
        assert not isinstance(found, Tensor) or found.dtype == KINDS[new](a).dtype
        expected = mixed_by_hand(a, b, share)
        tolerance = 1e-4 if new == "float" else 0.5 + 1e-4  # rounded to the nearest of 256
        assert np.abs(_array(found) - expected).max() <= tolerance


def test_modes_and_channels_are_brought_together() -> None:
    grey, colour = Image.fromarray(_random(0)[:, :, 0]), Image.fromarray(_random(1))
    three = np.repeat(_random(0)[:, :, :1], 3, axis=2)
    for a, b, x, y in (
        (grey, colour, three, _random(1)),
        (colour, grey, _random(1), three),
        (colour, colour.convert("RGBA"), _random(1), _random(1)),
        (grey.convert("P"), colour, three, _random(1)),
        (grey, grey, _random(0)[:, :, :1], _random(0)[:, :, :1]),
    ):
        found = mixed(a, b, 0.25)
        assert np.abs(_array(found) - mixed_by_hand(x, y, 0.25)).max() <= 0.5 + 1e-4
    assert mixed(grey, grey, 0.5).mode == "L"
    flat = mixed(_random(0)[:, :, 0], grey, 0.5)
    assert flat.shape == (5, 4), "a grey array stays one"
    with pytest.raises(ViewsError, match="5 channels with one of 3"):
        mixed(torch.zeros(5, 4, 4), colour, 0.5)


def test_another_size_is_brought_to_that_of_the_new_image() -> None:
    wide = np.zeros((6, 16, 3), dtype=np.uint8)
    wide[:, 8:] = 200  # dark left, bright right
    found = _array(mixed(torch.zeros(3, 4, 8), Image.fromarray(wide), 0.25))
    assert found.shape == (4, 8, 3)
    assert np.allclose(found[:, :3], 0) and np.allclose(found[:, 5:], 150, atol=1e-3)
    assert mixed(Image.fromarray(wide), torch.zeros(3, 4, 8), 0.5).size == (16, 6)


def test_resizing_never_leaves_the_range_that_views_accept() -> None:
    views = solo_views([VIEW])
    for size, other in itertools.product(range(2, 9), range(2, 40)):
        found = mixed(torch.ones(3, size, size), torch.ones(3, other, other), 0.0)
        assert found.max() <= 1
        found = mixed(torch.zeros(3, size, size), torch.zeros(3, other, other), 0.5)
        assert found.min() >= 0
    views(found)


@pytest.mark.parametrize("image", ["picture", torch.zeros(4, 4), np.zeros((4, 4, 3)), [1, 2]])
def test_what_is_no_image_cannot_be_mixed(image: Any) -> None:
    with pytest.raises(ViewsError, match="cannot mix"):
        mixed(image, torch.zeros(3, 4, 4), 0.5)


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


def test_the_memory_is_a_uniform_sample_of_the_stream() -> None:
    torch.manual_seed(0)
    counts, rounds = torch.zeros(100), 4000
    for _ in range(rounds):
        reservoir, held, start = Reservoir(10), [], 0
        for samples in (4, 26, 50, 20):
            draw = reservoir.draw(samples)
            held = [held[i] for i in draw.stay] + [start + i for i in draw.enter]
            reservoir.take(draw)
            start += samples
            assert len(held) == len(set(held)) == min(10, start)
        counts[held] += 1
    z = (counts - rounds * 0.1) / (rounds * 0.1 * 0.9) ** 0.5
    assert z.abs().max() < 4.5
    assert stats.chi2(99).sf(float(z.square().sum())) > 1e-3
    for part in (z[:4], z[4:30], z[30:80], z[80:]):
        assert abs(float(part.sum()) / len(part) ** 0.5) < 4


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
    look, lump = Look(), LUMPPlugin(memory=16)
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
    for plugins in ([], [LUMPPlugin()]):
        run = strategy(method(), plugins)
        torch.manual_seed(1)
        np.random.seed(1)
        run.train(benchmark.train_stream[0])
        found.append(weights(run.model))
    assert torch.equal(*found)
    assert len(plugins[0].images) == 50


def test_remembered_images_come_from_the_stream_and_hold_nothing_else() -> None:
    known = {image.tobytes() for image in data().images}
    lump = LUMPPlugin(memory=30)
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

    lump = LUMPPlugin(memory=30)
    benchmark = data_incremental(Slices(), data(), 2)
    strategy(plugins=[lump]).train(benchmark.train_stream[0])
    assert all(len(i.untyped_storage()) == 3 * 8 * 8 * 4 for i in lump.images)


def test_memory_does_not_grow_over_twenty_experiences() -> None:
    lump = LUMPPlugin(memory=12)
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

    look, lump = Look(), LUMPPlugin(memory=16)
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


@pytest.mark.parametrize("name", SIX)
def test_three_experiences_beside_other_plugins_in_any_order(name: str) -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        lump, cassle = LUMPPlugin(memory=20), CaSSLePlugin(hidden=8)
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
    lump = LUMPPlugin(memory=16)
    strategy(plugins=[lump]).train(benchmark.train_stream[0])
    revived = pickle.loads(pickle.dumps(lump))
    run = strategy(plugins=[revived])
    assert run.views.mixing is revived.mixing
    run.train(benchmark.train_stream[1])
    assert len(revived.images) == 16 and len(revived.reservoir.keys) == 16
    again = pickle.loads(pickle.dumps(run.views))
    assert [i.tobytes() for i in again.mixing.images] == [i.tobytes() for i in revived.images]


def test_an_interrupted_experience_leaves_the_memory_and_can_be_trained_again() -> None:
    class Stop(SupervisedPlugin):
        armed = True

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            if self.armed and strategy.clock.train_exp_counter == 1:
                raise KeyboardInterrupt

    stop, lump = Stop(), LUMPPlugin(memory=16)
    run = strategy(plugins=[lump, BranchTuningPlugin(verbose=False), stop])
    benchmark = stream()
    run.train(benchmark.train_stream[0])
    before = list(lump.images)
    with pytest.raises(KeyboardInterrupt):
        run.train(benchmark.train_stream[1])
    assert lump.images == before
    stop.armed = False
    run.train(benchmark.train_stream[1])
    assert lump.images != before and not lump.mixing.active


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
        LUMPPlugin(**options)


def test_data_that_yields_views_has_no_image_to_mix() -> None:
    benchmark = data_incremental(data(), data(), 2, train_transform=solo_views([VIEW]))
    run = strategy(plugins=[LUMPPlugin()])
    with pytest.raises(ViewsError, match=r"yields views by itself.*return the image"):
        run.train(benchmark.train_stream[0])
    assert run.clock.train_iterations == 0

    class Own(type(method())):  # type: ignore[misc]
        def default_views(self) -> None:
            return None

    model = method()
    model.__class__ = Own
    with pytest.raises(ViewsError, match=r"makes no views.*SelfSupervised\(views=…\)"):
        strategy(model, [LUMPPlugin()])


def test_a_plugin_that_is_not_around_the_views() -> None:
    run = strategy()
    run.plugins.append(LUMPPlugin())
    with pytest.raises(IncompatiblePluginError, match=r"pass it to SelfSupervised\(plugins"):
        run.train(stream().train_stream[0])


@pytest.mark.parametrize(
    ("name", "reason"), [("supcon", "learns from labels"), ("deepclusterv2", "by the number")]
)
def test_methods_that_know_more_than_the_image(name: str, reason: str) -> None:
    if name not in ALL_METHODS:
        pytest.skip("not in this solo-learn")
    run = strategy(method(name), [LUMPPlugin()])
    with pytest.raises(IncompatiblePluginError, match=reason):
        run.train(stream().train_stream[0])
    assert run.clock.train_iterations == 0


@pytest.mark.parametrize(
    "other", [KaizenPlugin, LUMPPlugin, ReplayPlugin, lambda: OnlineProbe(num_classes=10)]
)
def test_plugins_that_cannot_stand_beside_it(other: Any) -> None:
    with pytest.raises(IncompatiblePluginError, match="LUMPPlugin beside"):
        strategy(plugins=[LUMPPlugin(), other()])
