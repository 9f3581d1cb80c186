"""``branchtune doctor``: what is installed, and what will work."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    """Say that the command takes nothing.

    :param parser: of the command.
    """


def run(options: Namespace) -> int:
    """Examine the installation.

    :param options: none.
    """
    from solo_bridge.doctor import examine

    text, works = examine()
    print(text)
    return 0 if works else 1
