"""``branchtune resume``: go on with what was interrupted."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from solo_bridge import job
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
    parser.set_defaults(checkpoint_minutes=None, keep_checkpoints=None)  # as run was told
    parser.add_argument("folder", metavar="FOLDER", help="of a run or of a comparison")


def run(options: Namespace) -> int:
    """Train what is not finished.

    :param options: see :func:`arguments`.
    """
    training.load()
    import torch

    from avalanche_branchtune.report import write_report
    from solo_bridge.comparison.resumed import finished, unfinished

    folder = Path(options.folder).resolve()
    parts = unfinished(folder)
    if not parts:
        print(f"{folder}: all runs are finished")
    pages: dict[Path, str] = {}
    for part in parts:
        comparison, first = part.comparison(), part.asked[0]
        comparison.join()
        own = comparison.folder(first.specification, part.out)
        if folder != own:
            pages[part.out] = comparison.method
        if os.path.isdir(first.directory):
            os.chdir(first.directory)  # paths are relative to it
        torch.set_num_threads(first.threads)
        training.train(
            part.specifications,
            comparison,
            str(part.out),
            _told(options, own),
            separate=first.separate,
            imports=list(first.imports),
            page=False,
        )
    for out, method in pages.items() if not job.follows() else ():
        runs = finished(out)
        print(write_report(runs, out, title=f"{method}, {len(runs)} runs"))
    return 0


def _told(options: Namespace, folder: Path) -> Namespace:
    """Return options with what is not said as ``branchtune run`` was told, else as usual.

    :param options: see :func:`arguments`.
    :param folder: of a run.
    """
    usual: dict[str, Any] = {"checkpoint_minutes": 30.0, "keep_checkpoints": False}
    if (folder / "config.yaml").is_file():
        from solo_bridge.run.composing import read

        usual |= {k: v for k, v in read(folder / "config.yaml")["hardware"].items() if k in usual}
    given = {k: v for k, v in vars(options).items() if v is not None}
    return Namespace(**{**vars(options), **usual, **given})
