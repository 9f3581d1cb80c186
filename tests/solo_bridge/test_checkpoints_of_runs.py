"""Runs that are interrupted anywhere end as if they never were, bit by bit."""

from __future__ import annotations

import gc
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.checkpoints import files as files_module
from avalanche_branchtune.errors import CheckpointError
from avalanche_branchtune.evaluation import KNNProbe, StreamProbe
from avalanche_branchtune.metrics import LabelledImages, OnlineProbe, RunRecorder, run_metrics
from avalanche_branchtune.streams import online
from solo_bridge import SelfSupervised, specification
from solo_bridge.titles import TITLES
from tests.interruptions import full_disk
from tests.selfsupervised import ALL_METHODS, method, small_options, stream, weights


@pytest.fixture(autouse=True)
def sigint_is_heard() -> Iterator[None]:
    """A shell lets what it runs in the background ignore SIGINT, and so does the plugin then."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Killed(BaseException):
    """The process is no more: nothing is saved because of it."""


class At(SupervisedPlugin):
    """Lets something happen after some step's update, before the step has ended."""

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        happen = WHAT.get(strategy.clock.train_iterations)
        if happen is not None:
            happen()


LOADING: dict[str, Any] = {}
"""Arguments of the data loader."""

WHAT: dict[int, Callable[[], None]] = {}
"""By step; not in the plugin, whose state a checkpoint puts back."""


def kill() -> None:
    raise Killed


def ask(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


TRAINING: dict[str, Any] = {}
"""Further arguments of the strategy."""

MORE: list[Callable[[Any], SupervisedPlugin]] = []
"""From the benchmark to further plugins."""


def run(spec: str, name: str, folder: Path, *, resume: bool, **settings: Any) -> Any:
    """Do what a script does: make everything anew, train and evaluate."""
    recorder = RunRecorder(folder / "record", "run", seed=0, resume=resume)
    torch.manual_seed(0)
    benchmark = stream(5)
    made = specification.build(
        spec,
        method(name),
        options=small_options(spec),
        plugins=[
            *(make(benchmark) for make in MORE),
            At(),
            Checkpoints(folder / "state", resume=resume, **settings),
        ],
        optimizer="sgd",
        lr=0.05,
        train_mb_size=5,
        train_epochs=2,
        evaluator=EvaluationPlugin(
            loss_metrics(epoch=True, experience=True),
            *run_metrics([StreamProbe(KNNProbe(), benchmark.train_stream, benchmark.test_stream)]),
            loggers=[recorder],
        ),
        **TRAINING,
    )
    torch.manual_seed(1)
    results: list[Any] = []
    for experience in benchmark.train_stream[:3]:
        made.train(experience, **LOADING)
        found = made.eval(benchmark.test_stream[:1])
        results.append({name: value for name, value in found.items() if not cost(name)})
    return weights(made.model), results, values(folder / "record")


def cost(text: str) -> bool:
    """What another run of the same would have otherwise: times and memory."""
    return "Seconds" in text or "Peak_MiB" in text


def values(folder: Path) -> Any:
    """The record without times."""
    lines = (folder / "metrics.csv").read_text().splitlines()
    return [line.split(",", 1)[1] for line in lines if not cost(line)]


def interrupted(
    spec: str, name: str, folder: Path, what: dict[int, Callable[[], None]], **settings: Any
) -> Any:
    """Run until the end, going on after each interruption."""
    WHAT.clear()
    found, resume = None, False
    for step in [*sorted(what), None]:
        WHAT.clear()
        if step is not None:
            WHAT[step] = what[step]
        try:
            found = run(spec, name, folder, resume=resume, **settings)
            assert step is None, f"not interrupted at step {step}"
        except Killed:
            pass
        except SystemExit as error:
            assert error.code in (130, 143, 75)
        if LOADING:
            gc.collect()  # its workers end, as with a process: later ones would inherit the loader
        resume = True
    return found


def check(spec: str, name: str, tmp_path: Path, what: Any, **settings: Any) -> None:
    WHAT.clear()
    expected = run(spec, name, tmp_path / "whole", resume=False, **settings)
    found = interrupted(spec, name, tmp_path / "parts", what, **settings)
    assert torch.equal(found[0], expected[0])
    assert str(found[1]) == str(expected[1]), "NaN where a loss is defined in training only"
    assert found[2] == expected[2], "no line is there twice, and none is missing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "name"), [("branch_tuning+cassle", "simclr"), ("kaizen+replay", "byol")]
)
def test_killed_and_asked_to_end(spec: str, name: str, tmp_path: Path) -> None:
    what = {2: kill, 11: ask(signal.SIGTERM), 19: kill}
    check(spec, name, tmp_path, what, every_epochs=1)


