"""The command ``branchtune``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avalanche_branchtune import __version__
from avalanche_branchtune.errors import BranchTuneError
from solo_bridge.apart import Stopped, stoppable
from solo_bridge.titles import TITLES

DEMO = ("fine_tuning", "branch_tuning", "joint")
EPOCHS = {"demo": 15, "compare": 6}
"""Of each experience, unless told otherwise."""
EXPERIENCES = 5
UNTOLD = ("out", "seed", "strategies", "checkpoint_minutes", "keep_checkpoints")
"""Options on which no result depends that is averaged: they are not in the command of a record."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param arguments: command line without the program's name.
    :return: exit status: 0 if all went well, 1 if the bridge does not work
        (``doctor``) or images cannot be used (``check``), 2 for wrong arguments or
        input; if it was asked to end 130 (SIGINT), 143 (SIGTERM) or 75 (SIGUSR1).
    """
    options = parser().parse_args(arguments)
    try:
        with stoppable():
            status: int = options.run(options)
        return status
    except KeyboardInterrupt as error:
        print(f"branchtune {options.command}: {error or 'interrupted'}", file=sys.stderr)
        return getattr(error, "status", 130)
    except (BranchTuneError, OSError) as error:
        print(f"branchtune {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """Return the command line: each command has its function in ``run``."""
    top = argparse.ArgumentParser(
        prog="branchtune",
        description="Continual self-supervised learning with Branch-tuning.",
        epilog="branchtune COMMAND --help says more about a command.",
    )
    top.add_argument("--version", action="version", version=f"branchtune {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="find images that cannot be read, or are not what they seem, before a run",
        description="Decode every image below a folder as a run would, and look at its classes. "
        "Exit status: 0 if all is well, 1 if there are errors, 2 for no folder.",
    )
    compare = commands.add_parser(
        "compare", help="compare any strategies, each in a process of its own"
    )
    demo = commands.add_parser("demo", help="compare strategies on a stream that needs no download")
    doctor = commands.add_parser("doctor", help="print versions, what will work and what to do")
    report = commands.add_parser(
        "report",
        help="make a page, figures and tables from the records of runs",
        description="Compare runs on one page that needs no network, with its figures and tables "
        "as files. Runs of one name are averaged over their seeds.",
    )
    resume = commands.add_parser(
        "resume",
        help="go on with an interrupted comparison, or with one run of it",
        description="Goes on with what compare and demo began, with the arguments that they had: "
        "finished strategies are kept, the interrupted one goes on, the rest are trained. A script "
        "of your own is started again instead, with Checkpoints(..., resume=True).",
    )
    status = commands.add_parser(
        "status",
        help="list the runs below a folder: what runs, what died, what is done",
        description="Lists every run that has a sidecar.json or a comparison.json: its state, how "
        "far it is, when it last said so and was last saved, and where it runs.",
    )
    presets = commands.add_parser(
        "presets",
        help="list the papers' settings, or print all of one",
        description="The papers' settings by name, as compare --preset and "
        "SoloMethod.from_preset take them.",
    )
    presets.add_argument("name", nargs="?", metavar="NAME", help="of a preset (default: list them)")
    for command, run in (
        (check, _check),
        (compare, _compare),
        (demo, _demo),
        (doctor, _doctor),
        (presets, _presets),
        (report, _report),
        (resume, _resume),
        (status, _status),
    ):
        command.set_defaults(run=run)
    check.add_argument("folder", metavar="FOLDER", help="with images, or with train/ and test/")
    check.add_argument(
        "--size", type=int, metavar="PIXELS", help="side under which an image is noted"
    )
    check.add_argument("--workers", type=int, help="processes (default: one for each core)")
    check.add_argument("--json", metavar="FILE", help="where to write all that was found")
    for command in (demo, compare):
        name = command.prog.split()[-1]
        command.add_argument("--out", help=f"folder for the results (default: runs/{name}-<time>)")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument(
            "--epochs", type=int, help=f"of each experience (default: {EPOCHS[name]})"
        )
        command.add_argument("--device", default="cpu")
        command.add_argument("--samples", type=int, default=4000, help="number of training images")
    for command in (compare, demo, resume):
        command.add_argument(
            "--checkpoint-minutes",
            type=float,
            default=30.0,
            metavar="N",
            help="how often to save within an experience (default: 30)",
        )
        command.add_argument(
            "--keep-checkpoints",
            action="store_true",
            help="keep the checkpoints of finished runs, which are removed otherwise",
        )
    resume.add_argument("folder", metavar="FOLDER", help="of a run or of a comparison")
    status.add_argument("folder", metavar="FOLDER", help="of runs")
    status.add_argument("--json", action="store_true", help="print JSON; times are in seconds")
    compare.add_argument(
        "--strategies",
        help="names joined by commas, each of parts joined by +, such as "
        "fine_tuning,branch_tuning+cassle (default: all there are, and some together)",
    )
    compare.add_argument("--list", action="store_true", help="list the names and do nothing else")
    compare.add_argument("--method", default="simclr", help="name of a solo-learn method")
    compare.add_argument(
        "--preset",
        metavar="NAME",
        help="train as a paper did, on a ResNet-18: its method, schedule, stream and plugins, "
        "unless told otherwise here; needs --data (see branchtune presets)",
    )
    compare.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file that registers strategies or plugins of your own by @register; it is "
        "run; may be given several times",
    )
    compare.add_argument("--data", help="folder with train/<class> and test/<class> images")
    compare.add_argument(
        "--size", type=int, help="side of the images in pixels (default: 16; 32 of --data)"
    )
    compare.add_argument("--experiences", type=int, help=f"of the stream (default: {EXPERIENCES})")
    compare.add_argument("--workers", type=int, default=1, help="of the data loader")
    report.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run (it holds run.json), or a folder below which there are such folders",
    )
    report.add_argument(
        "--out",
        default="report",
        metavar="DIR",
        help="folder for report.html, figures/, tables.md and tables.tex; older files of these "
        "names are replaced (default: report, in the current folder)",
    )
    report.add_argument("--title", metavar="T", help="title of the page (default: the names)")
    return top


def _check(options: argparse.Namespace) -> int:
    import json

    from avalanche_branchtune.writing import write_text
    from solo_bridge.images import examine

    report = examine(options.folder, size=options.size, workers=options.workers, bar=True)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(report.plain(), indent=1) + "\n")
    print(report.text())
    return 1 if report.errors else 0


def _report(options: argparse.Namespace) -> int:
    from avalanche_branchtune.report import group_runs, write_report
    from avalanche_branchtune.report.notices import notices

    groups = group_runs(options.runs)
    page = write_report(groups, options.out, title=options.title)
    for notice in notices(groups):
        print(notice)
    print(page)
    return 0


def _presets(options: argparse.Namespace) -> int:
    from solo_bridge.presets import preset
    from solo_bridge.presets.text import description, listing

    print(listing() if options.name is None else description(preset(options.name)))
    return 0


def _status(options: argparse.Namespace) -> int:
    from solo_bridge.status import as_json, as_text, statuses

    found = statuses(Path(options.folder))
    if options.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        print(as_text(found) if found else f"{options.folder}: no runs there, nor below")
    return 0


def _resume(options: argparse.Namespace) -> int:
    from solo_bridge.compat import load

    load()
    import torch

    from solo_bridge.comparison.resumed import unfinished

    folder = Path(options.folder).resolve()
    for part in unfinished(folder):
        first = part.asked[0]
        if os.path.isdir(first.directory):
            os.chdir(first.directory)  # paths are relative to it
        torch.set_num_threads(first.threads)
        _train(
            part.specifications,
            part.comparison(),
            str(part.out),
            options,
            separate=first.separate,
            imports=list(first.imports),
            whole=folder != part.out / f"{first.specification}-{part.comparison().seed}",
        )
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from solo_bridge.doctor import examine

    text, works = examine()
    print(text)
    return 0 if works else 1


def _demo(options: argparse.Namespace) -> int:
    from solo_bridge.compat import load

    load()
    return _run(options, list(DEMO), separate=False, imports=[])


def _compare(options: argparse.Namespace) -> int:
    if options.list:
        titles = _titles(options.imports)
        width = max(map(len, titles))
        for name in sorted(titles):
            print(f"{name:<{width}}  {titles[name]}")
        return 0
    from solo_bridge.compat import load

    load()
    from solo_bridge.comparison import everything
    from solo_bridge.registry import import_file

    for file in options.imports:
        import_file(file)
    asked = options.strategies
    specs = everything(options.preset) if asked is None else asked.split(",")
    return _run(
        options,
        [spec.replace(" ", "") for spec in specs],
        separate=True,
        imports=options.imports,
        preset=options.preset,
        method=options.method,
        data=options.data,
        workers=options.workers,
        experiences=options.experiences,
        size=options.size,
    )


def _titles(imports: list[str]) -> dict[str, str]:
    if not imports:
        return TITLES
    from solo_bridge.registry import import_file
    from solo_bridge.specification import names, title

    for file in imports:
        import_file(file)
    return {name: title(name) for name in names()}


def _run(
    options: argparse.Namespace,
    specs: list[str],
    *,
    separate: bool,
    imports: list[str],
    preset: str | None = None,
    **settings: Any,
) -> int:
    import torch

    from solo_bridge.comparison import Comparison

    out = options.out or time.strftime(f"runs/{options.command}-%Y%m%d-%H%M%S")
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # the other core makes the views
    settings.update(
        epochs=options.epochs,
        samples=options.samples,
        seed=options.seed,
        device=options.device,
        command=_command(options),
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
    _train(specs, comparison, out, options, separate=separate, imports=imports)
    return 0


def _train(
    specs: list[str],
    comparison: Any,
    out: str,
    options: argparse.Namespace,
    *,
    separate: bool,
    imports: list[str],
    whole: bool = True,
) -> None:
    """Train what is not finished and show all; without the page if it is not the whole of it."""
    warnings.filterwarnings("ignore")  # Avalanche's and Lightning's, about their own insides
    from avalanche_branchtune.report import write_report
    from solo_bridge.comparison import compare

    begin = time.perf_counter()
    done: list[Any] = []
    try:
        runs = compare(
            specs,
            comparison,
            out,
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
    _show(runs)
    took = f"\n{time.perf_counter() - begin:.0f} s; look at"
    if whole:
        title = f"{comparison.method}, {len(specs)} strategies"
        print(took, write_report(runs, out, title=title))
    else:
        print(took, comparison.folder(specs[0], out))


def _command(options: argparse.Namespace) -> str:
    """Return the command without what differs between the runs that are averaged."""
    words = ["branchtune", options.command]
    words += ["--strategies", "…"] if options.command == "compare" else []
    usual = vars(parser().parse_args([options.command]))
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
    if "caveat" in runs[0].settings:
        print(runs[0].settings["caveat"])
