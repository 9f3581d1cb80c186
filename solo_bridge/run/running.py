"""Runs of configurations: one here, or several side by side."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints.files import INDEX
from avalanche_branchtune.errors import ConfigError, RecordError
from avalanche_branchtune.records.run import RECORD
from avalanche_branchtune.writing import write_text
from solo_bridge.apart import Stopped, stopped_by
from solo_bridge.comparison.asked import Asked, asked
from solo_bridge.comparison.configured import Configured
from solo_bridge.comparison.works import Work, run_works
from solo_bridge.registry import import_file
from solo_bridge.run.completing import completed, experiment, folder
from solo_bridge.run.composing import CONFIG, composed


@dataclass(frozen=True)
class Run:
    """A complete configuration and what it trains.

    :param config: see :func:`~solo_bridge.run.completing.completed`.
    :param experiment: what it trains on.
    :param out: folder of the runs that are compared with it.
    """

    config: dict[str, Any]
    experiment: Configured
    out: Path

    @property
    def spec(self) -> str:
        """Of the strategy."""
        return str(self.config["strategy"])

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.experiment.folder(self.spec, self.out)

    @property
    def work(self) -> Work:
        """For the processes of several."""
        return Work(str(self.folder), self.experiment, self.spec, self.out)

    def asked(self) -> Asked:
        """Return what it is asked for."""
        return Asked.of(
            vars(self.experiment),
            self.spec,
            imports=self.config["imports"],
            separate=False,
            threads=self.config["hardware"]["threads"],
        )

    def check(self) -> None:
        """Refuse what cannot work, before anything is trained.

        :raises BranchTuneError: for what is not there, and for numbers that cannot be.
        """
        self.experiment.check([self.spec])

    def on_a_cpu(self) -> Run:
        """Return the same where there may be no GPU, to be checked."""
        return replace(self, experiment=replace(self.experiment, device="cpu"))

    def _known(self) -> Asked | None:
        """Return what was asked for; None if nothing was trained, as by a job that never began."""
        known = self.experiment.known(self.spec, self.out)
        begun = any((self.folder / name).exists() for name in (RECORD, INDEX))
        return known if begun or (known is not None and known.finished) else None

    def finished(self) -> bool:
        """Tell whether it is trained and measured.

        :raises RecordError: for a folder that is of another run.
        """
        known = self._known()
        if known is None:
            return False
        known.check_same_run(self.asked(), self.folder)
        return self.experiment.finished(self.spec, self.out)

    def begin(self) -> None:
        """Write what is asked for to its folder, or see that it is what was asked for.

        :raises RecordError: for a folder that is of another run.
        """
        known = self._known()
        if known is not None:
            known.check_same_run(self.asked(), self.folder)
        else:
            self.asked().save(self.folder)
        text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
        write_text(self.folder / CONFIG, text)


def run_of(overrides: Sequence[str], file: Path | None = None) -> Run:
    """Return the run that a configuration asks for; nothing is written.

    :param overrides: see :func:`~solo_bridge.run.composing.composed`.
    :param file: see there; one in the folder of a run is of that run, wherever it lies, unless it
        is overridden.
    :raises BranchTuneError: for what cannot be.
    """
    config = composed(overrides, file)
    imports = config.get("imports")
    for path in imports if isinstance(imports, list) else []:
        import_file(path)
    config = completed(config)
    here = (
        None if file is None or overrides or file.name != CONFIG else asked(file.resolve().parent)
    )
    made = experiment(config, None if here is None else here.settings.get("weights"))
    if file is None or here is None:
        return Run(config, made, folder(config))
    own = file.resolve().parent
    run = Run(config, made, own.parent)
    if run.folder != own:
        raise RecordError(
            f"{file} is not of this run, which would be {run.folder.name}: give it back its seed, "
            f"strategy and options, or copy it elsewhere"
        )
    return run


def train(run: Run) -> None:
    """Train one run in this process, or in all of a job's, or go on with it.

    :param run: see :func:`run_of`.
    :raises BranchTuneError: for what cannot be.
    :raises Stopped: if it was asked to end, and has saved.
    """
    warnings.filterwarnings("ignore")  # Avalanche's and Lightning's, about their own insides
    hardware = run.config["hardware"]
    torch.set_num_threads(hardware["threads"])
    run.experiment.join()
    ranks.of_first(lambda: _ready(run))
    try:
        run.experiment.run(
            run.spec,
            run.out,
            checkpoint_minutes=hardware["checkpoint_minutes"],
            keep_checkpoints=hardware["keep_checkpoints"],
        )
    except KeyboardInterrupt as error:
        raise _resumable(error, run.folder) from None
    except SystemExit as error:
        stopped = stopped_by(error.code)
        raise error if stopped is None else _resumable(stopped, run.folder) from None


def _ready(run: Run) -> None:
    run.check()
    run.begin()
    weights = run.config["weights"]
    print(run.folder, *([] if weights is None else [f"with weights of {weights}"]), file=sys.stderr)


def _resumable(error: KeyboardInterrupt, what: Path) -> KeyboardInterrupt:
    again = f"go on with: branchtune resume {shlex.quote(str(what))}"
    error.args = (f"{str(error) or 'interrupted'}; {again}",)
    return error


def train_several(runs: Sequence[Run], jobs: int, done: Any) -> dict[str, str]:
    """Train what is not finished, each run in a process of its own, several at a time.

    :param runs: that are different; their hardware is the first one's.
    :param jobs: how many at a time, at most.
    :param done: called with each record that is finished.
    :return: folder → why, of the runs that failed.
    :raises BranchTuneError: before anything is trained, for what cannot be.
    """
    checked(runs)
    hardware = runs[0].config["hardware"]
    torch.set_num_threads(hardware["threads"])
    left = sorted((run for run in runs if not run.finished()), key=lambda run: run.spec != "joint")
    how = {name: hardware[name] for name in ("checkpoint_minutes", "keep_checkpoints")}
    imports = list(dict.fromkeys(file for run in runs for file in run.config["imports"]))
    try:
        works = [run.work for run in left]
        run_works(works, jobs, imports, {**how, "bar": False}, done, keep_failures=True)
    except Stopped as error:
        count = sum(run.finished() for run in runs)
        error.args = (
            f"{error}; {count} of {len(runs)} runs finished, the others go on where "
            "they are when it is started again",
        )
        raise
    return {str(run.folder): why for run in left if (why := run.work.failure()) is not None}


def checked(runs: Sequence[Run], *, here: bool = True) -> None:
    """Refuse what cannot work in any of several runs, then write what each is asked for.

    :param runs: of a sweep.
    :param here: whether they are trained on this machine, and not where a launcher's jobs run.
    :raises ConfigError: for two that would be in one folder.
    :raises BranchTuneError: for what cannot be.
    """
    folders = [run.folder.resolve() for run in runs]
    twice = [path for path in folders if folders.count(path) > 1]
    if twice:
        raise ConfigError(
            f"{twice[0]}: two runs of the sweep would be in this folder: leave out name=…, or what "
            "is given twice"
        )
    alike = set()
    for run in runs:
        same = (run.out, run.spec, run.experiment.variant)  # all but their seeds
        if same not in alike and not run.finished():
            (run if here else run.on_a_cpu()).check()
        alike.add(same)
    for run in runs:
        run.begin()
