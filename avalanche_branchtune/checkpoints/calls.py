"""Calls of ``train`` and ``eval``: by what they are known again, and what they gave."""

from __future__ import annotations

import inspect
import io
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from avalanche_branchtune.checkpoints.decoder import Decoder
from avalanche_branchtune.checkpoints.encoder import Encoder
from avalanche_branchtune.errors import CheckpointError
from avalanche_branchtune.experiences import stream_mark

LARGEST = 2**30
"""Bytes of a finished call, at most."""

logger = logging.getLogger(__name__)


def described(name: str, experiences: list[Any]) -> dict[str, Any]:
    """Return what a call is known by in any process, as plain data.

    :param name: ``"train"`` or ``"eval"``.
    :param experiences: that it was given.
    """
    return {
        "call": name,
        "experiences": [int(getattr(e, "current_experience", -1)) for e in experiences],
        "samples": [len(getattr(e, "dataset", ())) for e in experiences],
    }


def marked(call: Mapping[str, Any], experiences: list[Any]) -> dict[str, Any]:
    """Return the same, with the marks by which this process knows its streams.

    :param call: see :func:`described`.
    :param experiences: its experiences.
    """
    return {**call, "marks": [stream_mark(e) for e in experiences]}


def known_again(saved: Any, call: Mapping[str, Any], experiences: list[Any], whose: str) -> None:
    """Let streams be known by the marks of the process in which a call was made.

    :param saved: what a checkpoint has of it, see :func:`marked`.
    :param call: this one, see :func:`described`.
    :param experiences: its experiences.
    :param whose: the run and the call, for the message.
    :raises CheckpointError: for another call.
    """
    if not isinstance(saved, dict) or {k: saved.get(k) for k in call} != call:
        try:
            was = in_words(saved)
        except (LookupError, TypeError) as error:
            raise CheckpointError(f"{whose} of the run is no call: {error!r}") from error
        raise CheckpointError(
            f"{whose} of the run was {was}, now it is {in_words(call)}: go on with the script that "
            "made it"
        )
    marks = saved.get("marks")
    if not isinstance(marks, list) or [type(m) for m in marks] != [str] * len(experiences):
        raise CheckpointError(f"{whose} of the run has streams without marks")
    for experience, mark in zip(experiences, marks, strict=True):
        stream_mark(experience, mark)


def in_words(call: Mapping[str, Any]) -> str:
    """Return the same as a text.

    :param call: see :func:`described`.
    """
    return f"{call['call']} of {call['experiences']} with {call['samples']} samples"


def experiences_first(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call, its experiences by their place if they came by their name.

    :param call: a strategy's ``train`` or ``eval``.
    :param args: its arguments.
    :param kwargs: its arguments by name, in any order.
    """
    rest, name = dict(kwargs), next(iter(inspect.signature(call).parameters), "")
    return ((rest.pop(name),) if not args and name in rest else args), rest


def without_first(
    first: int, experiences: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call for the rest of its experiences; all are evaluated.

    :param first: how many are left out.
    :param experiences: all of the call.
    :param args: its arguments, the experiences first.
    :param kwargs: its arguments by name.
    """
    streams = args[1] if len(args) > 1 else kwargs.get("eval_streams")
    if first and streams is None:
        args, kwargs = args[:1], {**kwargs, "eval_streams": [experiences]}
    return (experiences[first:], *args[1:]), kwargs


def packed(call: Mapping[str, Any], result: Mapping[str, Any] | None, whose: str) -> Tensor:
    """Return a finished call and the metrics that it gave, to be written again and again.

    A metric that cannot be written, a figure, is left out with a warning.

    :param call: see :func:`marked`.
    :param result: values by name.
    :param whose: the run, for the warning.
    :return: octets, uint8 ``(N,)``.
    """
    kept = {}
    for name, value in (result or {}).items():
        try:
            kept[name] = Encoder({}).encode(value, name)
        except CheckpointError as error:
            logger.warning("%s: when the run goes on, it lacks %s", whose, error)
    buffer = io.BytesIO()
    torch.save({**call, "result": kept}, buffer)
    return torch.frombuffer(bytearray(zlib.compress(buffer.getvalue(), 1)), dtype=torch.uint8)


def unpacked(octets: Any, whose: str) -> Any:
    """Return a finished call.

    :param octets: see :func:`packed`.
    :param whose: the run, for the message.
    :raises CheckpointError: for what is none.
    """
    try:
        content = zlib.decompressobj().decompress(octets.numpy().tobytes(), LARGEST)
        return torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file can cause
        raise CheckpointError(f"{whose}: a finished call cannot be read: {error!r}") from error


def joined(calls: Sequence[Tensor]) -> list[Any]:
    """Return finished calls as one tensor and their lengths: a file is slow to take many.

    :param calls: see :func:`packed`.
    """
    return [torch.cat([*calls]), [len(call) for call in calls]] if calls else []


def apart(kept: Any, whose: str) -> list[Tensor]:
    """Return the finished calls of a file.

    :param kept: see :func:`joined`.
    :param whose: the run, for the message.
    :raises CheckpointError: for what are none.
    """
    try:
        return [*kept[0].split(kept[1])] if kept else []
    except Exception as error:  # whatever a damaged or hostile file can cause
        raise CheckpointError(f"{whose}: the finished calls cannot be read: {error!r}") from error


def results(kept: Any, device: torch.device, whose: str) -> dict[str, Any]:
    """Return the metrics that a call gave.

    :param kept: of a call, see :func:`unpacked`.
    :param device: for tensors that were not on a CPU.
    :param whose: the run, for the message.
    :raises CheckpointError: for what are none.
    """
    if not isinstance(kept, dict):
        raise CheckpointError(f"{whose}: the results of a call are a {type(kept).__name__}")
    return {name: Decoder({}, device).decode(node, name) for name, node in kept.items()}
