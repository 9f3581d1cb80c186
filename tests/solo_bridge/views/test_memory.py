"""Decoded data in memory gives the minibatches that a loader would have made."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from avalanche_branchtune.errors import UnknownOptionError, ViewsError
from avalanche_branchtune.streams import ArrayImages
from solo_bridge import specification
from solo_bridge.plugins import LUMPPlugin
from solo_bridge.views import Decode, in_memory
from tests.selfsupervised import (
    ALL_METHODS,
    VIEW,
    Bare,
    data,
    method,
    small_options,
    strategy,
    stream,
    weights,
)

CPU = torch.device("cpu")


class Samples:
    """Images of several sizes, as data that is decoded when it is asked for."""

    def __init__(self, count: int = 10, *, sizes: int = 1, fault: str = "") -> None:
        self.images = [
            np.random.default_rng(i).integers(256, size=(4 + i % sizes, 5, 3), dtype=np.uint8)
            for i in range(count)
        ]
        self.fault = fault
        self.own = np.random.default_rng(0)
        self.read = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        image = self.images[index]
        if self.fault == "random":
            random.random()
        elif self.fault == "numpy":
            np.random.rand()
        elif self.fault == "torch":
            torch.rand(())
        elif self.fault == "its own generator":
            image = self.own.permutation(image)
        elif self.fault == "unreadable" and index == 3:
            raise ViewsError("no image")
        elif self.fault == "views":
            return [torch.zeros(3, 4, 5)] * 2, index
        part = str(index) if self.fault == "text" else index
        return Decode()(image), part


def kept(samples: Samples, **options: Any) -> Any:
    return in_memory(samples, default_collate, CPU, **options)


@pytest.mark.parametrize("sizes", [1, 3])
def test_a_minibatch_is_the_one_that_would_be_loaded(sizes: int) -> None:
    samples = Samples(sizes=sizes)
    found = kept(samples)
    read = samples.read
    decoded, labels = found.minibatch([7, 2, 2], [5, 6, 7])
    assert samples.read == read, "nothing is loaded any more"
    assert labels.tolist() == [7, 2, 2]
    for place, (number, seed) in enumerate([(7, 5), (2, 6), (2, 7)]):
        torch.manual_seed(seed)
        expected = samples[number][0]
        height, width = expected.pixels.shape[1:]
        assert torch.equal(decoded.pixels[place, :, :height, :width], expected.pixels)
        assert decoded.seeds[place] == expected.seeds
        if decoded.sizes is not None:
            assert decoded.sizes[place].tolist() == [height, width]
            assert not decoded.pixels[place, :, height:].any()
    assert (decoded.sizes is None) == (sizes == 1)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("random", "draw random numbers"),
        ("numpy", "draw random numbers"),
        ("torch", "draw random numbers"),
        ("its own generator", "other ones each time"),
        ("unreadable", "cannot be read"),
        ("views", "no images"),
        ("text", "no numbers"),
    ],
)
def test_what_cannot_be_kept_is_not(fault: str, why: str) -> None:
    assert why in kept(Samples(fault=fault))


def test_what_does_not_fit_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "solo_bridge.views.memory.free_memory", lambda device=None: 3.0 * 10 * 4 * 5 * 3 - 1
    )
    assert "a third of the memory" in kept(Samples())
    monkeypatch.setattr(
        "solo_bridge.views.memory.free_memory", lambda device=None: 3.0 * 10 * 4 * 5 * 3
    )
    assert len(kept(Samples())) == 10


def trained(spec: str, **settings: Any) -> Tensor:
    """Weights after two experiences of views made by the minibatch."""
    loading = {"num_workers": settings.pop("num_workers", 0)}
    torch.manual_seed(0)
    benchmark = stream(5, settings.pop("train", None))
    made = specification.build(
        spec,
        method("byol"),
        options=small_options(spec),
        **{"views": "batched", "reproducible_views": True, **settings},
        optimizer="sgd",
        lr=0.05,
        train_mb_size=5,
        train_epochs=2,
        evaluator=None,
    )
    torch.manual_seed(1)
    for experience in benchmark.train_stream[:2]:
        made.train(experience, **loading)
    return weights(made.model)


SPECS = ("branch_tuning+replay", "cassle", "der", "kaizen+replay", "lump")


@pytest.mark.parametrize(
    "spec", [SPECS[0], *(pytest.param(s, marks=pytest.mark.slow) for s in SPECS[1:])]
)
def test_weights_do_not_depend_on_where_the_images_are(spec: str) -> None:
    expected = trained(spec, in_memory=False)
    assert torch.equal(trained(spec, in_memory=True), expected)
    assert torch.equal(trained(spec, in_memory=False, num_workers=1), expected)
    assert torch.equal(trained(spec, num_workers=1), expected)
    assert not torch.equal(trained(spec, views="solo_learn"), expected), "other views"


class SeveralSizes(ArrayImages):
    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return image.crop((0, 0, 8, 8 - index % 3)), label


def test_images_of_several_sizes_are_trained_on_from_memory_and_not() -> None:
    plain = data(60)
    several = SeveralSizes(plain.images, plain.targets, plain.domains)
    expected = trained("fine_tuning", train=several, in_memory=False)
    assert torch.equal(trained("fine_tuning", train=several, in_memory=True), expected)


def test_without_a_seed_images_are_kept_too() -> None:
    torch.manual_seed(0)
    made = strategy(views="batched", in_memory=True)
    made.train(stream().train_stream[0])
    assert torch.isfinite(weights(made.model)).all()


def test_what_is_asked_for_and_cannot_be_is_refused() -> None:
    mixing = LUMPPlugin(20, views="before_augmentation")
    made = strategy(views="batched", in_memory=True, plugins=[mixing])
    first, second = stream().train_stream
    made.train(first)
    with pytest.raises(ViewsError, match=r"draw random numbers.* in_memory=None"):
        made.train(second)  # its images are mixed with remembered ones, others each time


def test_a_method_without_pipelines_has_no_batched_views() -> None:
    with pytest.raises(UnknownOptionError, match="Bare says no augmentations"):
        strategy(Bare(), views="batched")
    with pytest.raises(UnknownOptionError, match="expected one of solo_learn, batched"):
        strategy(views="fast")
    with pytest.raises(UnknownOptionError, match="pass views='batched' too"):
        strategy(in_memory=True)


@pytest.mark.parametrize("name", ["mae", "byol", "deepclusterv2"])
def test_one_view_small_views_and_numbers(name: str) -> None:
    """Methods whose minibatches are others: one view; views of two sizes; samples' numbers."""
    if name not in ALL_METHODS:
        pytest.skip("not of this solo-learn")
    small: dict[str, Any] = {}
    if name == "byol":
        sizes = [VIEW, replace(VIEW, crop_size=6)]
        small = {"small_views": 2, "augmentations": sizes}
    torch.manual_seed(0)
    made = strategy(method(name, **small), views="batched", in_memory=True, lr=0.1)
    made.train(stream(5).train_stream[0])
    assert torch.isfinite(weights(made.model)).all()
    assert [len(view) for view in made.minibatch.views] == [20] * len(made.minibatch.views)
