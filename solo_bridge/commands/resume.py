"""``branchtune resume``: go on with what was interrupted."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from solo_bridge.commands import training


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = (
        "Goes on with what compare, demo and run began, with the arguments that they had: "
        "finished strategies are kept, the interrupted one goes on, the rest are trained. A script "
        "of your own is started again instead, with Checkpoints(..., resume=True)."
    )
    training.arguments_of_jobs(parser)
    parser.add_argument("folder", metavar="FOLDER", help="of a run or of a comparison")


def run(options: Namespace) -> int:
    """Train what is not finished.

    :param options: see :func:`arguments`.
    """
    training.load()
    import torch

    from solo_bridge.comparison.resumed import unfinished

    folder = Path(options.folder).resolve()
    parts = unfinished(folder)
    if not parts:
        print(f"{folder}: all runs are finished")
    for part in parts:
        part.comparison().join()
        first = part.asked[0]
        if os.path.isdir(first.directory):
            os.chdir(first.directory)  # paths are relative to it
        torch.set_num_threads(first.threads)
        training.train(
            part.specifications,
            part.comparison(),
            str(part.out),
            options,
            separate=first.separate,
            imports=list(first.imports),
            whole=folder != part.comparison().folder(first.specification, part.out),
        )
    return 0
