"""Calls of ``train`` and ``eval``: by what they are known again, and what they gave."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch

from avalanche_branchtune.checkpoints.decoder import Decoder
from avalanche_branchtune.checkpoints.encoder import Encoder
from avalanche_branchtune.errors import CheckpointError

logger = logging.getLogger(__name__)


def described(name: str, experiences: list[Any]) -> dict[str, Any]:
    """Return what a call is known by, as plain data.

    :param name: ``"train"`` or ``"eval"``.
    :param experiences: that it was given.
    """
    return {
        "call": name,
        "experiences": [int(getattr(e, "current_experience", -1)) for e in experiences],
        "samples": [len(getattr(e, "dataset", ())) for e in experiences],
    }


def in_words(call: Mapping[str, Any]) -> str:
    """Return the same as a text.

    :param call: see :func:`described`.
    """
    return f"{call['call']} of {call['experiences']} with {call['samples']} samples"


def without_first(
    first: int, experiences: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call for the rest of its experiences; all are evaluated.

    :param first: how many are left out.
    :param experiences: all of the call.
    :param args: its arguments, the experiences first.
    :param kwargs: its arguments by name; without others, the experiences first.
    """
    streams = args[1] if len(args) > 1 else kwargs.get("eval_streams")
    if first and streams is None:
        args, kwargs = args[:1], {**kwargs, "eval_streams": [experiences]}
    rest = experiences[first:]
    if args:
        return (rest, *args[1:]), kwargs
    return (), {**kwargs, next(iter(kwargs)): rest}


def kept_results(result: Mapping[str, Any] | None, whose: str) -> dict[str, Any]:
    """Return the metrics that a call gave as plain data.

    One that cannot be written, a figure, is left out with a warning.

    :param result: values by name.
    :param whose: the run, for the warning.
    """
    kept = {}
    for name, value in (result or {}).items():
        try:
            kept[name] = copy.deepcopy(Encoder({}).encode(value, name))  # metrics go on counting
        except CheckpointError as error:
            logger.warning("%s: when the run goes on, it lacks %s", whose, error)
    return kept


def results(kept: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the metrics that a call gave.

    :param kept: see :func:`kept_results`.
    :param device: for tensors that were not on a CPU.
    """
    return {name: Decoder({}, device).decode(node, name) for name, node in kept.items()}
