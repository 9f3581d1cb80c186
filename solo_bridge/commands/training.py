"""What the commands that train have in common."""

from __future__ import annotations

import shlex
import time
import warnings
from argparse import ArgumentParser, Namespace
from typing import Any

from avalanche_branchtune.options import at_least
from solo_bridge import job
from solo_bridge.apart import PRELOADED, Stopped, prepare
from solo_bridge.commands import parsed
from solo_bridge.side_by_side import cores, places_of

EPOCHS = {"demo": 16, "compare": 6}
"""Of each experience, unless told otherwise."""
EXPERIENCES = 5
LOGGERS = ("tensorboard", "trackio", "wandb")
UNTOLD = ("out", "seed", "strategies", "checkpoint_minutes", "keep_checkpoints", "jobs", "logger")
"""Options on which no result depends that is averaged: they are not in the command of a record."""


# ---- arguments


def arguments(parser: ArgumentParser, name: str) -> None:
    """Say what a command takes that compares.

    :param parser: of the command.
    :param name: of it.
    """
    parser.add_argument("--out", help=f"folder for the results (default: runs/{name}-<time>)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help=f"of each experience (default: {EPOCHS[name]})")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=4000, help="training images of the digits")
    parser.add_argument(
        "--views",
        choices=("batched", "solo_learn"),
        help="how they are made: of a whole minibatch at once, or by solo-learn's own pipeline "
        "(default: as is faster, batched up to 64 pixels and on a GPU)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="of each strategy (default: 1); with more, sums are rounded otherwise",
    )


def arguments_of_jobs(parser: ArgumentParser) -> None:
    """Say what a command takes that trains several strategies at a time.

    :param parser: of the command.
    """
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="how many strategies train at a time, on which no number depends (default: one "
        "for each core, or for each GPU where they train there; 1 under torchrun)",
    )
    parser.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=30.0,
        metavar="N",
        help="how often to save within an experience (default: 30)",
    )
    parser.add_argument(
        "--keep-checkpoints",
        action="store_true",
        help="keep the checkpoints of finished runs, of which only the backbone (backbone.pt) "
        "stays otherwise",
    )


def argument_of_logger(parser: ArgumentParser) -> None:
    """Say what a command takes whose runs can be followed while they last.

    :param parser: of the command.
    """
    parser.add_argument(
        # Not --log: torchrun takes that for one of its own.
        "--logger",
        choices=LOGGERS,
        help="also send what is measured to TensorBoard's files in the folder of each run, to "
        "Trackio, or to W&B (offline if WANDB_MODE=offline)",
    )


def argument_of_imports(parser: ArgumentParser, help: str) -> None:
    """Say what a command takes that knows strategies of the user's own.

    :param parser: of the command.
    :param help: of the option.
    """
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], metavar="FILE", help=help
    )


# ---- work


def load() -> None:
    """Import what training needs, here and for the processes that train."""
    if job.size() == 1:
        prepare(PRELOADED)
    from solo_bridge.compat import load

    load()


def run(
    options: Namespace,
    specs: list[str],
    *,
    imports: list[str],
    preset: str | None = None,
    **settings: Any,
) -> int:
    """Compare strategies as the options say.

    :param options: of :func:`arguments` and :func:`arguments_of_jobs`.
    :param specs: of the strategies.
    :param imports: files that register names.
    :param preset: name of one, or None.
    :param settings: further ones of the :class:`~solo_bridge.comparison.Comparison`.
    :return: exit status.
    """
    import torch

    from avalanche_branchtune import ranks
    from solo_bridge.comparison import Comparison

    torch.set_num_threads(at_least(1, "--threads", options.threads))
    settings.update(
        epochs=options.epochs,
        samples=options.samples,
        seed=options.seed,
        device=options.device,
        views=options.views,
        command=command_of(options),
    )
    if preset is None:
        usual = {"epochs": EPOCHS[options.command], "experiences": EXPERIENCES}
        usual["size"] = 16 if settings.get("data") is None else 32
        given: dict[str, Any] = {
            k: usual.get(k) if value is None else value for k, value in settings.items()
        }
        comparison = Comparison(**given)
    else:
        comparison = Comparison.as_published(preset, **settings)
    comparison.join()
    new = f"runs/{options.command}-%Y%m%d-%H%M%S"
    out = ranks.of_first(lambda: options.out or time.strftime(new))
    train(specs, comparison, out, options, separate=True, imports=imports)
    return 0


