"""What solo-learn's checkpoints call things, of every generation, installed or not."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from solo_bridge.compat.generation import Generation
from solo_bridge.compat.main_branch import MainBranch
from solo_bridge.compat.release_1_0_2 import Release102
from solo_bridge.compat.trainer import TrainerStandIn

GENERATIONS: Mapping[str, type[Generation]] = {g.short: g for g in (MainBranch, Release102)}
"""Adapters by their short names."""

BACKBONE_KEYS = tuple(generation.backbone_key for generation in GENERATIONS.values())
"""What the generations call the backbone; a momentum one has ``momentum_`` before it."""


def renamed(name: str, part: str) -> str:
    """Call the backbone, online or momentum, by another name.

    :param name: of a tensor in a method.
    :param part: the backbone's name.
    :return: the tensor's name, as it is if it is no backbone's.
    """
    head, dot, rest = name.partition(".")
    online = head.removeprefix("momentum_")
    if online not in BACKBONE_KEYS:
        return name
    return head.removesuffix(online) + part + dot + rest


MADE_IN_TRAINING: Mapping[str, frozenset[str]] = {
    "all4one": frozenset({"pos_enc.penc.penc.cached_penc"}),
    "deepclusterv2": frozenset({"local_memory_index", "local_memory_embeddings"}),
    "swav": frozenset({"queue"}),
}
"""Tensors that solo-learn makes when training starts, by method: a checkpoint may hold them, and
they are made anew each time."""


def is_left_alone(name: str, method: str) -> bool:
    """Tell whether a tensor has no meaning for a method that is to be trained here.

    :param name: of a tensor in a method: an online classifier's, which is not
        trained here, or one that training makes anew when it starts.
    :param method: solo-learn's name of the method.
    """
    of_classifier = name.startswith(("classifier.", "momentum_classifier."))
    return of_classifier or name in MADE_IN_TRAINING.get(method, ())


def lightning_checkpoint(state: Mapping[str, Tensor], trainer: TrainerStandIn) -> dict[str, Any]:
    """Return what Lightning writes of a method, without optimizers and callbacks.

    :param state: tensors by name.
    :param trainer: how far training has come.
    """
    lightning = sys.modules.get("lightning") or sys.modules["pytorch_lightning"]
    return {
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": dict(state),
    }
