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

from avalanche_branchtune.errors import BranchTuneError
from avalanche_branchtune.options import at_least
from solo_bridge import job
from solo_bridge.apart import PRELOADED, Stopped, prepare, stoppable
from solo_bridge.arguments import EPOCHS, EXPERIENCES, parser
from solo_bridge.side_by_side import cores
from solo_bridge.titles import TITLES

DEMO = ("fine_tuning", "branch_tuning", "joint")
UNTOLD = ("out", "seed", "strategies", "checkpoint_minutes", "keep_checkpoints", "jobs")
"""Options on which no result depends that is averaged: they are not in the command of a record."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param arguments: command line without the program's name.
    :return: exit status: 0 if all went well, 1 if the bridge does not work
        (``doctor``) or images cannot be used (``check``), 2 for wrong arguments or
        input; if it was asked to end 130 (SIGINT), 143 (SIGTERM) or 75 (SIGUSR1).
    """
    if job.follows():
        return _follow(arguments)
    options = parser().parse_args(arguments)
    try:
        with stoppable():
            return COMMANDS[options.command](options)
    except KeyboardInterrupt as error:
        print(f"branchtune {options.command}: {error or 'interrupted'}", file=sys.stderr)
        return getattr(error, "status", 130)
    except (BranchTuneError, OSError) as error:
        print(f"branchtune {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _follow(arguments: Sequence[str] | None) -> int:
    """Take part in what the first process of a job does; it alone prints, and trains nothing."""
    try:
        with job.unheard():
            options = parser().parse_args(arguments)
    except SystemExit:
        return 0
    if options.command not in TRAIN:
        return 0
    with stoppable():
        return job.follow(options.command, lambda: COMMANDS[options.command](options))


def _check(options: argparse.Namespace) -> int:
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


def _views(options: argparse.Namespace) -> int:
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


def _status(options: argparse.Namespace) -> int:
    from solo_bridge.status import as_json, as_text, statuses

    found = statuses(Path(options.folder))
    if options.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        print(as_text(found) if found else f"{options.folder}: no runs there, nor below")
    return 0


def _resume(options: argparse.Namespace) -> int:
    _load()
    import torch

    from solo_bridge.comparison.resumed import unfinished

    folder = Path(options.folder).resolve()
    parts = unfinished(folder)
    if not parts:
        print(f"{folder}: all runs are finished")
    for part in parts:
        part.comparison().join()
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
            whole=folder != part.comparison().folder(first.specification, part.out),
        )
    return 0


def _study(options: argparse.Namespace) -> int:
    _load()
    import torch

    from avalanche_branchtune.writing import write_text
    from solo_bridge.registry import import_file
    from solo_bridge.study import collect, progress, read_plan, run_study
    from solo_bridge.study.text import tables

    for file in options.imports:
        import_file(file)
    torch.set_num_threads(at_least(1, "--threads", options.threads))
    plan = read_plan(options.plan)
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
            jobs=_jobs(options.jobs, plan.device, options.threads),
            hours=options.hours,
            imports=options.imports,
            done=lambda run: print(f"{run.name}, seed {run.seed}: finished", file=sys.stderr),
            checkpoint_minutes=options.checkpoint_minutes,
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


def _doctor(options: argparse.Namespace) -> int:
    from solo_bridge.doctor import examine

    text, works = examine()
    print(text)
    return 0 if works else 1


def _demo(options: argparse.Namespace) -> int:
    _load()
    return _run(options, list(DEMO), imports=[])


def _compare(options: argparse.Namespace) -> int:
    if options.list:
        titles = _titles(options.imports)
        width = max(map(len, titles))
        for name in sorted(titles):
            print(f"{name:<{width}}  {titles[name]}")
        return 0
    _load()
    from solo_bridge.comparison import everything
    from solo_bridge.registry import import_file

    for file in options.imports:
        import_file(file)
    asked = options.strategies
    specs = everything(options.preset) if asked is None else asked.split(",")
    return _run(
        options,
        [spec.replace(" ", "") for spec in specs],
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
    imports: list[str],
    preset: str | None = None,
    **settings: Any,
) -> int:
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
    comparison.join()
    new = f"runs/{options.command}-%Y%m%d-%H%M%S"
    out = ranks.of_first(lambda: options.out or time.strftime(new))
    _train(specs, comparison, out, options, separate=True, imports=imports)
    return 0


def _load() -> None:
    """Import what training needs, here and for the processes that train."""
    if job.size() == 1:
        prepare(PRELOADED)
    from solo_bridge.compat import load

    load()


def _jobs(asked: int | None, device: str, threads: int) -> int:
    """Return how many strategies train at a time: on a GPU or in a job one, unless told so."""
    if asked is not None:
        return at_least(1, "--jobs", asked)
    return max(1, cores() // threads) if device == "cpu" and job.size() == 1 else 1


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
    import torch

    from avalanche_branchtune import ranks
    from avalanche_branchtune.report import write_report
    from solo_bridge.comparison import compare

    jobs = _jobs(options.jobs, comparison.device, torch.get_num_threads())
    begin = time.perf_counter()
    done: list[Any] = []
    try:
        runs = compare(
            specs,
            comparison,
            out,
            jobs=min(jobs, len(specs)) if separate else 1,
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
    processes = runs[0].environment.get("processes", 1)
    if processes != 1:
        print(f"  processes: {processes}, which share each minibatch")
    if "caveat" in runs[0].settings:
        print(runs[0].settings["caveat"])


TRAIN = ("compare", "demo", "resume")
COMMANDS = {
    "check": _check,
    "compare": _compare,
    "demo": _demo,
    "doctor": _doctor,
    "presets": _presets,
    "report": _report,
    "resume": _resume,
    "status": _status,
    "study": _study,
    "views": _views,
}
