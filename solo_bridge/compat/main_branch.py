"""solo-learn's main branch (1.0.3 and later): one omegaconf configuration per method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from solo_bridge.augmentation import Augmentation
from solo_bridge.compat.generation import LONGEST, Generation, without_class_loss
from solo_bridge.compat.settings import Description, MethodSettings

_OWN = "own_backbone"


def _shared_step(module: Any, images: Tensor, targets: Any) -> dict[str, Any]:
    return without_class_loss(module(images))


class MainBranch(Generation):
    """See :class:`solo_bridge.compat.generation.Generation`."""

    name = "main branch"
    short = "main"
    backbone_key = "backbone"
    multicrop = frozenset({"byol", "simclr", "supcon", "swav"})

    def construct(self, name: str, settings: MethodSettings) -> Any:
        """Call solo-learn's constructor."""
        from omegaconf import OmegaConf

        own = settings.backbone if isinstance(settings.backbone, nn.Module) else None
        config = {
            "method": name,
            "backbone": {
                "name": settings.backbone if own is None else _OWN,
                "kwargs": dict(settings.backbone_kwargs),
            },
            "data": {
                # The only way to ask for the CIFAR stem is to name a CIFAR data set.
                "dataset": "cifar10" if settings.cifar_stem else "custom",
                "num_classes": settings.num_classes,
                "num_large_crops": settings.large_views,
                "num_small_crops": settings.small_views,
            },
            "max_epochs": LONGEST,
            # Not used: the strategy builds optimizer and scheduler for each experience.
            "optimizer": {
                "name": "sgd",
                "batch_size": LONGEST,
                "lr": 0.0,
                "weight_decay": 0.0,
                "classifier_lr": 0.0,
            },
            "scheduler": {"name": "none", "interval": "epoch"},
            "momentum": {"base_tau": settings.tau[0], "final_tau": settings.tau[1]},
            "method_kwargs": dict(settings.method_kwargs),
        }
        cls = self.classes[name]
        registry: dict[str, Any] = cls._BACKBONES  # type: ignore[attr-defined]
        if own is not None:
            copies = iter([own])
            registry[_OWN] = lambda method, **kwargs: next(copies, None) or copy.deepcopy(own)
        try:
            module = cls(OmegaConf.create(config))
        finally:
            registry.pop(_OWN, None)
        if own is not None:
            module.base_model = None  # the function above, which cannot be pickled
        for key, value in list(vars(module).items()):
            if OmegaConf.is_config(value):  # as plain data, which checkpoints can hold
                setattr(module, key, OmegaConf.to_container(value))
        return module

    def silence_labels(self, module: Any) -> None:
        """Make the class loss exactly zero."""
        module._base_shared_step = partial(_shared_step, module)

    def end_batch(self, module: Any, batch: list[Any], index: int) -> None:
        """Call the hook that follows an optimizer step."""
        module.on_train_batch_end(None, batch, index)

    @classmethod
    def args(cls, described: Description) -> dict[str, Any]:
        """Return the content of ``args.json``."""
        settings = described.settings
        # A data set's name is all that tells solo-learn of the CIFAR stem.
        cifar = "cifar100" if settings.num_classes == 100 else "cifar10"
        first, last = settings.tau
        return {
            **described.run,
            "data": {"dataset": cifar if settings.cifar_stem else "custom", **described.data},
            "backbone": {"name": settings.backbone, "kwargs": dict(settings.backbone_kwargs)},
            "momentum": {"base_tau": first, "final_tau": last},
            "optimizer": {"name": described.optimizer, **described.rates},
            "scheduler": {"name": "warmup_cosine"},
            "method_kwargs": dict(settings.method_kwargs),
        }

    def backbone_names(self) -> tuple[str, ...]:
        """Return the names of solo-learn's own backbones."""
        from solo.methods.base import BaseMethod

        return tuple(BaseMethod._BACKBONES)

    def pipeline(self, augmentation: Augmentation) -> Callable[[Any], Tensor]:
        """Return solo-learn's augmentation pipeline."""
        from omegaconf import OmegaConf
        from solo.data.pretrain_dataloader import build_transform_pipeline

        a = augmentation
        config = {
            "crop_size": a.crop_size,
            "mean": list(a.mean),
            "std": list(a.std),
            "rrc": {
                "enabled": True,
                "crop_min_scale": a.crop_min_scale,
                "crop_max_scale": a.crop_max_scale,
            },
            "color_jitter": {
                "prob": a.jitter_prob,
                "brightness": a.brightness,
                "contrast": a.contrast,
                "saturation": a.saturation,
                "hue": a.hue,
            },
            "grayscale": {"prob": a.grayscale_prob},
            "gaussian_blur": {"prob": a.blur_prob},
            "solarization": {"prob": a.solarization_prob},
            "equalization": {"prob": a.equalization_prob},
            "horizontal_flip": {"prob": a.flip_prob},
        }
        made = build_transform_pipeline("custom", OmegaConf.create(config))
        last = made.transforms[-1]
        last.mean, last.std = a.mean, a.std  # plain data, which checkpoints can hold
        return made

    def many_views(
        self, pipelines: list[Callable[[Any], Tensor]], counts: list[int]
    ) -> Callable[[Any], list[Tensor]]:
        """Return solo-learn's transform from a PIL image to a list of views."""
        from solo.data.pretrain_dataloader import prepare_n_crop_transform

        return prepare_n_crop_transform(pipelines, counts)

    def warmup_cosine(self, optimizer: Optimizer, **settings: Any) -> LRScheduler:
        """Return solo-learn's scheduler."""
        from solo.utils.lr_scheduler import LinearWarmupCosineAnnealingLR

        return LinearWarmupCosineAnnealingLR(optimizer, **settings)
