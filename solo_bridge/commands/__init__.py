"""The commands of ``branchtune``: each a module with its arguments and what it does.

A module is imported when its command is given: it has ``arguments(parser)``, which says what the
command takes, and ``run(options)``, which returns the exit status.
"""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Protocol, cast

from avalanche_branchtune import __version__

COMMANDS = {
    "check": "find images that cannot be read, or are not what they seem, before a run",
    "compare": "compare any strategies, each in a process of its own",
    "demo": "compare strategies on a stream that needs no download",
    "doctor": "print versions, what will work and what to do",
    "run": "an experiment from configuration: a run, or a sweep of runs",
    "report": "make a page, figures and tables from the records of runs",
    "resume": "go on with an interrupted comparison, or with one run of it",
    "status": "list the runs below a folder: what runs, what died, what is done",
    "study": "run arms × streams × schedules × seeds, and say what the seeds support",
    "presets": "list the papers' settings, or print all of one",
    "probe": "judge the features of a checkpoint by kNN or a linear probe",
    "analyse": "compare two checkpoints layer by layer: what was kept, what was learnt",
    "export": "write the backbone of a checkpoint for other programs, and compare its outputs",
    "list": "list methods, backbones, strategies, streams, probes or presets",
    "views": "draw what a method's views of images look like",
}
"""Name → what it does, as ``branchtune --help`` lists it."""


class Command(Protocol):
    """What a command's module has."""

    def arguments(self, parser: ArgumentParser) -> None:
        """Say what the command takes."""

    def run(self, options: Namespace) -> int:
        """Do it, and return the exit status."""


def command(name: str) -> Command:
    """Import a command.

    :param name: one of :data:`COMMANDS`.
    """
    return cast(Command, importlib.import_module(f"{__name__}.{name}"))


HYDRAS = ("--config-", "-cn", "-cp", "-cd", "-c", "--resolve", "--info", "--hydra", "--package")
"""Beginnings of Hydra's flags that ``run`` does not have."""


def parsed(arguments: Sequence[str]) -> Namespace:
    """Read a command line.

    :param arguments: without the program's name.
    :return: options; the command's name is in ``command``.
    """
    top = ArgumentParser(
        prog="branchtune",
        description="Continual self-supervised learning with Branch-tuning.",
        epilog="branchtune COMMAND --help says more about a command.",
    )
    top.add_argument("--version", action="version", version=f"branchtune {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, does in COMMANDS.items():
        parser = commands.add_parser(name, help=does)
        if name == asked:
            command(name).arguments(parser)
    found, left = top.parse_known_args(arguments)
    words = [w for w in left if w[0] == "~" or ("=" in w and w[0] != "-")]
    if (found.command != "run" and left) or words != left:
        hydras = any(w.startswith(HYDRAS) for w in left) and found.command == "run"
        also = "; of Hydra's flags there are -m and --cfg, and --config FILE" if hydras else ""
        top.error(f"unrecognized arguments: {' '.join(left)}{also}")
    if left:  # argparse leaves words that stand behind an option: run … -m seed=0,1
        found.overrides += left
    return found