def jobs(asked: int | None, device: str, threads: int) -> int:
    """Return how many strategies train at a time, unless told: a core or a GPU each, in a job one.

    :param asked: as ``--jobs`` says, None if it does not.
    :param device: where they train.
    :param threads: of each.
    """
    if asked is not None:
        return at_least(1, "--jobs", asked)
    if job.size() > 1:
        return 1
    return max(1, cores() // threads) if device == "cpu" else len(places_of(device))


def train(
    specs: list[str],
    comparison: Any,
    out: str,
    options: Namespace,
    *,
    separate: bool,
    imports: list[str],
    page: bool = True,
) -> None:
    """Train what is not finished and show all.

    :param specs: of the strategies.
    :param comparison: what they are compared on.
    :param out: folder of their folders.
    :param options: of :func:`arguments_of_jobs`.
    :param separate: whether each has a process of its own.
    :param imports: files that register names.
    :param page: whether one is written of them.
    """
    warnings.filterwarnings("ignore")  # Avalanche's and Lightning's, about their own insides
    import torch

    from avalanche_branchtune import ranks
    from avalanche_branchtune.report import write_report
    from solo_bridge.comparison import compare

    several = jobs(options.jobs, comparison.device, torch.get_num_threads())
    begin = time.perf_counter()
    done: list[Any] = []
    try:
        runs = compare(
            specs,
            comparison,
            out,
            jobs=min(several, len(specs)) if separate else 1,
            separate=separate,
            done=done.append,
            imports=imports,
            checkpoint_minutes=options.checkpoint_minutes,
            keep_checkpoints=options.keep_checkpoints,
        )
    except Stopped as error:
        names = ", ".join(run.settings["specification"] for run in done)
        finished = f"{len(done)} of {len(specs)} strategies finished{names and f' ({names})'}"
        again = f"go on with: branchtune resume {shlex.quote(out)}"
        error.args = (f"{error}; {finished}, records in {out}; {again}",)
        raise
    if not ranks.leads():
        return
    _show(runs)
    took = f"\n{time.perf_counter() - begin:.0f} s; look at"
    if page:
        title = f"{comparison.method}, {len(specs)} strategies"
        print(took, write_report(runs, out, title=title))
    else:
        print(took, *(comparison.folder(spec, out) for spec in specs))


def command_of(options: Namespace) -> str:
    """Return the command without what differs between the runs that are averaged.

    :param options: of ``compare`` or ``demo``.
    """
    words = ["branchtune", options.command]
    words += ["--strategies", "…"] if options.command == "compare" else []
    usual = vars(parsed([options.command]))
    if getattr(options, "preset", None) is None:
        usual.update(epochs=EPOCHS[options.command], experiences=EXPERIENCES)
    for name, value in vars(options).items():
        if value not in (None, usual[name]) and name not in UNTOLD:
            for one in value if name == "imports" else [value]:
                words += [f"--{name.replace('imports', 'import')}", shlex.quote(str(one))]
    return " ".join(words)


def _show(runs: list[Any]) -> None:
    from avalanche_branchtune.evaluation.probe import sentence
    from avalanche_branchtune.report import group_runs, text_table

    print(f"\n{text_table(group_runs(runs))}\n")
    print(f"Protocol: {sentence(runs[0].probes['kNN'].protocol)}.")
    protocols = {run.analysis_protocol for run in runs if run.analysis_protocol}
    for protocol in protocols:
        print(f"S and P: {protocol}.")
    for key, value in runs[0].settings.items():
        if key not in ("strategy", "specification", "command", "caveat"):
            print(f"  {key}: {value}")
    processes = runs[0].environment.get("processes", 1)
    if processes != 1:
        print(f"  processes: {processes}, which share each minibatch")
    if "caveat" in runs[0].settings:
        print(runs[0].settings["caveat"])
