"""One experience gives the very weights that solo-learn gives, trained its own way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from torch.utils.data import DataLoader

from solo_bridge.compat import load
from solo_bridge.defaults import DEFAULTS
from tests.oracles.solo_training import (
    BATCH,
    EPOCHS,
    LR,
    NOTES,
    Views,
    bare,
    fit,
    with_its_own_optimizer,
)
from tests.selfsupervised import ALL_METHODS
from tests.selfsupervised import method as make_method
from tests.selfsupervised import strategy as make_strategy


def train_under_the_strategy(name: str, **settings: Any) -> Any:
    model = make_method(name)
    options = {"train_mb_size": BATCH, "train_epochs": EPOCHS, "scale_lr": False, **settings}
    run = make_strategy(model, weight_decay=1e-4, **options)
    data = as_classification_dataset(Views(False, DEFAULTS[name].large_views))
    torch.manual_seed(1)
    run.train(benchmark_from_datasets(train=[data]).train_stream[0], shuffle=False)
    return model.solo


def assert_identical(got: Any, oracle: Any, name: str, precision: str = "32-true") -> str:
    """Train the oracle, compare all tensors, and say how it was trained."""
    start = {k: v.clone() for k, v in oracle.state_dict().items()}
    views = Views(True, DEFAULTS[name].large_views)
    torch.manual_seed(1)
    how = fit(oracle, DataLoader(views, batch_size=BATCH, drop_last=True), precision)
    expected, found = oracle.state_dict(), got.state_dict()
    assert list(expected) == list(found)
    compared = [k for k in expected if k not in NOTES]
    assert any(k in start and not torch.equal(start[k], expected[k]) for k in compared)
    assert not [k for k in compared if not torch.equal(expected[k], found[k])]
    return how


@pytest.mark.parametrize("schedule", ["none", "warmup_cosine"])
@pytest.mark.parametrize("name", ALL_METHODS)
def test_bit_identical(name: str, schedule: str, record_property: Any) -> None:
    settings = {"scheduler": schedule, "warmup_epochs": 0.5}  # one step of two
    got = train_under_the_strategy(name, lr=LR, optimizer_settings=settings)
    record_property("oracle", assert_identical(got, bare(name, schedule), name))


@pytest.mark.skipif(load().name != "main branch", reason="release 1.0.2 steps schedules by epochs")
@pytest.mark.parametrize("name", ALL_METHODS)
def test_bit_identical_with_the_optimizer_that_solo_learn_configures(name: str) -> None:
    optimizer = DEFAULTS[name].optimizer
    lr = 1e-3 if optimizer.startswith("adam") else LR
    settings = {"warmup_epochs": 0.5, **({"betas": (0.9, 0.95)} if optimizer == "adamw" else {})}
    got = train_under_the_strategy(name, optimizer=None, lr=lr, optimizer_settings=settings)
    assert_identical(got, with_its_own_optimizer(name, lr), name)


@pytest.mark.parametrize("name", ALL_METHODS)
def test_bit_identical_in_mixed_precision(name: str) -> None:
    settings = {"scheduler": "none"}
    got = train_under_the_strategy(name, lr=LR, optimizer_settings=settings, precision="bf16")
    assert_identical(got, bare(name, "none"), name, "bf16-mixed")


@pytest.mark.skipif(load().name != "main branch", reason="release 1.0.2 does not convert images")
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", ALL_METHODS)
def test_bit_identical_in_either_memory_format(name: str, channels_last: bool) -> None:
    """As solo-learn's main_pretrain.py does it, with and without disable_channel_last."""
    settings = {"scheduler": "none"}
    options = {"optimizer_settings": settings, "channels_last": channels_last}
    got = train_under_the_strategy(name, lr=LR, **options)
    oracle = bare(name, "none")
    oracle.no_channel_last = not channels_last
    if channels_last:
        oracle.to(memory_format=torch.channels_last)
    assert_identical(got, oracle, name)
