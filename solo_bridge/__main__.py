"""``python -m solo_bridge``: the demo, comparisons of strategies, and the doctor."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from typing import Any

DEMO = "fine_tuning,branch_tuning,joint"
HONEST = (
    "A schedule this short favours fine-tuning; it shows that everything runs, and supports no "
    "claim of a paper."
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    :param arguments: command line without the program's name.
    :return: exit status.
    """
    parser = argparse.ArgumentParser(prog="branchtune", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="print versions, what will work and what to do")
    demo = commands.add_parser("demo", help="compare strategies on a stream that needs no download")
    compare = commands.add_parser(
        "compare", help="compare any strategies, each in a process of its own"
    )
    for command, epochs in ((demo, 15), (compare, 6)):
        name = command.prog.split()[-1]
        command.add_argument("--out", help=f"folder for the results (default: runs/{name}-<time>)")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--epochs", type=int, default=epochs, help="of each experience")
        command.add_argument("--device", default="cpu")
        command.add_argument("--samples", type=int, default=4000, help="number of training images")
    compare.add_argument(
        "--strategies",
        help="names joined by commas, each of parts joined by +, such as "
        "fine_tuning,branch_tuning+cassle (default: all there are, and some together)",
    )
    compare.add_argument("--list", action="store_true", help="list the names and do nothing else")
    compare.add_argument("--method", default="simclr", help="name of a solo-learn method")
    compare.add_argument("--data", help="folder with train/<class> and test/<class> images")
    compare.add_argument("--size", type=int, help="side of the images in pixels (default: 16; 32)")
    compare.add_argument("--workers", type=int, default=1, help="of the data loader")
    options = parser.parse_args(arguments)
    if options.command == "doctor":
        from solo_bridge.doctor import examine

        text, works = examine()
        print(text)
        return 0 if works else 1
    return _compare(options)


def _compare(options: argparse.Namespace) -> int:
    warnings.filterwarnings("ignore")  # Avalanche's and Lightning's, about their own insides
    import torch

    from avalanche_branchtune.errors import BranchTuneError
    from avalanche_branchtune.report import report
    from solo_bridge.comparison import Comparison, compare, everything
    from solo_bridge.registry import entries, names

    demo = options.command == "demo"
    if not demo and options.list:
        for name in names():
            print(f"{name:<22}{entries(name)[0].title}")
        return 0
    settings: dict[str, Any] = {}
    specs = DEMO.split(",")
    if not demo:
        size = options.size or (16 if options.data is None else 32)
        settings = {
            "method": options.method,
            "data": options.data,
            "size": size,
            "workers": options.workers,
        }
        specs = (options.strategies or ",".join(everything())).split(",")
    out = options.out or time.strftime(f"runs/{options.command}-%Y%m%d-%H%M%S")
    begin = time.perf_counter()
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # the other core makes the views
    try:
        comparison = Comparison(
            samples=options.samples,
            epochs=options.epochs,
            seed=options.seed,
            device=options.device,
            **settings,
        )
        runs = compare(specs, comparison, out, separate=not demo)
        page = report(runs, out, title=f"{comparison.method}, {len(specs)} strategies")
    except BranchTuneError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    _show(runs)
    print(f"\n{time.perf_counter() - begin:.0f} s; look at {page}")
    return 0


def _show(runs: list[Any]) -> None:
    from avalanche_branchtune.evaluation.probe import sentence
    from avalanche_branchtune.report import group_runs, text_table

    print(f"\n{text_table(group_runs(runs))}\n")
    print(f"Protocol: {sentence(runs[0].probes['kNN'].protocol)}.")
    protocols = {run.analysis_protocol for run in runs if run.analysis_protocol}
    for protocol in protocols:
        print(f"S and P: {protocol}.")
    for key, value in runs[0].settings.items():
        if key != "strategy":
            print(f"  {key}: {value}")
    print(HONEST)


if __name__ == "__main__":
    sys.exit(main())
