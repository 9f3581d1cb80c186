"""The command ``branchtune``."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from avalanche_branchtune.errors import BranchTuneError


@dataclass(frozen=True)
class Command:
    """One of the commands.

    :param run: from the arguments after its name to the exit status.
    :param help: one line.
    """

    run: Callable[[Sequence[str]], int]
    help: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param arguments: command line without the program's name.
    :return: exit status: 0 if all went well, 2 for wrong arguments or input.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in COMMANDS:
        try:
            return COMMANDS[arguments[0]].run(arguments[1:])
        except KeyboardInterrupt:
            return 130
    parser = argparse.ArgumentParser(
        prog="branchtune",
        description="Continual self-supervised learning with Branch-tuning.",
        epilog="branchtune COMMAND --help says more about a command.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help)
    parser.parse_args(arguments)
    return 0


def _report(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="branchtune report",
        description="Compare runs on one page that needs no network, with its figures and tables "
        "as files. Runs of one name are averaged over their seeds.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run (it holds run.json), or a folder below which there are such folders",
    )
    parser.add_argument(
        "--out",
        default="report",
        metavar="DIR",
        help="folder for report.html, figures/, tables.md and tables.tex; older files of these "
        "names are replaced (default: report, in the current folder)",
    )
    parser.add_argument("--title", metavar="T", help="title of the page (default: the names)")
    options = parser.parse_args(arguments)

    from avalanche_branchtune.report import group_runs, write_report
    from avalanche_branchtune.report.notices import notices

    try:
        groups = group_runs(options.runs)
        page = write_report(groups, options.out, title=options.title)
    except (BranchTuneError, OSError) as error:
        print(f"branchtune report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for notice in notices(groups):
        print(notice)
    print(page)
    return 0


def _bridge(command: str, arguments: Sequence[str]) -> int:
    """Run a command of the package solo_bridge, which this one does not import."""
    done = subprocess.run([sys.executable, "-m", "solo_bridge", command, *arguments], check=False)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


COMMANDS = {
    "compare": Command(
        partial(_bridge, "compare"), "compare any strategies, each in a process of its own"
    ),
    "demo": Command(
        partial(_bridge, "demo"), "compare strategies on a stream that needs no download"
    ),
    "doctor": Command(partial(_bridge, "doctor"), "print versions, what will work and what to do"),
    "report": Command(_report, "make a page, figures and tables from the records of runs"),
}


if __name__ == "__main__":
    sys.exit(main())
