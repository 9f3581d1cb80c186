"""One experience gives the very weights that solo-learn gives, trained its own way.

Oracle on the main branch: a real Lightning Trainer.  Release 1.0.2 is built on
a Lightning that no longer runs it; there the oracle is the loop written out
from its hooks.  Both train the online classifier too and note labels and
numbers of queued samples; that touches nothing else and is left out of the
comparison.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from torch.utils.data import DataLoader, Dataset

from solo_bridge.backbones import resolve
from solo_bridge.compat import MethodSettings, load
from solo_bridge.compat.generation import TrainerStandIn, ignore
from solo_bridge.defaults import DEFAULTS
from tests.selfsupervised import ALL_METHODS, small, small_backbone
from tests.selfsupervised import method as make_method
from tests.selfsupervised import strategy as make_strategy

EPOCHS, BATCH, LR = 2, 20, 0.05


class Views(Dataset):  # type: ignore[type-arg]
    """50 images with fixed views; with their index, as solo-learn wants it, or without."""

    def __init__(self, index: bool, views: int) -> None:
        generator = torch.Generator().manual_seed(7)
        self.views = torch.randn(50, views, 3, 8, 8, generator=generator)
        self.targets = [i % 10 for i in range(50)]
        self.index = index

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        item = (list(self.views[i]), self.targets[i])
        return (i, *item) if self.index else item


def bare(name: str, schedule: str) -> Any:
    """solo-learn's module as its constructor leaves it, with the optimizer to be compared."""
    generation = load()
    torch.manual_seed(0)
    defaults = DEFAULTS[name]
    net, kwargs = resolve(small_backbone(name), generation, 8, {})
    settings = MethodSettings(
        backbone=net,
        num_classes=10,
        large_views=defaults.large_views,
        backbone_kwargs=kwargs,
        method_kwargs={**defaults.method_kwargs, **small(name)},
        tau=defaults.tau,
    )
    module = generation.construct(name, settings)
    module.batch_size = BATCH

    def configure_optimizers() -> Any:
        groups = module.learnable_params
        static = [i for i, g in enumerate(groups) if g.pop("static_lr", False)]
        optimizer = torch.optim.SGD(groups, lr=LR, momentum=0.9, weight_decay=1e-4)
        if schedule == "none":
            return optimizer
        scheduler = generation.warmup_cosine(
            optimizer,
            warmup_epochs=1.0,
            max_epochs=module.trainer.estimated_stepping_batches,
            warmup_start_lr=3e-5,
            eta_min=0.0,
        )
        if static:
            from solo.methods.base import static_lr

            scheduler.get_lr = partial(  # type: ignore[method-assign]
                static_lr, scheduler.get_lr, static, [LR] * len(static)
            )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    module.configure_optimizers = configure_optimizers
    module.max_epochs = EPOCHS
    return module


def fit_with_lightning(module: Any, loader: DataLoader[Any]) -> None:
    from lightning.pytorch import Trainer

    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(module, loader)


def fit_with_hooks(module: Any, loader: DataLoader[Any]) -> None:
    module.trainer = TrainerStandIn(len(loader), EPOCHS, len(loader.dataset))  # type: ignore[arg-type]
    module.log = module.log_dict = ignore
    configured = module.configure_optimizers()
    optimizer, scheduler = configured, None
    if isinstance(configured, tuple):
        optimizer, scheduler = configured[0][0], configured[1][0]["scheduler"]
    module.train()
    module.on_train_start()
    for epoch in range(EPOCHS):
        module.trainer.current_epoch = epoch
        module.on_train_epoch_start()
        for i, batch in enumerate(loader):
            optimizer.zero_grad()
            module.training_step(batch, i).backward()
            module.on_after_backward()
            optimizer.step()
            module.trainer.global_step += 1
            if scheduler is not None:
                scheduler.step()
            load().end_batch(module, batch, i)


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
    on_lightning = load().name == "main branch"
    record_property("oracle", "lightning Trainer" if on_lightning else "hooks written out")
    loader: DataLoader[Any] = DataLoader(Views(True, views), batch_size=BATCH, drop_last=True)
    torch.manual_seed(1)
    (fit_with_lightning if on_lightning else fit_with_hooks)(oracle, loader)

    expected, got = oracle.state_dict(), model.solo.state_dict()
    assert list(expected) == list(got)
    notes = ("classifier.weight", "classifier.bias", "queue_y", "queue_index")
    compared = [k for k in expected if k not in notes]
    assert any(k in start and not torch.equal(start[k], expected[k]) for k in compared)
    different = [k for k in compared if not torch.equal(expected[k], got[k])]
    assert not different
