"""One experience gives the very weights that solo-learn gives, trained its own way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from torch.utils.data import DataLoader

from solo_bridge.defaults import DEFAULTS
from tests.oracles.solo_training import BATCH, EPOCHS, LR, NOTES, Views, bare, fit
from tests.selfsupervised import ALL_METHODS
from tests.selfsupervised import method as make_method
from tests.selfsupervised import strategy as make_strategy


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("schedule", ["none", "warmup_cosine"])
@pytest.mark.parametrize("name", ALL_METHODS)
def test_bit_identical(name: str, schedule: str, record_property: Any) -> None:
    model = make_method(name)
    run = make_strategy(
        model,
        train_mb_size=BATCH,
        train_epochs=EPOCHS,
        lr=LR,
        scale_lr=False,
        weight_decay=1e-4,
        optimizer_settings={"scheduler": schedule, "warmup_epochs": 0.5},  # one step of two
    )
    views = DEFAULTS[name].large_views
    data = as_classification_dataset(Views(False, views))
    torch.manual_seed(1)
    run.train(benchmark_from_datasets(train=[data]).train_stream[0], shuffle=False)

    oracle = bare(name, schedule)
    start = {k: v.clone() for k, v in oracle.state_dict().items()}
    loader: DataLoader[Any] = DataLoader(Views(True, views), batch_size=BATCH, drop_last=True)
    torch.manual_seed(1)
    record_property("oracle", fit(oracle, loader))

    expected, got = oracle.state_dict(), model.solo.state_dict()
    assert list(expected) == list(got)
    compared = [k for k in expected if k not in NOTES]
    assert any(k in start and not torch.equal(start[k], expected[k]) for k in compared)
    different = [k for k in compared if not torch.equal(expected[k], got[k])]
    assert not different
