"""``branchtune compare``: any strategies side by side."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from solo_bridge.commands import training
from solo_bridge.titles import TITLES


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    training.arguments(parser, "compare")
    training.arguments_of_jobs(parser)
    training.argument_of_logger(parser)
    parser.add_argument(
        "--strategies",
        help="names joined by commas, each of parts joined by +, such as "
        "fine_tuning,branch_tuning+cassle (default: all there are, and some together)",
    )
    parser.add_argument("--list", action="store_true", help="list the names and do nothing else")
    parser.add_argument("--method", default="simclr", help="name of a solo-learn method")
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="train as a paper did, on a ResNet-18: its method, schedule, stream and plugins, "
        "unless told otherwise here; needs --data (see branchtune presets)",
    )
    training.argument_of_imports(
        parser,
        "Python file that registers strategies or plugins of your own by @register; it is "
        "run; may be given several times",
    )
    parser.add_argument(
        "--data",
        help="folder with train/<class> and test/<class> images, or cifar100:FOLDER, which has "
        "CIFAR-100 as torchvision keeps it",
    )
    parser.add_argument(
        "--size", type=int, help="side of the images in pixels (default: 16; 32 of --data)"
    )
    parser.add_argument(
        "--experiences", type=int, help=f"of the stream (default: {training.EXPERIENCES})"
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that load data for each strategy"
    )


def run(options: Namespace) -> int:
    """Train the strategies and show what was found, or list them.

    :param options: see :func:`arguments`.
    """
    if options.list:
        titles = _titles(options.imports)
        width = max(map(len, titles))
        for name in sorted(titles):
            print(f"{name:<{width}}  {titles[name]}")
        return 0
    training.load()
    from solo_bridge.comparison import everything
    from solo_bridge.registry import import_file

    for file in options.imports:
        import_file(file)
    asked = options.strategies
    specs = everything(options.preset) if asked is None else asked.split(",")
    return training.run(
        options,
        [spec.replace(" ", "") for spec in specs],
        imports=options.imports,
        preset=options.preset,
        method=options.method,
        data=options.data,
        workers=options.workers,
        experiences=options.experiences,
        size=options.size,
        logger=options.logger,
    )


def _titles(imports: list[str]) -> dict[str, str]:
    if not imports:
        return TITLES
    from solo_bridge.registry import import_file
    from solo_bridge.specification import names, title

    for file in imports:
        import_file(file)
    return {name: title(name) for name in names()}
