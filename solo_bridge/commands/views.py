"""``branchtune views``: what a method's views of images look like."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = (
        "Writes a picture with a row for each image: the image, its views by Pillow, "
        "and its views made by the minibatch."
    )
    parser.add_argument(
        "--method", help="name of a solo-learn method (default: simclr, for digits as in demo)"
    )
    parser.add_argument("--data", metavar="FOLDER", help="of images (default: the digits of demo)")
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="side of a view in pixels (default: 16, of a folder 32)",
    )
    parser.add_argument("--images", type=int, default=8, metavar="N", help="rows (default: 8)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="views.png", metavar="FILE", help="default: views.png")


def run(options: Namespace) -> int:
    """Draw the picture.

    :param options: see :func:`arguments`.
    """
    from avalanche_branchtune.options import at_least_one, one_of
    from solo_bridge.defaults import DEFAULTS

    size = 16 if options.data is None else 32
    size = at_least_one("--size", size if options.size is None else options.size)
    method = one_of("--method", options.method or "simclr", DEFAULTS)
    at_least_one("--images", options.images)
    from solo_bridge.compat import load

    load()
    from avalanche_branchtune.streams import digits_on_photographs, unlabelled_folder
    from solo_bridge.augmentation import resized
    from solo_bridge.comparison import digits
    from solo_bridge.views.sheet import contact_sheet

    if options.data is None:
        data: Any = digits_on_photographs(True, size=size, samples=10 * options.images)
    else:
        data = unlabelled_folder(options.data)
    if options.data is None and options.method is None:
        augmentations = [digits.views(size)]
    else:
        augmentations = resized(DEFAULTS[method].augmentations, size)
    step = max(1, len(data) // options.images)
    images = [data[i][0] for i in range(0, len(data), step)][: options.images]
    contact_sheet(images, augmentations, options.seed).save(options.out)
    print(options.out)
    return 0
