"""``branchtune demo``: strategies on a stream that needs no download."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from solo_bridge.commands import training

STRATEGIES = ("fine_tuning", "branch_tuning", "frozen", "joint")


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    training.arguments(parser, "demo")
    training.arguments_of_jobs(parser)


def run(options: Namespace) -> int:
    """Train the strategies and show what was found.

    :param options: see :func:`arguments`.
    """
    training.load()
    return training.run(options, list(STRATEGIES), imports=[])
