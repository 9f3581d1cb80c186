"""solo-learn's own training of one experience, without the bridge.

On the main branch a real Lightning Trainer; release 1.0.2 is built on a
Lightning that no longer runs it, so there the loop is written out from its
hooks.  Both train the online classifier too and note labels and numbers of
queued samples (:data:`NOTES`); that touches nothing else.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from solo_bridge.backbones import resolve
from solo_bridge.compat import MethodSettings, load
from solo_bridge.compat.trainer import TrainerStandIn, ignore
from solo_bridge.defaults import DEFAULTS
from tests.selfsupervised import small, small_backbone

NOTES = ("classifier.weight", "classifier.bias", "queue_y", "queue_index")
EPOCHS, BATCH, LR = 2, 20, 0.05


class Views(Dataset):  # type: ignore[type-arg]
    """50 images with fixed views; with their index, as solo-learn wants it, or without."""

    def __init__(self, index: bool, views: int, size: int = 8) -> None:
        generator = torch.Generator().manual_seed(7)
        self.views = torch.randn(50, views, 3, size, size, generator=generator)
        self.targets = [i % 10 for i in range(50)]
        self.index = index

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        item = (list(self.views[i]), self.targets[i])
        return (i, *item) if self.index else item


EXTRA: dict[str, dict[str, Any]] = {
    "lars": {"momentum": 0.9, "eta": 0.02, "clip_lr": True, "exclude_bias_n_norm": True},
    "sgd": {"momentum": 0.9},
    "adam": {},
    "adamw": {"betas": (0.9, 0.95)},
}


def with_its_own_optimizer(name: str, lr: float) -> Any:
    """The main branch's module, which configures the method's optimizer and schedule itself."""
    module = bare(name, "none")
    del module.configure_optimizers
    module.optimizer = DEFAULTS[name].optimizer
    module.extra_optimizer_args = EXTRA[module.optimizer]
    module.lr, module.weight_decay = lr, 1e-4
    module.scheduler, module.scheduler_interval = "warmup_cosine", "step"
    module.warmup_epochs, module.warmup_start_lr = 0.5, 3e-5
    return module


def bare(name: str, schedule: str, net: Any = None, size: int = 8) -> Any:
    """solo-learn's module as its constructor leaves it, with the optimizer to be compared."""
    generation = load()
    torch.manual_seed(0)
    defaults = DEFAULTS[name]
    net, kwargs = resolve(net or small_backbone(name), generation, size, {})
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


def fit_with_lightning(module: Any, loader: DataLoader[Any], precision: str) -> None:
    from lightning.pytorch import Trainer

    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(module, loader)


def fit_with_hooks(module: Any, loader: DataLoader[Any], precision: str) -> None:
    module.trainer = TrainerStandIn(len(loader), EPOCHS, len(loader.dataset))  # type: ignore[arg-type]
    module.log = module.log_dict = ignore
    configured = module.configure_optimizers()
    optimizer, scheduler = configured, None
    if isinstance(configured, tuple):
        optimizer, scheduler = configured[0][0], configured[1][0]["scheduler"]
    # As Lightning's MixedPrecision.autocast_context_manager opens it.
    mixed = torch.autocast("cpu", torch.bfloat16, precision == "bf16-mixed", cache_enabled=False)
    module.train()
    module.on_train_start()
    for epoch in range(EPOCHS):
        module.trainer.current_epoch = epoch
        module.on_train_epoch_start()
        for i, batch in enumerate(loader):
            optimizer.zero_grad()
            with mixed:
                loss = module.training_step(batch, i)
            loss.backward()
            module.on_after_backward()
            optimizer.step()
            module.trainer.global_step += 1
            if scheduler is not None:
                scheduler.step()
            load().end_batch(module, batch, i)


def fit(module: Any, loader: DataLoader[Any], precision: str = "32-true") -> str:
    """Train a module as its solo-learn would; say how."""
    on_lightning = load().name == "main branch"
    (fit_with_lightning if on_lightning else fit_with_hooks)(module, loader, precision)
    return "lightning Trainer" if on_lightning else "hooks written out"
