"""What solo-learn's configurations can say, and what it takes for what they leave out.

Of the main branch: release 1.0.2 has no configuration files.  In tables of keys, True is read here
and False has no meaning here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from solo_bridge.augmentation import MEAN, STD

PROBABLE = ("grayscale", "gaussian_blur", "solarization", "equalization", "horizontal_flip")

PIPELINE: Mapping[str, Any] = {
    "rrc": dict.fromkeys(("enabled", "crop_min_scale", "crop_max_scale"), True),
    "color_jitter": {
        **dict.fromkeys(("prob", "brightness", "contrast", "saturation", "hue"), True),
        "enabled": False,  # solo-learn itself looks at the probabilities only
    },
    **{name: {"prob": True, "enabled": False} for name in PROBABLE},
    **dict.fromkeys(("crop_size", "num_crops", "mean", "std"), True),
}

TRAINER = (  # noqa: SIM905
    "accelerator accumulate_grad_batches barebones benchmark callbacks check_val_every_n_epoch "
    "default_root_dir detect_anomaly deterministic devices enable_checkpointing "
    "enable_model_summary enable_progress_bar fast_dev_run gradient_clip_algorithm "
    "gradient_clip_val inference_mode limit_predict_batches limit_test_batches "
    "limit_train_batches limit_val_batches log_every_n_steps logger max_steps max_time min_epochs "
    "min_steps num_nodes num_sanity_val_steps overfit_batches plugins profiler "
    "reload_dataloaders_every_n_epochs strategy sync_batchnorm use_distributed_sampler "
    "val_check_interval"
).split()

KNOWN: Mapping[str, Any] = {
    "method": True,
    "method_kwargs": True,
    "backbone": {"name": True, "kwargs": True},
    "momentum": {"base_tau": True, "final_tau": True, "classifier": False},
    "data": {
        **dict.fromkeys(("dataset", "num_classes", "num_large_crops", "num_small_crops"), True),
        **dict.fromkeys(("train_path", "val_path", "format", "num_workers", "no_labels"), False),
        "fraction": False,
    },
    "augmentations": True,
    "optimizer": {
        **dict.fromkeys(("name", "batch_size", "lr", "weight_decay"), True),
        **dict.fromkeys(("classifier_lr", "exclude_bias_n_norm_wd"), False),
        "kwargs": {
            **dict.fromkeys(("momentum", "eta", "clip_lr", "exclude_bias_n_norm"), True),
            **dict.fromkeys(("betas",), True),
            **dict.fromkeys(("eps", "amsgrad", "nesterov", "dampening"), False),
        },
    },
    "scheduler": {
        **dict.fromkeys(("name", "warmup_epochs", "warmup_start_lr", "min_lr", "interval"), True),
        "lr_decay_steps": False,
    },
    "max_epochs": True,
    **dict.fromkeys(("name", "seed", "resume_from_checkpoint", "checkpoint", "auto_resume"), False),
    "precision": True,
    "performance": {"disable_channel_last": True},
    **dict.fromkeys(("wandb", "auto_umap", "dali", "hydra", "knn_eval"), False),
    **dict.fromkeys(("debug_augmentations", *TRAINER), False),
    **dict.fromkeys(("augmentations_cfg", "wandb_cfg"), False),  # left over in its own files
}

_BATCH = "multiply the batch by it: SelfSupervised(train_mb_size=…), training.batch=…"
_LENGTH = (
    "an experience lasts for its epochs here: SelfSupervised(train_epochs=…), training.epochs=…"
)
_WEIGHTS = (
    "its weights are not loaded by this: weights=FILE of branchtune run does it; in a script "
    "load_solo_checkpoint(method, FILE), then BranchTuningPlugin(pretrained=True)"
)
_FEWER = "here all data is trained on: give the stream the part that is meant"
_KWARGS = "pass a function from parameter groups to an optimizer: SelfSupervised(optimizer=…)"

CHANGE_TRAINING: Mapping[str, tuple[Collection[Any], str]] = {
    "devices": (
        (1,),
        f"solo-learn's batch and learning rate grow with their number, which is one here: {_BATCH}",
    ),
    "num_nodes": ((1,), f"as with devices: {_BATCH}"),
    "seed": (
        (),
        "give it as seed=… to branchtune run; in a script call lightning's seed_everything before "
        "all else",
    ),
    "resume_from_checkpoint": ((), _WEIGHTS),
    "fast_dev_run": ((False, 0), _LENGTH),
    "max_steps": ((-1,), _LENGTH),
    "max_time": ((), _LENGTH),
    "min_epochs": ((0,), _LENGTH),
    "min_steps": ((0,), _LENGTH),
    "accumulate_grad_batches": (
        (1,),
        f"solo-learn's batch and learning rate grow with it: {_BATCH}",
    ),
    "gradient_clip_val": ((0,), "gradients are not clipped here"),
    "limit_train_batches": ((1.0,), _FEWER),
    "overfit_batches": ((0,), _FEWER),
    "data.fraction": ((-1,), _FEWER),
    "optimizer.exclude_bias_n_norm_wd": ((False,), "here the weight decay is that of all"),
    "optimizer.kwargs.eps": ((1e-8,), _KWARGS),
    "optimizer.kwargs.amsgrad": ((False,), _KWARGS),
    "optimizer.kwargs.nesterov": ((False,), _KWARGS),
    "optimizer.kwargs.dampening": ((0,), _KWARGS),
}
"""Keys without a meaning here that change training, by full path: values that change nothing, and
what to do instead."""


def changes_training(key: str, value: Any) -> bool:
    """Tell whether a key without a meaning here would change training.

    :param key: its full path.
    :param value: its value; of ``devices`` also a list, of which only the length counts.
    """
    if key not in CHANGE_TRAINING:
        return False
    harmless, _ = CHANGE_TRAINING[key]
    if key == "devices" and isinstance(value, list):
        value = len(value)
    if key == "devices" and isinstance(value, str) and value.isdecimal():
        value = int(value)
    if key == "limit_train_batches" and isinstance(value, int):
        return True  # 1.0 is all of them, 1 is one
    return value not in harmless


STALE = frozenset({"base_tau_momentum", "final_tau_momentum", "momentum_classifier"})
"""Settings of release 1.0.2's that solo-learn's own files still carry under ``method_kwargs``."""

LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "all4one": {"queue_size": 65536},
    "barlow_twins": {"lamb": 0.0051, "scale_loss": 0.024},
    "dino": {"warmup_teacher_temperature_epochs": 0},
    "mae": {"norm_pix_loss": False},
    "mocov2plus": {"queue_size": 65536},
    "swav": {"queue_size": 65536, "freeze_prototypes_epochs": 1, "epoch_queue_starts": 15},
    "vibcreg": {"iternorm": False},
    "wmse": {"whitening_size": 256},
}
"""solo-learn's defaults of ``method_kwargs``, where the bridge's own differ."""

LEFT_OUT_OF_OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "lars": {"eta": 1e-3, "clip_lr": False, "exclude_bias_n_norm": False},
    "adam": {"betas": [0.9, 0.999]},
    "adamw": {"betas": [0.9, 0.999]},
}
"""solo-learn's defaults of ``optimizer.kwargs``, by optimizer."""

