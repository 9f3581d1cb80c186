"""Plugins that read data by themselves do with an image that cannot be read what training does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.utils.data import Dataset

from avalanche_branchtune.errors import UnknownOptionError, UnreadableImageError
from avalanche_branchtune.streams import class_incremental
from solo_bridge import EvalTransform
from solo_bridge.plugins import (
    LUMPPlugin,
    PeriodicFineTuningPlugin,
    SelfSupervisedEWCPlugin,
    SelfSupervisedMASPlugin,
    replay,
)
from tests.selfsupervised import data, strategy

BAD = 7


class Images(Dataset[Any]):
    """One of them cannot be read."""

    def __init__(self) -> None:
        self.whole = data()
        self.targets = list(self.whole.targets)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, i: int) -> Any:
        if i == BAD:
            raise UnreadableImageError("a broken file")
        return self.whole[i]


def train(plugin: Any, **settings: Any) -> Any:
    stream = class_incremental(Images(), data(train=False), 2, eval_transform=EvalTransform(8))
    made = strategy(plugins=[plugin], train_epochs=1, **settings)
    for experience in stream.train_stream:
        made.train(experience)
    return made


PLUGINS: dict[str, Callable[[], Any]] = {
    "ewc": lambda: SelfSupervisedEWCPlugin(1.0, mode="online", decay_factor=1.0),
    "mas": SelfSupervisedMASPlugin,
    "periodic": lambda: PeriodicFineTuningPlugin(memory=200, steps=10),
}


@pytest.mark.parametrize("name", PLUGINS)
def test_it_is_replaced(name: str) -> None:
    made = train(PLUGINS[name](), on_bad_image="skip")
    assert sum(made.replaced_images.values()) >= 2, "in training, and in the plugin's own reading"


def test_it_does_not_enter_a_memory_of_images() -> None:
    plugin = LUMPPlugin(views="before_augmentation", memory=200)
    train(plugin, on_bad_image="skip")
    assert len(plugin.procedure.images) == len(plugin.procedure.reservoir.keys) == len(data()) - 1


def test_a_policy_that_compares_all_images_refuses_at_the_start() -> None:
    with pytest.raises(UnknownOptionError, match=r"MinimumRedundancyBuffer .*on_bad_image='stop'"):
        train(replay("min_redundancy", size=20, batch_size_mem=10), on_bad_image="skip")
