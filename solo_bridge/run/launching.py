"""Runs of a sweep as jobs of a launcher of Hydra's, such as submitit's for SLURM."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from avalanche_branchtune.checkpoints.lock import holder
from avalanche_branchtune.checkpoints.sidecar import read_sidecar
from avalanche_branchtune.errors import ConfigError, RecordError
from solo_bridge.run.composing import CONFIG, hydra, refused
from solo_bridge.run.groups import PRIMARY
from solo_bridge.run.running import Run, checked, run_of, train

LAUNCHER = "hydra/launcher"
GPUS = "hydra.launcher.gpus_per_node"
AT_WORK = "another process is at work on it, as branchtune status shows: no job was begun"
START_UP = 90
"""Seconds that a job may need until it listens to SLURM's signal; SLURM may send that 60 early."""


def launcher_of(overrides: Sequence[str]) -> str:
    """Return which launcher of Hydra's is asked for, ``basic`` if none is.

    :param overrides: as they were given.
    """
    return str(_composed(overrides).hydra.runtime.choices.get(LAUNCHER, "basic"))


def launch(runs: Sequence[Run], overrides: Sequence[str]) -> dict[str, str]:
    """Train runs by a launcher of Hydra's, and wait for their end.

    :param runs: of a sweep.
    :param overrides: those of the launcher's own settings, ``hydra/…`` and ``hydra.…``, and groups.
    :return: folder → why, of the runs that failed.
    :raises BranchTuneError: before anything is trained, for what cannot be.
    """
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    asked = _asked(runs, overrides)
    config = _composed(asked)
    _refuse_a_short_limit(config.hydra.launcher)
    checked(runs, here=False)
    with refused():
        from hydra._internal.callbacks import Callbacks

        context = HydraContext(config_loader=hydra().config_loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(context, work, config)
    left = [run for run in runs if not run.finished()]
    failed = {str(run.folder): AT_WORK for run in left if _is_at_work(run)}
    failed |= _launched(launcher, [run for run in left if str(run.folder) not in failed])
    # Once more for those whose plasticity waited for joint training, which is there now.
    waiting = [run for run in runs if run.work.waits() and run.work.has_reference()]
    return {**failed, **_launched(launcher, waiting)}


def work(config: Any) -> None:
    """Train one run in a launcher's job.

    :param config: with the path of the run's configuration.
    """
    run = run_of([], Path(config.file))
    run.work.failed.unlink(missing_ok=True)
    if run.finished():
        return
    try:
        train(run)
    except Exception as error:
        run.work.fail(error)
        raise


def _composed(overrides: Sequence[str]) -> Any:
    from hydra.types import RunMode

    with refused():
        return hydra().compose_config(PRIMARY, list(overrides), RunMode.MULTIRUN, False, False)


def _asked(runs: Sequence[Run], overrides: Sequence[str]) -> list[str]:
    """Return all that the launcher is to be asked for: its jobs compose it anew, from this alone.

    Which launcher it is has to be among it, since ``hydra.launcher.…`` are read before the group
    that chooses it; jobs on a CPU ask for no GPU; and what they print lies beside the runs.
    """
    said = [one.lstrip("+").partition("=")[0] for one in overrides]
    asked, launcher = list(overrides), launcher_of(overrides)
    if LAUNCHER not in said:
        asked.append(f"{LAUNCHER}={launcher}")
    devices = {run.config["hardware"]["device"] for run in runs}
    if launcher == "submitit_slurm" and devices == {"cpu"} and GPUS not in said:
        asked.append(f"{GPUS}=0")
    return [*asked, f"out='{runs[0].config['out']}'"]


def _refuse_a_short_limit(launcher: Any) -> None:
    delay = launcher.get("signal_delay_s")
    if delay is not None and 60 * launcher.timeout_min < delay + START_UP:
        raise ConfigError(
            f"hydra.launcher.timeout_min={launcher.timeout_min}: SLURM asks a job to save "
            f"signal_delay_s={delay} seconds before its limit, or a minute earlier, which would be "
            f"before it has begun: give {-(-(delay + START_UP) // 60)} minutes or more, or a "
            "smaller hydra.launcher.signal_delay_s"
        )


def _is_at_work(run: Run) -> bool:
    held = holder(run.folder)
    return held is not None and held.alive is not False


def _launched(launcher: Any, runs: Sequence[Run]) -> dict[str, str]:
    """Wait for a job for each run; return folder → why, of the runs that it did not finish."""
    files = [[f"+file='{(run.folder / CONFIG).resolve()}'"] for run in runs]
    if not files:
        return {}
    try:
        with _each_waited_for():
            results = launcher.launch(files, initial_job_idx=0)
    except Exception as error:  # no job was begun
        return {str(run.folder): _last_line(error) for run in runs}
    pairs = zip(runs, results, strict=True)
    return {str(run.folder): _why(run, result) for run, result in pairs if not run.finished()}


def _why(run: Run, result: Any) -> str:
    """Return why a run is not finished, by what it said itself, else by what its job gave."""
    log = f" (log: {result.log})" if isinstance(result, _Lost) else ""
    failure = run.work.failure()
    if failure is not None:
        return failure + log
    with contextlib.suppress(RecordError):
        said = read_sidecar(run.folder)
        if said["state"] == "interrupted":
            return f"saved, asked to end by {said['signal']}: give the same command again{log}"
    if isinstance(result, _Lost):
        return f"{result.why}{log}"
    try:
        _ = result.return_value  # raises what the job did
    except Exception as error:
        return _last_line(error)
    return "its job ended without finishing it"


def _last_line(error: BaseException) -> str:
    """Return what an error says: of a traceback, as launchers hand them on, its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -\t")]
    return lines[-1] if lines else type(error).__name__


class _Lost:
    """What stands for the result of a job that gave none.

    :param job: of submitit's.
    :param error: what waiting for it raised; its first line has the job's state.
    """

    def __init__(self, job: Any, error: Exception) -> None:
        self.why = next(iter(str(error).splitlines()), "") or type(error).__name__
        self.log = job.paths.stdout


class _Waited:
    """A job of submitit's, for which Hydra's launcher waits whatever became of those before it.

    :param job: of submitit's.
    """

    def __init__(self, job: Any) -> None:
        self.job = job

    def results(self) -> list[Any]:
        """Wait for its end."""
        try:
            found: list[Any] = self.job.results()
        except Exception as error:  # it failed, or was killed
            return [_Lost(self.job, error)]
        return found


@contextlib.contextmanager
def _each_waited_for() -> Iterator[None]:
    """Let submitit's launcher, if it is one, wait for all of its jobs, and say which they are."""
    try:
        import submitit
    except ImportError:
        yield
        return
    begun: list[Any] = []

    class Executor(submitit.AutoExecutor):
        def map_array(self, *arguments: Any) -> Any:
            begun.extend(super().map_array(*arguments))
            ids = ", ".join(job.job_id for job in begun)
            print(f"jobs {ids}; logs in {begun[0].paths.folder.parent}", flush=True)
            return [_Waited(job) for job in begun]

    try:
        with mock.patch.object(submitit, "AutoExecutor", Executor):
            yield
    except KeyboardInterrupt as error:
        if begun:
            ids = " ".join(dict.fromkeys(job.job_id.partition("_")[0] for job in begun))
            error.args = (
                f"{error}; its jobs go on: scancel {ids} lets them save and end; give the same "
                "command again when they have ended",
            )
        raise
