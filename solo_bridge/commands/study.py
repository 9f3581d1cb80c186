"""``branchtune study``: many runs, and what their seeds support."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from avalanche_branchtune.options import at_least
from solo_bridge.apart import Stopped
from solo_bridge.commands import training


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = (
        "Runs what a plan asks for and is not finished, several runs at a time, and "
        "writes <plan>.json and <plan>.md there: means, paired differences to fine-tuning on the "
        "same seeds, and orderings as far as the seeds support them. Started again it goes on."
    )
    parser.add_argument(
        "plan", metavar="PLAN", help="YAML file, see solo_bridge.study.plan.read_plan"
    )
    parser.add_argument(
        "--out", help="folder of the runs, which plans may share (default: runs/study)"
    )
    parser.add_argument("--hours", type=float, metavar="N", help="begin no run after so many hours")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of each run (default: 1)"
    )
    parser.add_argument("--list", action="store_true", help="list the runs and do nothing else")
    training.argument_of_imports(parser, "as of compare")
    training.arguments_of_jobs(parser)
    training.argument_of_logger(parser)


def run(options: Namespace) -> int:
    """Train what is not finished, and write what was found.

    :param options: see :func:`arguments`.
    """
    training.load()
    import torch

    from avalanche_branchtune.writing import write_text
    from solo_bridge.registry import import_file
    from solo_bridge.study import collect, progress, read_plan, run_study
    from solo_bridge.study.text import tables

    for file in options.imports:
        import_file(file)
    torch.set_num_threads(at_least(1, "--threads", options.threads))
    plan = replace(read_plan(options.plan), logger=options.logger)
    out = Path(options.out or "runs/study")
    if options.list:
        state = progress(plan, out)
        for job in plan.jobs():
            print(f"{'finished' if job in state.finished else 'to do':<9} {job.name}")
        return 0
    try:
        state = run_study(
            plan,
            out,
            jobs=training.jobs(options.jobs, plan.device, options.threads),
            hours=options.hours,
            imports=options.imports,
            done=lambda run: print(f"{run.name}, seed {run.seed}: finished", file=sys.stderr),
            checkpoint_minutes=options.checkpoint_minutes,
            keep_checkpoints=options.keep_checkpoints,
        )
    except Stopped as error:
        finished = len(progress(plan, out).finished)
        error.args = (
            f"{error}; {finished} of {len(plan.jobs())} runs finished, the others go on where they "
            "are when it is started again",
        )
        raise
    results = collect(plan, out)
    name = Path(options.plan).stem
    results.save(out / f"{name}.json")
    write_text(out / f"{name}.md", tables(results))
    print(f"{tables(results)}\n{out / name}.md, {name}.json")
    return 1 if state.failed else 0
