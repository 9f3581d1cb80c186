"""``branchtune status``: the runs below a folder."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = (
        "Lists every run that has a sidecar.json, a comparison.json or a run.json: its state, how "
        "far it is, when it last said so and was last saved, and where it runs."
    )
    parser.add_argument("folder", metavar="FOLDER", help="of runs")
    parser.add_argument("--json", action="store_true", help="print JSON; times are in seconds")


def run(options: Namespace) -> int:
    """Print the list.

    :param options: see :func:`arguments`.
    """
    from solo_bridge.status import as_json, as_text, statuses

    found = statuses(Path(options.folder))
    if options.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        print(as_text(found) if found else f"{options.folder}: no runs there, nor below")
    return 0