def test_a_schedule_longer_than_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made anew for the epochs that are left, it would be another, or refused."""
    warmup = {"warmup_epochs": 2, "warmup_start_lr": 0.001}
    monkeypatch.setitem(TRAINING, "optimizer_settings", warmup)
    check("branch_tuning", "simclr", tmp_path, {6: ask(signal.SIGTERM), 13: kill}, every_epochs=1)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("branch_tuning", "byol"),
        pytest.param("branch_tuning+cassle+replay", "simclr", marks=pytest.mark.slow),
    ],
)
def test_an_optimizer_that_lasts_for_the_stream(
    spec: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State, schedule and momentum network go on within an experience and after one."""
    monkeypatch.setitem(TRAINING, "optimizer_per", "stream")
    check(spec, name, tmp_path, {6: ask(signal.SIGTERM), 13: kill, 19: ask(signal.SIGTERM)})


@pytest.mark.slow
@pytest.mark.parametrize("boundaries", [True, False])
def test_an_online_stream(
    boundaries: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stream(2)
    parts = online(whole, 25, boundaries=boundaries)
    monkeypatch.setattr(f"{__name__}.stream", lambda n_experiences: parts)
    monkeypatch.setitem(TRAINING, "optimizer_per", "stream")
    what = {6: ask(signal.SIGTERM), 13: kill, 24: ask(signal.SIGTERM)}
    check("branch_tuning+cassle", "byol", tmp_path, what)


@pytest.mark.slow
def test_branches_at_a_rate_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their groups are there again within the experience, and follow their kernels' schedule."""

    def branches(benchmark: Any) -> BranchTuningPlugin:
        return BranchTuningPlugin(verbose=False, lr_factor=4.0)

    monkeypatch.setattr("tests.solo_bridge.test_checkpoints_of_runs.MORE", [branches])
    what = {10: ask(signal.SIGTERM), 13: kill}
    check("fine_tuning", "simclr", tmp_path, what, every_epochs=1)


def test_the_default_logger_has_a_progress_bar(tmp_path: Path) -> None:
    """It is shown while a run is saved within an epoch."""

    def trained(folder: Path) -> torch.Tensor:
        model = method()
        plugins = [At(), Checkpoints(folder, resume=True)]
        made = SelfSupervised(
            model, optimizer="sgd", train_mb_size=5, train_epochs=2, plugins=plugins
        )
        made.train(stream(5).train_stream[0])
        return weights(model)

    WHAT.clear()
    whole = trained(tmp_path / "whole")
    WHAT[6] = ask(signal.SIGTERM)
    with pytest.raises(SystemExit):
        trained(tmp_path / "parts")
    assert list((tmp_path / "parts").glob("midway-*"))
    WHAT.clear()
    gc.collect()
    assert torch.equal(trained(tmp_path / "parts"), whole)


def test_streams_that_are_judged_by_are_not_written(tmp_path: Path) -> None:
    WHAT.clear()
    WHAT[1] = ask(signal.SIGTERM)
    with pytest.raises(SystemExit):
        run("fine_tuning", "simclr", tmp_path, resume=False)
    other = tmp_path / "state" / "my-model-1.pt"
    other.write_bytes(b"mine")
    sizes = [f.stat().st_size for f in (tmp_path / "state").glob("*.pt") if f != other]
    assert len(sizes) == 2 and max(sizes) < 200_000, "the test images alone have 19,200 pixels"
    WHAT.clear()
    run("fine_tuning", "simclr", tmp_path, resume=True)
    assert other.exists(), "what is not its own stays"


@pytest.mark.parametrize("how", [{}, {"batch_size": "epoch", "experiences": "seen"}])
def test_labelled_images_beside_the_data(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(benchmark: Any) -> OnlineProbe:
        return OnlineProbe(10, labelled=LabelledImages(benchmark.train_stream, **how))

    monkeypatch.setattr("tests.solo_bridge.test_checkpoints_of_runs.MORE", [probe])
    what = {1: ask(signal.SIGTERM), 7: kill, 13: ask(signal.SIGTERM)}
    check("branch_tuning", "byol", tmp_path, what, every_epochs=1)


def test_what_can_only_be_saved_between_calls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    benchmark = stream(5)
    labelled = LabelledImages(benchmark.train_stream)
    made = specification.build(
        "fine_tuning",
        method("simclr"),
        plugins=[OnlineProbe(10, labelled=labelled), Checkpoints(tmp_path, every_epochs=1)],
        optimizer="sgd",
        train_mb_size=5,
        train_epochs=2,
        reproducible_views=False,
        evaluator=None,
    )
    made.train(benchmark.train_stream[0])
    warned = [r.getMessage() for r in caplog.records if "within calls" in r.getMessage()]
    assert len(warned) == 1 and "OnlineProbe._minibatches" in warned[0]
    assert not list(tmp_path.glob("midway-*")) and len(list(tmp_path.glob("state-*"))) == 2


SPECS = [spec for spec in TITLES if spec != "kaizen_paper"]  # whose network is too large


@pytest.mark.parametrize(
    ("spec", "name"),
    [*((spec, "simclr") for spec in SPECS), *(("fine_tuning", name) for name in ALL_METHODS)],
)
def test_everything_can_be_saved(spec: str, name: str, tmp_path: Path) -> None:
    made = specification.build(
        spec,
        method(name),
        options=small_options(spec),
        plugins=[Checkpoints(tmp_path)],
        optimizer="sgd",
        train_mb_size=20,
        train_epochs=1,
        evaluator=None,
    )
    benchmark = stream(5)
    made.train(benchmark.train_stream if spec == "joint" else benchmark.train_stream[0])
    assert len(list(tmp_path.glob("state-000001-*.pt"))) == 1


EVERY = [
    *((spec, "simclr") for spec in SPECS if spec not in ("joint", "frozen", "fixed_norms")),
    *(("fixed_norms", n) for n in ("simclr", "byol")),
    *(
        ("fine_tuning", n)
        for n in ("swav", "mocov2plus", "dino", "deepclusterv2", "nnclr", "simsiam")
    ),
    *(("branch_tuning", n) for n in ("byol", "swav", "vicreg", "barlow_twins")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "name"), EVERY)
def test_every_plugin_and_memory(spec: str, name: str, tmp_path: Path) -> None:
    what = {3: ask(signal.SIGTERM), 9: kill, 14: ask(signal.SIGINT), 21: ask(signal.SIGUSR1)}
    check(spec, name, tmp_path, what, every_epochs=1)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75), (signal.SIGUSR2, 75)],
)
def test_exit_status(number: signal.Signals, status: int, tmp_path: Path) -> None:
    WHAT.clear()
    WHAT[1] = ask(number)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as exit_:
        run("fine_tuning", "simclr", tmp_path, resume=False)
    assert exit_.value.code == status
    assert signal.getsignal(number) is before
    assert list((tmp_path / "state").glob("midway-*.pt"))


