"""``branchtune run``: an experiment from configuration."""

from __future__ import annotations

import importlib.util
import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from avalanche_branchtune.errors import BranchTuneError, ConfigError
from solo_bridge import job
from solo_bridge.commands import training

SIGNALS = "--signals-to-handle"
"""Option of torchrun's: without it SIGUSR1 ends torchrun alone, and its processes train on."""
NEEDED = ("hydra", "omegaconf")

DESCRIPTION = """\
Trains and measures a strategy as a configuration says, which Hydra composes of groups:

  method        a method of solo-learn's, or from_yaml with method.file=FILE
  backbone      own (the method's), small_resnet, or any of solo-learn's, torchvision's, timm's
  stream        data by name, as split_cifar100; split_cifar100/sparse divides them otherwise
  augmentation  own (the method's), digits, strong, asymmetric, close, saturated
  hardware      cpu, gpu, processes (several, one run), slurm (with --multirun)
  preset        laptop, paper/cifar100_5, paper/cifar100_10, paper/imagenet100_5,
                paper/tinyimagenet_10, paper/domainnet, or a name of branchtune presets

and of values: strategy=branch_tuning+cassle, options.cassle.weight=0.3, probe=knn+linear, seed=0,
training.epochs=100, training.lr=0.3, out=runs, weights=FILE to begin with a trained network. A
value that is null is the preset's, else the method's own. branchtune list has the names; --cfg job
prints every setting.
"""
EXAMPLES = """\
  branchtune run preset=laptop strategy=branch_tuning+cassle
  branchtune run preset=laptop strategy=fine_tuning,branch_tuning,joint seed=0,1,2 --multirun
  branchtune run preset=paper/cifar100_5 stream.root=data method=byol hardware=gpu
  branchtune run runs/…/branch_tuning-0/config.yaml       the same again, or on with it
  branchtune run --config barlow.yaml stream=folder stream.root=…     solo-learn's own file
  branchtune run --config barlow.yaml weights=barlow.ckpt stream=…    and its checkpoint
"""


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="NAME=VALUE",
        help="groups and settings, as Hydra has them; the first may be a file, as of --config",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="config.yaml of a run, or a configuration of solo-learn's"
    )
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="a run for each of seed=0,1,2, and so on"
    )
    parser.add_argument(
        "--cfg",
        choices=("job", "composed"),
        help="print the configuration and do nothing else: job with every setting said, composed "
        "as the groups have it",
    )


def run(options: Namespace) -> int:
    """Train what the configuration says.

    :param options: see :func:`arguments`.
    """
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"{name} is not installed: pip install 'avalanche-branchtune[cli]' has what "
                "branchtune run needs"
            )
    file, overrides = _file(options)
    if options.multirun:
        return _several(file, overrides, options.cfg)
    from solo_bridge.compat import load

    load()
    from solo_bridge.comparison.experiment import forget_pixels
    from solo_bridge.run import composing
    from solo_bridge.run.launching import launcher_of
    from solo_bridge.run.running import run_of, train

    composing.only_one(overrides)
    composing.split(overrides)
    if options.cfg is None and file is None and launcher_of(overrides) != "basic":
        raise ConfigError(
            "hardware=slurm and hydra/launcher start jobs of a sweep: add --multirun, also for one "
            "run, or leave them out to train here"
        )
    if options.cfg is not None:
        content = composing.composed(overrides, file)
        _print(content if options.cfg == "composed" else run_of(overrides, file).config)
        return 0
    one = run_of(overrides, file)
    if one.finished():
        print(f"{one.folder}: this run is finished; branchtune report {one.out} shows it")
        return 0
    processes = one.config["hardware"]["processes"]
    if processes > 1 and job.size() == 1:
        return _in_processes(one, processes)
    train(one)
    if not job.follows():
        forget_pixels(one.out)
        _show([one])
    return 0


def _file(options: Namespace) -> tuple[Path | None, list[str]]:
    overrides = list(options.overrides)
    file = options.config
    if file is None and overrides and ("=" not in overrides[0] or os.path.exists(overrides[0])):
        file = overrides.pop(0)
    if file is None:
        return None, _quoted(overrides)
    path = Path(file)
    path = path / "config.yaml" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"{file}: there is no such file, and it is no NAME=VALUE either")
    return path, _quoted(overrides)


def _quoted(overrides: list[str]) -> list[str]:
    from solo_bridge.run.composing import quoted

    return [quoted(one) for one in overrides]


def _several(file: Path | None, overrides: list[str], cfg: str | None) -> int:
    training.load()
    from avalanche_branchtune.report import write_report
    from solo_bridge.comparison.experiment import forget_pixels
    from solo_bridge.run import composing
    from solo_bridge.run.launching import launch, launcher_of
    from solo_bridge.run.running import run_of, train_several

    hydras, own = composing.split(overrides)
    hydras += [one for one in own if one.startswith("hardware=slurm")]  # which says the launcher
    each = composing.sweep(own)
    runs = [run_of(one, file) for one in each]
    if cfg is not None:
        for one in runs:
            print("---")
            _print(one.config)
        return 0
    if any(one.config["hardware"]["processes"] > 1 for one in runs):
        raise ConfigError(
            "hardware.processes: the runs of a sweep have a process each; several for one run "
            "without --multirun"
        )
    launcher = launcher_of(hydras)
    print(f"{len(runs)} runs, {sum(one.finished() for one in runs)} of them finished before")
    if launcher == "basic":
        hardware = runs[0].config["hardware"]
        jobs = training.jobs(hardware["jobs"], hardware["device"], hardware["threads"])
        failed = train_several(
            runs, jobs, lambda record: print(f"{record.name}, seed {record.seed}: finished")
        )
    else:
        failed = launch(runs, hydras)
    for out in dict.fromkeys(one.out for one in runs):
        forget_pixels(out)
    finished = [one for one in runs if one.finished()]
    for why in failed:
        print(f"{why} failed: {failed[why]}", file=sys.stderr)
    if finished:
        _show(finished)
        for out in dict.fromkeys(one.out for one in finished):
            print(write_report([one.folder for one in finished if one.out == out], out))
    return 1 if len(finished) < len(runs) else 0


def _in_processes(one: Any, processes: int) -> int:
    """Start a job of several processes for a run; it takes this process's place."""
    if not hasattr(os, "execv"):
        raise BranchTuneError("hardware.processes: start torchrun -m branchtune run … yourself")
    one.check()
    one.begin()
    from torch.distributed.run import get_args_parser

    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    if SIGNALS in get_args_parser().format_help():  # of newer versions
        launcher.append(f"{SIGNALS}=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2")
    words = [sys.executable, *launcher, "-m", "branchtune", "run", str(one.folder / "config.yaml")]
    sys.stdout.flush()
    os.execv(sys.executable, words)


def _print(content: Any) -> None:
    import yaml

    print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), end="")


def _show(runs: list[Any]) -> None:
    from avalanche_branchtune.report import group_runs, text_table

    for out in dict.fromkeys(one.out for one in runs):
        print(f"\n{text_table(group_runs([one.folder for one in runs if one.out == out]))}\n")
        print(f"branchtune report {out}")
