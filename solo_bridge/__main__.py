"""``python -m solo_bridge``: the demo, and the doctor."""

from __future__ import annotations

import argparse
import sys
import time
import warnings


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    :param arguments: command line without the program's name.
    :return: exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m solo_bridge", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="print versions, what will work and what to do")
    demo = commands.add_parser("demo", help="compare strategies on a stream that needs no download")
    demo.add_argument("--out", help="folder for the results (default: runs/demo-<time>)")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--epochs", type=int, default=15, help="epochs of each experience")
    demo.add_argument("--device", default="cpu")
    demo.add_argument("--samples", type=int, default=4000, help="number of training images")
    options = parser.parse_args(arguments)
    if options.command == "doctor":
        from solo_bridge.doctor import report

        text, works = report()
        print(text)
        return 0 if works else 1
    return _demo(options)


def _demo(options: argparse.Namespace) -> int:
    warnings.filterwarnings("ignore")  # Avalanche's and Lightning's, about their own insides
    import torch

    from avalanche_branchtune.errors import BranchTuneError
    from avalanche_branchtune.evaluation.probe import sentence
    from avalanche_branchtune.report import group_runs, report, text_table
    from solo_bridge.demo import run_demo

    out = options.out or time.strftime("runs/demo-%Y%m%d-%H%M%S")
    begin = time.perf_counter()
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # the other core makes the views
    try:
        runs = run_demo(
            out,
            seed=options.seed,
            epochs=options.epochs,
            device=options.device,
            samples=options.samples,
        )
        page = report(runs, out, title="SimCLR on digits over photographs, five experiences")
    except BranchTuneError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(f"\n{text_table(group_runs(runs))}\n")
    print(f"Protocol: {sentence(runs[0].probes['kNN'].protocol)}.")
    print(f"S and P: {runs[-1].analysis_protocol}.")
    for key, value in runs[-1].settings.items():
        print(f"  {key}: {value}")
    print(
        "A schedule this short favours fine-tuning; it shows that everything runs, and supports "
        "no claim of the paper."
    )
    print(f"\n{time.perf_counter() - begin:.0f} s; look at {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
