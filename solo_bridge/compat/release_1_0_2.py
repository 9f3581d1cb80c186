"""solo-learn 1.0.2, the only release on PyPI: about 25 keyword arguments per method."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import cache, partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge.augmentation import Augmentation
from solo_bridge.compat.generation import LONGEST, Generation, without_class_loss
from solo_bridge.compat.schedule import WarmupCosine
from solo_bridge.compat.settings import Description, MethodSettings

# A constructor looks its backbone up by name, in a module of functions: a module of the user's is
# handed in under this name, which is none of the ResNets (they are treated specially).
_HOST = "vit_tiny"


class _TorchWithCholesky:
    """torch, with the function that W-MSE's whitening still calls by its removed name."""

    cholesky = staticmethod(torch.linalg.cholesky)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@cache
def _whitening() -> Callable[[nn.Module, Tensor], Tensor]:
    """Return solo-learn's own ``Whitening2d.forward``, which alone sees that torch."""
    from solo.utils.whitening import Whitening2d

    written: Any = inspect.unwrap(Whitening2d.forward)
    seen = {**written.__globals__, "torch": _TorchWithCholesky()}
    forward = FunctionType(written.__code__, seen, written.__name__)
    whitening: Callable[[nn.Module, Tensor], Tensor] = torch.amp.custom_fwd(
        forward, device_type="cuda", cast_inputs=torch.float32
    )  # decorated as solo-learn's
    return whitening


def _whiten(layer: nn.Module, x: Tensor) -> Tensor:
    return _whitening()(layer, x)


def _that_whitens(module: Any) -> Any:
    """Let W-MSE's layer find the function that torch has removed; other methods have none."""
    layer = getattr(module, "whitening", None)
    if layer is not None:
        layer.forward = partial(_whiten, layer)
    return module


def _shared_step(module: Any, images: Tensor, targets: Any) -> dict[str, Any]:
    return without_class_loss(module.base_forward(images))


class Release102(Generation):
    """See :class:`solo_bridge.compat.generation.Generation`."""

    name = "release 1.0.2"
    short = "1.0.2"
    backbone_key = "encoder"
    multicrop = frozenset({"byol", "simclr"})

    def construct(self, name: str, settings: MethodSettings) -> Any:
        """Call solo-learn's constructor."""
        from solo.utils import backbones

        own = settings.backbone if isinstance(settings.backbone, nn.Module) else None
        stem = {"cifar": True} if settings.cifar_stem and own is None else {}
        arguments = {
            "encoder": settings.backbone if own is None else _HOST,
            "num_classes": settings.num_classes,
            "backbone_args": {**settings.backbone_kwargs, **stem},
            "num_large_crops": settings.large_views,
            "num_small_crops": settings.small_views,
            "base_tau_momentum": settings.tau[0],
            "final_tau_momentum": settings.tau[1],
            "momentum_classifier": False,
            # Not used: the strategy builds optimizer and scheduler for each experience.
            "max_epochs": LONGEST,
            "batch_size": LONGEST,
            "optimizer": "sgd",
            "lars": False,
            "lr": 0.0,
            "weight_decay": 0.0,
            "classifier_lr": 0.0,
            "exclude_bias_n_norm": False,
            "accumulate_grad_batches": 1,
            "extra_optimizer_args": {},
            "scheduler": "none",
            "min_lr": 0.0,
            "warmup_start_lr": 0.0,
            "warmup_epochs": 0,
            **settings.method_kwargs,
        }
        if own is None:
            return _that_whitens(self.classes[name](**arguments))
        host = getattr(backbones, _HOST)
        copies = iter([own])
        setattr(backbones, _HOST, lambda **kwargs: next(copies, None) or copy.deepcopy(own))
        try:
            module = self.classes[name](**arguments)
        finally:
            setattr(backbones, _HOST, host)
        module.encoder_name = type(own).__name__
        module.base_model = None  # the function above, which cannot be pickled
        return _that_whitens(module)

    def silence_labels(self, module: Any) -> None:
        """Make the class loss exactly zero."""
        module._base_shared_step = partial(_shared_step, module)

    def end_batch(self, module: Any, batch: list[Any], index: int) -> None:
        """Call the hook that follows an optimizer step."""
        hook = module.on_train_batch_end
        dataloader = (0,) if "dataloader_idx" in inspect.signature(hook).parameters else ()
        hook(None, batch, index, *dataloader)

    @classmethod
    def args(cls, described: Description) -> dict[str, Any]:
        """Return the content of ``args.json``."""
        settings, lars = described.settings, described.optimizer == "lars"
        first, last = settings.tau
        return {
            **described.run,
            **described.data,
            **described.rates,
            "encoder": settings.backbone,
            "backbone_args": {**settings.backbone_kwargs, "cifar": settings.cifar_stem},
            "base_tau_momentum": first,
            "final_tau_momentum": last,
            "optimizer": "sgd" if lars else described.optimizer,
            "lars": lars,
            **settings.method_kwargs,
        }

    def backbone_names(self) -> tuple[str, ...]:
        """Return the names of solo-learn's own backbones."""
        from solo.methods.base import BaseMethod

        return tuple(BaseMethod._SUPPORTED_ENCODERS)

    def pipeline(self, augmentation: Augmentation) -> Callable[[Any], Tensor]:
        """Return solo-learn's augmentation pipeline."""
        from solo.utils.pretrain_dataloader import prepare_transform

        a = augmentation
        if a.equalization_prob:
            raise UnknownOptionError(
                f"Augmentation(equalization_prob={a.equalization_prob}): solo-learn 1.0.2 has no "
                "equalization; use 0.0 or solo-learn's main branch"
            )
        return prepare_transform(
            "custom",
            brightness=a.brightness,
            contrast=a.contrast,
            saturation=a.saturation,
            hue=a.hue,
            color_jitter_prob=a.jitter_prob,
            gray_scale_prob=a.grayscale_prob,
            horizontal_flip_prob=a.flip_prob,
            gaussian_prob=a.blur_prob,
            solarization_prob=a.solarization_prob,
            min_scale=a.crop_min_scale,
            max_scale=a.crop_max_scale,
            crop_size=a.crop_size,
            mean=a.mean,
            std=a.std,
        )

    def many_views(
        self, pipelines: list[Callable[[Any], Tensor]], counts: list[int]
    ) -> Callable[[Any], list[Tensor]]:
        """Return solo-learn's transform from a PIL image to a list of views."""
        from solo.utils.pretrain_dataloader import prepare_n_crop_transform

        return prepare_n_crop_transform(pipelines, counts)

    def warmup_cosine(self, optimizer: Optimizer, **settings: Any) -> LRScheduler:
        """Return the scheduler that stands in for pl_bolts'."""
        return WarmupCosine(optimizer, **settings)