def test_a_run_that_is_there_is_refused(tmp_path: Path) -> None:
    WHAT.clear()
    WHAT[1] = kill
    with pytest.raises(Killed):
        run("fine_tuning", "simclr", tmp_path, resume=False)
    with pytest.raises(CheckpointError, match=r"pass resume=True to go on with it, or choose"):
        Checkpoints(tmp_path / "state")


def test_another_script_is_refused(tmp_path: Path) -> None:
    WHAT.clear()
    WHAT[9] = kill
    with pytest.raises(Killed):
        run("fine_tuning", "simclr", tmp_path, resume=False)
    WHAT.clear()
    again = specification.build(
        "fine_tuning",
        method("simclr"),
        plugins=[Checkpoints(tmp_path / "state", resume=True)],
        optimizer="sgd",
        evaluator=None,
    )
    experiences = stream(5).train_stream
    with pytest.raises(
        CheckpointError,
        match=r"call 1 of the run was train of \[0\] with \[20\] samples, now it is",
    ):
        again.train(experiences[1])
    again.train(experiences[0])
    with pytest.raises(CheckpointError, match=r"is of a strategy with the plugins .*At"):
        again.eval(stream(5).test_stream[:1])


def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    WHAT.clear()
    expected = run("branch_tuning", "simclr", tmp_path / "whole", resume=False)
    WHAT[20] = kill
    with pytest.raises(Killed):
        run("branch_tuning", "simclr", tmp_path / "parts", resume=False)
    newest = max((tmp_path / "parts" / "state").glob("state-*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    WHAT.clear()
    found = run("branch_tuning", "simclr", tmp_path / "parts", resume=True)
    assert "was changed or cut off" in caplog.text
    assert torch.equal(found[0], expected[0]) and found[2] == expected[2]
    for file in (tmp_path / "parts" / "state").glob("state-*.pt"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of 2 checkpoints is good"):
        run("branch_tuning", "simclr", tmp_path / "parts", resume=True)


def test_a_full_disk_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    WHAT.clear()
    expected = run("branch_tuning", "simclr", tmp_path / "whole", resume=False)
    write, files = files_module.write_whole, []

    def full(path: Path, put: Any) -> str:
        files.append(path)
        with full_disk(100) if 6 < len(files) < 13 else nullcontext():
            return write(path, put)

    monkeypatch.setattr(files_module, "write_whole", full)
    WHAT[22] = kill
    with pytest.raises(Killed):
        run("branch_tuning", "simclr", tmp_path / "parts", resume=False)
    warned = [r.getMessage() for r in caplog.records if "could be saved" in r.getMessage()]
    assert len(warned) == 1 and "File too large" in warned[0]
    assert re.search(r"parts/state: .*it has \d+ bytes, and \d+ are free", warned[0])
    WHAT.clear()
    found = run("branch_tuning", "simclr", tmp_path / "parts", resume=True)
    assert torch.equal(found[0], expected[0]) and found[2] == expected[2]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", [{}, {"persistent_workers": True}, {"reproducible_views": False}])
def test_workers(
    workers: int, how: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOADING, "num_workers", workers)
    monkeypatch.setitem(LOADING, "persistent_workers", how.get("persistent_workers", False))
    monkeypatch.setitem(TRAINING, "reproducible_views", how.get("reproducible_views"))
    what = {2: ask(signal.SIGTERM), 6: ask(signal.SIGTERM), 14: ask(signal.SIGTERM)}
    check("branch_tuning+replay", "simclr", tmp_path, what)


@pytest.mark.slow
def test_persistent_workers_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(LOADING, "num_workers", 2)
    monkeypatch.setitem(LOADING, "persistent_workers", True)
    monkeypatch.setitem(TRAINING, "reproducible_views", False)
    interrupted("branch_tuning", "simclr", tmp_path, {2: ask(signal.SIGTERM)})
    assert "persistent workers" not in caplog.text
    interrupted("branch_tuning", "simclr", tmp_path / "b", {6: ask(signal.SIGTERM)})
    assert "what persistent workers" in caplog.text


def test_a_keyword_is_short_for_the_plugin(tmp_path: Path) -> None:
    def train(given: Any) -> SelfSupervised:
        made = SelfSupervised(
            method("simclr"),
            checkpoints=given,
            train_mb_size=5,
            optimizer="sgd",
            evaluator=None,
        )
        made.train(stream(5).train_stream[0])
        return made

    first = train(tmp_path)
    with pytest.raises(CheckpointError, match="holds a run already: pass resume=True"):
        train(str(tmp_path))
    again = train(Checkpoints(tmp_path, resume=True))
    assert again.clock.train_iterations == first.clock.train_iterations > 0
    assert torch.equal(weights(again.model), weights(first.model))


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    WHAT.clear()
    WHAT[1] = ask(signal.SIGINT)
    run("fine_tuning", "simclr", tmp_path, resume=False)


def test_joint_training_goes_on_in_the_middle(tmp_path: Path) -> None:
    def joint(folder: Path, *, resume: bool) -> torch.Tensor:
        torch.manual_seed(0)
        made = specification.build(
            "joint",
            method("simclr"),
            plugins=[At(), Checkpoints(folder, resume=resume)],
            optimizer="sgd",
            train_mb_size=25,
            train_epochs=2,
            evaluator=None,
        )
        torch.manual_seed(1)
        made.train(stream(5).train_stream)
        return weights(made.model)

    WHAT.clear()
    expected = joint(tmp_path / "whole", resume=False)
    WHAT[5] = ask(signal.SIGTERM)
    with pytest.raises(SystemExit):
        joint(tmp_path / "parts", resume=False)
    assert list((tmp_path / "parts").glob("midway-*.pt"))
    WHAT.clear()
    assert torch.equal(joint(tmp_path / "parts", resume=True), expected)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("branch_tuning+replay", "byol"),
        pytest.param("der", "simclr", marks=pytest.mark.slow),
        pytest.param("lump", "simclr", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kept", [None, pytest.param(False, marks=pytest.mark.slow)])
def test_batched_views_go_on_in_mid_epoch(
    spec: str, name: str, kept: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRAINING, "views", "batched")
    monkeypatch.setitem(TRAINING, "in_memory", kept)
    if spec != "lump":  # a probe that makes views of images of its own
        monkeypatch.setattr(f"{__name__}.MORE", [labelled_probe])
    check(spec, name, tmp_path, {3: ask(signal.SIGTERM), 12: ask(signal.SIGTERM)})


def labelled_probe(benchmark: Any) -> SupervisedPlugin:
    return OnlineProbe(10, labelled=LabelledImages(benchmark.train_stream, experiences="seen"))
