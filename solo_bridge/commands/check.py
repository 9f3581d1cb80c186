"""``branchtune check``: images, examined before a run."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = (
        "Decode every image below a folder as a run would, and look at its classes. "
        "Exit status: 0 if all is well, 1 if there are errors, 2 for no folder."
    )
    parser.add_argument("folder", metavar="FOLDER", help="with images, or with train/ and test/")
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help="side under which an image is noted"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.add_argument("--json", metavar="FILE", help="where to write all that was found")


def run(options: Namespace) -> int:
    """Examine the images.

    :param options: see :func:`arguments`.
    """
    from avalanche_branchtune.writing import write_text
    from solo_bridge.images import examine

    report = examine(options.folder, size=options.size, workers=options.workers, bar=True)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(report.plain(), indent=1) + "\n")
    print(report.text())
    return 1 if report.errors else 0
