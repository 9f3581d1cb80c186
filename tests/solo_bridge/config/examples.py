"""A configuration that says everything, as file and as mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from solo_bridge import Augmentation

VIEW = """
- rrc:
    enabled: True
    crop_min_scale: 0.2
    crop_max_scale: 0.9
  color_jitter:
    prob: 0.8
    brightness: 0.4
    contrast: 0.3
    saturation: 0.2
    hue: 0.1
  grayscale:
    prob: 0.25
  gaussian_blur:
    prob: 0.5
  solarization:
    prob: 0.15
  equalization:
    prob: 0.0
  horizontal_flip:
    prob: 0.45
  crop_size: 8
  num_crops: 2
"""


CONFIG = """
defaults:
  - _self_
  - augmentations: pair.yaml
  - wandb: private.yaml
  - override hydra/hydra_logging: disabled

hydra:
  run:
    dir: ${now:%Y}

name: "byol-small"
method: "byol"
backbone:
  name: "resnet18"
  kwargs:
    zero_init_residual: True
method_kwargs:
  proj_hidden_dim: 16
  proj_output_dim: 8
  pred_hidden_dim: 16
momentum:
  base_tau: 0.9
  final_tau: 0.95
data:
  dataset: cifar100
  train_path: "./datasets"
  val_path: "./datasets"
  format: "image_folder"
  num_workers: 4
optimizer:
  name: "lars"
  batch_size: 4
  lr: 0.3
  classifier_lr: 0.1
  weight_decay: 1e-4
  kwargs:
    clip_lr: True
    eta: 0.02
    exclude_bias_n_norm: True
    momentum: 0.8
scheduler:
  name: "warmup_cosine"
  warmup_epochs: 11
  warmup_start_lr: 1e-5
  min_lr: 0.0006
checkpoint:
  enabled: True
  dir: ${somewhere}
auto_resume:
  enabled: True
max_epochs: 200
devices: [0]
sync_batchnorm: True
accelerator: "gpu"
strategy: "ddp"
precision: 16-mixed
"""


PIPELINE = Augmentation(
    crop_size=8,
    crop_min_scale=0.2,
    crop_max_scale=0.9,
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.3,
    saturation=0.2,
    hue=0.1,
    grayscale_prob=0.25,
    blur_prob=0.5,
    solarization_prob=0.15,
    equalization_prob=0.0,
    flip_prob=0.45,
    num_crops=2,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def written(folder: Path, text: str = CONFIG, view: str = VIEW) -> Path:
    (folder / "augmentations").mkdir(exist_ok=True)
    (folder / "augmentations/pair.yaml").write_text(view)
    path = folder / "byol.yaml"
    path.write_text(text)
    return path


def plain(**changes: Any) -> dict[str, Any]:
    """The same configuration as a mapping, with keys changed or (None) removed."""
    config = OmegaConf.create(CONFIG)
    del config["hydra"], config["checkpoint"], config["defaults"]
    config.augmentations = OmegaConf.create(VIEW)
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, merge=False)
    result: Any = OmegaConf.to_container(config)
    return {k: v for k, v in result.items() if v is not None}
