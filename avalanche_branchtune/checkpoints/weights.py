"""The network of a run, from its checkpoints alone: no strategy is made anew."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from avalanche_branchtune.checkpoints.encoder import KIND
from avalanche_branchtune.checkpoints.files import CheckpointFolder
from avalanche_branchtune.errors import CheckpointError


def saved_weights(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return weights and buffers of a run's network, as it was last saved.

    :param folder: of a run with :class:`~avalanche_branchtune.checkpoints.Checkpoints`.
    :return: name → tensor on the CPU; within an experience also those of branches.
    :raises CheckpointError: if there are none, or none of a network that was trained.
    """
    path = Path(folder)
    newest = CheckpointFolder(path, keep=1).newest()
    if newest is None:
        raise CheckpointError(f"{path}: there are no checkpoints of a run")
    base, between, midway = newest
    within = midway or between
    if within is None and not base["calls"]:
        raise CheckpointError(f"{path}: nothing was trained yet when the run was last saved")
    state = base if within is None else within["state"]
    try:
        return dict(_tensors(state["modules"]))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path}: its network cannot be read: {error!r}") from error


def _tensors(modules: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    met: dict[int, Tensor] = {}
    for path, module in modules.items():
        for name, node in module["weights"].items():
            if node is None:
                continue
            full = f"{path}.{name}" if path else name
            tensor = met[node["id"]] if node[KIND] == "seen" else node["tensor"]
            if node[KIND] not in ("parameter", "seen", "tensor") or not isinstance(tensor, Tensor):
                raise ValueError(f"{full} is no plain tensor")
            met[node["id"]] = tensor
            found.append((full, tensor.detach()))
    return found