SCHEDULERS = ("warmup_cosine", "none")
"""solo-learn's ``scheduler.name``, but for ``step``, which is not bridged."""

WARMUP_EPOCHS = 10.0
"""solo-learn's default of ``scheduler.warmup_epochs``."""

TAU: Mapping[str, float] = {"base_tau": 0.99, "final_tau": 1.0}
"""solo-learn's defaults of ``momentum``."""

PRECISIONS: Mapping[str, str] = {
    **dict.fromkeys(("32", "32-true"), "32"),
    **dict.fromkeys(("16", "16-mixed"), "16"),
    **dict.fromkeys(("bf16", "bf16-mixed"), "bf16"),
}
"""The bridge's names of Lightning's precisions; the weights are in float32 in each."""

SHARES: Mapping[str, tuple[str, float]] = {
    "crop_min_scale": ("rrc.crop_min_scale", 0.08),
    "crop_max_scale": ("rrc.crop_max_scale", 1.0),
    "jitter_prob": ("color_jitter.prob", 0.0),
    "brightness": ("color_jitter.brightness", 0.0),
    "contrast": ("color_jitter.contrast", 0.0),
    "saturation": ("color_jitter.saturation", 0.0),
    "hue": ("color_jitter.hue", 0.0),
    "grayscale_prob": ("grayscale.prob", 0.0),
    "blur_prob": ("gaussian_blur.prob", 0.0),
    "solarization_prob": ("solarization.prob", 0.0),
    "equalization_prob": ("equalization.prob", 0.0),
    "flip_prob": ("horizontal_flip.prob", 0.0),
}
"""Fields of :class:`Augmentation`: solo-learn's key, and the value if it is left out."""

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Dataset:
    """What a data set's name implies.

    :param classes: number of classes.
    :param mean: channel means that are subtracted.
    :param std: channel deviations that are divided by.
    """

    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


DATASETS: Mapping[str, Dataset] = {
    "cifar10": Dataset(10, MEAN, STD),
    "cifar100": Dataset(100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": Dataset(10, (0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
    "imagenet": Dataset(1000, **IMAGENET),
    "imagenet100": Dataset(100, **IMAGENET),
}
"""By solo-learn's name of the data set."""
