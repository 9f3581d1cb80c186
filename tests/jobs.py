"""Jobs of several processes on this machine, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from avalanche_branchtune.errors import OtherProcessError
from solo_bridge.apart import PRELOADED, Apart, prepare


def in_job(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in each process of a job, and return what each returned, by rank.

    :param size: number of processes.
    :param work: of a module; its arguments and results can be pickled.
    :param arguments: the same for each.
    :raises Exception: what a process raised; of several the first that is not about another one.
    """
    prepare(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        job = [
            Apart(f"rank {rank}", _as_rank, rank, size, port, folder, work, arguments)
            for rank in range(size)
        ]
        running, outcomes = list(job), []
        while running:
            one = Apart.next_to_end(running)  # only then it has said what it raised
            running.remove(one)
            outcomes.append(one.outcome())
        errors = [error for error in outcomes if error is not None]
        errors.sort(key=lambda error: isinstance(error, OtherProcessError))
        if errors:
            raise errors[0]
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _as_rank(
    rank: int,
    size: int,
    port: int,
    folder: str,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="test",
    )
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.save(work(*arguments), Path(folder) / f"{rank}.pt")
