"""``branchtune presets``: the papers' settings."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from avalanche_branchtune.errors import UnknownOptionError


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = (
        "The papers' settings by name, as compare --preset and SoloMethod.from_preset take them."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a preset (default: list them)")


def run(options: Namespace) -> int:
    """Print the list of presets, or one of them.

    :param options: see :func:`arguments`.
    """
    from solo_bridge.presets import PRESETS, preset
    from solo_bridge.presets.text import description, listing

    if options.name == "laptop" or (options.name or "").startswith("paper/"):
        raise UnknownOptionError(
            f"{options.name} is a preset of branchtune run, which prints it by branchtune run "
            f"preset={options.name} --cfg job; here are {', '.join(PRESETS)}"
        )
    print(listing() if options.name is None else description(preset(options.name)))
    return 0
