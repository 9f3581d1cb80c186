"""Several processes that train one model: the same as one process, but for rounding.

A process takes seconds to begin: what two of them do is done by one job, once, and looked at by
many tests.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.logging import TextLogger
from avalanche.training.plugins import EarlyStoppingPlugin, EvaluationPlugin
from torch import nn
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from avalanche_branchtune import BranchTuningPlugin, ranks
from avalanche_branchtune.errors import BranchTuneError, NonFiniteLossError
from avalanche_branchtune.evaluation.features import loader_of
from avalanche_branchtune.metrics import LabelledImages, OnlineProbe
from solo_bridge import Processes, SelfSupervised
from solo_bridge.plugins import DERPlugin, KaizenPlugin, LUMPPlugin, replay
from solo_bridge.titles import TITLES
from tests.jobs import in_job
from tests.selfsupervised import ALL_METHODS, Bare, backbone, data, method, stream
from tests.selfsupervised import strategy as small_strategy
from tests.shared_runs import (
    Run,
    Weights,
    all_trained,
    assert_equal_ranks,
    farthest,
    precision_of,
    strategy_of,
    trained,
)

DOUBLE = 1e-10  # of weights in double precision, whose rounding is 1e-16
SINGLE = 1e-3

SCENARIOS: dict[str, Callable[[], Any]] = {}


def scenario(work: Callable[[], Any]) -> Callable[[], Any]:
    """Have a function called in two processes, together with all others."""
    SCENARIOS[work.__name__] = work
    return work


def all_scenarios() -> dict[str, Any]:
    ranks.join(torch.device("cpu"), minutes=1)
    return {name: work() for name, work in SCENARIOS.items()}


InTwo = Callable[[str], list[Any]]


@pytest.fixture(scope="module")
def in_two() -> InTwo:
    """Return what a scenario gave, by rank."""
    by_rank = in_job(2, all_scenarios)
    return lambda name: [found[name] for found in by_rank]


def first_experience(samples: int = 80) -> Any:
    return next(iter(stream(2, data(samples)).train_stream))


def weights_of(strategy: SelfSupervised) -> list[Weights]:
    return [{n: w.clone() for n, w in strategy.model.state_dict().items()}]


def refused(work: Callable[[], Any]) -> str:
    """Return why something was refused."""
    try:
        work()
    except BranchTuneError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


# ---- weights after each experience

IN_TWO = [
    Run("simclr", "branch_tuning+cassle"),
    Run("byol", "kaizen+replay", {"on_bad_image": "skip"}),
    Run("simclr", "der+ewc"),
]


@scenario
def runs() -> list[list[Weights]]:
    return all_trained(IN_TWO)


@pytest.mark.parametrize("number", range(len(IN_TWO)))
def test_two_processes_are_one(number: int, in_two: InTwo) -> None:
    by_rank = [found[number] for found in in_two("runs")]
    assert_equal_ranks(by_rank)
    far, where = farthest(trained(IN_TWO[number]), by_rank[0])
    assert far < DOUBLE, where


EVERY = [Run("simclr", name) for name in TITLES if name != "kaizen_paper"]  # of large networks
EVERY += [Run("simclr", f"branch_tuning+{n}") for n in ("cassle", "kaizen+replay", "lump", "der")]
EVERY += [Run(name, settings={"lr": 0.2}) for name in ALL_METHODS]
EVERY += [Run(name, "branch_tuning+cassle") for name in ("barlow_twins", "byol", "swav")]


def in_single(run: Run) -> Run:
    """Its buffer looks at images in single precision."""
    return replace(run, double="replay_min_redundancy" not in run.spec)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_every_method_and_strategy(size: int) -> None:
    every = [in_single(run) for run in EVERY]
    alone, by_rank = all_trained(every), in_job(size, all_trained, every)
    far: dict[str, float] = {}
    for number, run in enumerate(every):
        assert_equal_ranks([found[number] for found in by_rank])
        largest, where = farthest(alone[number], by_rank[0][number])
        far[f"{run.method} {run.spec}: {where}"] = largest / (DOUBLE if run.double else SINGLE)
    assert {name: value for name, value in far.items() if not value < 1} == {}


# ---- ways to feed and to compute


class AsksAgain(SupervisedPlugin, supports_distributed=True):
    """Adds the method's loss once more, where minibatches are shares already."""

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.loss = strategy.loss + 0.5 * strategy.loss_of(strategy.minibatch)


def ways() -> dict[str, Run]:
    """Other ways to run, of which those that say so are as near as rounding in their precision."""
    batched = {"views": "batched", "in_memory": True}
    small = {"train_mb_size": 4}  # an incomplete minibatch is dropped
    return {
        "batched": Run("simclr", "fine_tuning", batched, double=False),
        "batched, loaded": Run(
            "simclr", "lump", {"views": "batched", "in_memory": False}, double=False
        ),
        "lump before": Run(
            "byol", "fine_tuning", {"plugins": [LUMPPlugin(memory=20, views=BEFORE)]}
        ),
        "channels last": Run("simclr", "branch_tuning", {"channels_last": True}),
        "bf16": Run("simclr", "cassle", {"precision": "bf16"}, double=False),
        "minibatches of 4": Run("vicreg", "fine_tuning", small, samples=42),
        "local": Run("simclr", "fine_tuning", {"processes": Processes(norms="local")}),
        "der, any size": Run("simclr", "fine_tuning", {"plugins": [DERPlugin(20, batch_size=5)]}),
        "a loss of a plugin": Run("byol", "cassle", {"plugins": [AsksAgain()]}),
        "negatives of a plugin": Run("simclr", "fine_tuning", {"plugins": [AsksAgain()]}),
        "der of embeddings": Run(
            "simclr", "fine_tuning", {"plugins": [DERPlugin(20, output="embeddings")]}
        ),
    }


BEFORE = "before_augmentation"


@scenario
def other_ways() -> dict[str, list[Weights]]:
    return {name: trained(run) for name, run in ways().items()}


@pytest.mark.parametrize("name", ways())
def test_other_ways(name: str, in_two: InTwo) -> None:
    run = ways()[name]
    by_rank = [found[name] for found in in_two("other_ways")]
    assert_equal_ranks(by_rank)
    far, where = farthest(trained(run), by_rank[0])
    if name == "local":
        assert far > 1e-4, "another training"
    elif name == "bf16":
        assert far < 0.2, where
    else:
        assert far < (DOUBLE if run.double else SINGLE), where


@scenario
def with_workers() -> list[list[Weights]]:
    found = []
    for workers in (0, 2):
        strategy = strategy_of(Run(double=False))
        strategy.train(first_experience(), num_workers=workers)
        found.append(weights_of(strategy))
    return found


def test_workers_change_nothing(in_two: InTwo) -> None:
    (none, two), other = in_two("with_workers")
    assert_equal_ranks([none, two, *other])


def test_workers_never_begin_without_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of the process group may hold what a forked process then waits for."""
    events: list[str] = []
    begin = _MultiProcessingDataLoaderIter.__init__

    def begun(self: Any, loader: Any) -> None:
        events.append("workers")
        begin(self, loader)

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__init__", begun)
    monkeypatch.setattr(ranks, "rest", lambda workers: events.extend(["rest"][:workers]))
    labelled = LabelledImages([data(40)], num_workers=1)
    for seeded in (True, False):
        for spec in ("replay", "fine_tuning"):
            probe = OnlineProbe(10, labelled=labelled)
            run = Run("simclr", spec, {"reproducible_views": seeded, "views": "batched"}, False)
            strategy = strategy_of(run, probe)
            for experience in stream(2, data(40)).train_stream:
                strategy.train(experience, num_workers=1)
        strategy.eval(first_experience(40), num_workers=1)
    loader_of(data(20), 5, num_workers=1).__iter__()
    assert events.count("workers") > 6
    before = [event for event, after in pairwise(events) if after == "workers"]
    assert events[0] == "rest" and set(before) == {"rest"}


@scenario
def partly_labelled() -> list[Weights]:
    few = data(80)
    few.targets = [label if i % 7 == 0 else -1 for i, label in enumerate(few.targets)]
    halves = [as_classification_dataset(few.subset(half)) for half in (range(40), range(40, 80))]
    run, found = Run("simclr", "kaizen"), []
    with precision_of(run):
        strategy = strategy_of(run)
        kaizen = next(p for p in strategy.plugins if isinstance(p, KaizenPlugin))
        for experience in benchmark_from_datasets(train=halves).train_stream:
            strategy.train(experience)
            assert kaizen.classifier is not None
            content = {**strategy.model.state_dict(), **kaizen.classifier.state_dict()}
            found.append({n: w.clone() for n, w in content.items()})
    return found


def test_labels_are_counted_over_the_whole_minibatch(in_two: InTwo) -> None:
    by_rank = in_two("partly_labelled")
    assert_equal_ranks(by_rank)
    far, where = farthest(partly_labelled(), by_rank[0])
    assert far < DOUBLE, where


# ---- online probes


@scenario
def online() -> list[tuple[float | None, Weights]]:
    found = []
    for labelled in (False, True):
        run, experiences = Run(double=labelled), stream(2, data(80)).train_stream
        of_all = LabelledImages(experiences, batch_size="epoch") if labelled else None
        probe = OnlineProbe(10, labelled=of_all)
        with precision_of(run):
            strategy = strategy_of(run, probe)
            for experience in experiences:
                strategy.train(experience)
        assert probe.classifier is not None
        content = {**strategy.model.state_dict(), **probe.classifier.state_dict()}
        found.append((probe.train_accuracy, content))
    return found


def test_online_probes(in_two: InTwo) -> None:
    first, second = in_two("online")
    for one, other, expected in zip(first, second, online(), strict=True):
        assert one[0] == other[0] == expected[0]
        assert_equal_ranks([[one[1]], [other[1]]])
        far, where = farthest([expected[1]], [one[1]])
        assert far < (SINGLE if one is first[0] else DOUBLE), where


# ---- what is refused


class Unknown(SupervisedPlugin):
    """Does not say that it does the same on all ranks."""


class Known(Unknown, supports_distributed=True):
    """Says so."""


@scenario
def refusals() -> dict[str, str]:
    few = first_experience(25)

    def train(*plugins: Any, **settings: Any) -> Callable[[], Any]:
        samples = settings.pop("samples", None)
        experience = first_experience() if samples is None else first_experience(samples)
        return lambda: small_strategy(plugins=plugins, **settings).train(experience)

    assert len(few.dataset) == 13
    known = {
        "size": train(train_mb_size=21),
        "compile": train(compile=True),
        "views": train(reproducible_views=False),
        "method": train(model=Bare()),
        "plugin": train(Unknown()),
        "stopping": train(EarlyStoppingPlugin(1, "test_stream")),
        "processes": train(processes="2"),
        "alone": train(processes=False),
        "norms": lambda: Processes(norms="none"),
        "wait": lambda: Processes(wait_minutes=0),
        "few": train(samples=25),
        "labelled": train(OnlineProbe(10, labelled=LabelledImages([few], batch_size=5))),
        "fine": train(Known(), compile=False),
    }
    return {name: refused(work) for name, work in known.items()}


EXPECTED = {
    "size": "BatchSizeError: SelfSupervised(train_mb_size=21): 2 processes cannot share it equally",
    "compile": "UnknownOptionError: SelfSupervised(compile=True) in several processes",
    "views": "UnknownOptionError: SelfSupervised(reproducible_views=False) in several processes",
    "method": "IncompatiblePluginError: Bare in several processes: it has no module called proj",
    "plugin": "IncompatiblePluginError: Unknown in several processes: it does not say",
    "stopping": "IncompatiblePluginError: EarlyStoppingPlugin in several processes",
    "processes": "UnknownOptionError: SelfSupervised(processes='2'): expected Processes(…), True",
    "alone": "UnknownOptionError: SelfSupervised(processes=False): another strategy of this",
    "norms": "UnknownOptionError: Processes(norms=…): expected one of",
    "wait": "UnknownOptionError: Processes(wait_minutes=…)",
    "few": "BatchSizeError: experience 0: 2 processes cannot share a minibatch of 13 samples",
    "labelled": "BatchSizeError: the labelled images: 2 processes cannot share a minibatch of 5",
    "fine": "nothing was refused",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_refusals(name: str, in_two: InTwo) -> None:
    for found in in_two("refusals"):
        assert found[name].startswith(EXPECTED[name]), found[name]


@scenario
def other_scripts() -> dict[str, str]:
    rank = ranks.rank()
    shuffled, inverted = data(80), data(80)
    if rank:
        shuffled.targets = shuffled.targets[::-1]
        inverted.images = 255 - inverted.images

    def train(samples: Any = 80, **settings: Any) -> Callable[[], Any]:
        images = data(samples) if isinstance(samples, int) else samples
        return lambda: small_strategy(**settings).train(next(iter(stream(2, images).train_stream)))

    known = {
        "model": train(model=method(backbone=backbone(8 + 8 * rank))),
        "method": train(model=method(("simclr", "byol")[rank])),
        "lr": train(lr=0.1 + rank),
        "epochs": train(train_epochs=1 + rank),
        "samples": train(samples=80 - 20 * rank),
        "labels": train(samples=shuffled),
        "images": train(samples=inverted),
        "plugin": train(plugins=[Grows()] if rank else []),
        "seed": train(model=method(seed=rank)),
    }
    return {name: refused(work) for name, work in known.items()}


class Grows(SupervisedPlugin, supports_distributed=True):
    """Puts something in the network."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.model.register_buffer("extra", torch.ones(2))


DIFFERS = {
    "model": "the models of the job's 2 processes differ, first in solo.",
    "method": "the models of the job's 2 processes differ, first in ",
    "lr": "settings and data of the job's 2 processes differ, first in lr of group",
    "epochs": "settings and data of the job's 2 processes differ, first in epochs (1, 2)",
    "samples": "settings and data of the job's 2 processes differ, first in samples (",
    "labels": "settings and data of the job's 2 processes differ, first in targets",
    "images": "settings and data of the job's 2 processes differ, first in the first sample",
    "plugin": "the networks and optimizers of the job's 2 processes differ, first in buffer extra",
}


@pytest.mark.parametrize("name", DIFFERS)
def test_other_scripts_are_refused(name: str, in_two: InTwo) -> None:
    for found in in_two("other_scripts"):
        assert found[name].startswith(f"OtherProcessError: {DIFFERS[name]}"), found[name]
        assert found["seed"] == "nothing was refused"


def test_a_process_that_is_to_be_alone_joins_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_alone", False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "of nobody")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ranks.launched()
    small_strategy(processes=False)
    small_strategy()  # would wait for the other process
    assert not ranks.launched() and not ranks.joined()


# ---- ends


class Stop(SupervisedPlugin, supports_distributed=True):
    """Rank 1 alone asks to stop."""

    def __init__(self, event: str, at: int) -> None:
        super().__init__()
        setattr(self, event, self.ask)
        self.at = at

    def ask(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if ranks.rank() == ranks.size() - 1 and strategy.clock.train_iterations >= self.at:
            strategy.stop_training()


EVENTS = {  # after how many steps it asks, and how many all do in all; an epoch has two
    "before_training_epoch": (2, 2),
    "before_training_iteration": (1, 2),
    "after_forward": (1, 2),
    "after_training_iteration": (2, 4),  # the others are told in the step that follows
    "after_training_epoch": (2, 2),
}


@scenario
def stopped() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for event, (at, _) in EVENTS.items():
        strategy = small_strategy(plugins=[Stop(event, at)], train_epochs=4)
        for experience in stream(2, data(80)).train_stream:
            strategy.train(experience)
            found.setdefault(event, []).append(strategy.clock.train_exp_iterations)
        found[f"weights {event}"] = weights_of(strategy)
    return found


@pytest.mark.parametrize("event", EVENTS)
def test_one_rank_stops_all(event: str, in_two: InTwo) -> None:
    first, second = in_two("stopped")
    assert first[event] == second[event]
    assert first[event][0] == EVENTS[event][1]
    assert_equal_ranks([first[f"weights {event}"], second[f"weights {event}"]])


class Broken(SupervisedPlugin, supports_distributed=True):
    """In one step the loss of rank 1's share is NaN."""

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if ranks.rank() == ranks.size() - 1 and strategy.clock.train_iterations == 2:
            strategy.loss = strategy.loss * float("nan")


@scenario
def not_finite() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for policy, every in (("stop", 1), ("skip", 1), ("skip", 3)):
        strategy = small_strategy(
            plugins=[Broken()],
            on_non_finite=policy,
            check_finite_every=every,
            reproducible_views=True,
        )
        try:
            strategy.train(first_experience())
        except NonFiniteLossError as error:
            found["error"] = str(error)
        found[f"{policy} {every}"] = weights_of(strategy), strategy.skipped_steps
    return found


def test_steps_that_are_not_finite_are_left_out_by_all(in_two: InTwo) -> None:
    first, second = in_two("not_finite")
    expected = not_finite()
    assert first["error"] == second["error"] == expected["error"]
    for name in ("stop 1", "skip 1", "skip 3"):
        assert first[name][1] == second[name][1] == expected[name][1]
        assert_equal_ranks([first[name][0], second[name][0]])
        assert farthest(expected[name][0], first[name][0])[0] < SINGLE
    assert (expected["stop 1"][1], expected["skip 1"][1], expected["skip 3"][1]) == (0, 1, 2)


class Failing(SupervisedPlugin, supports_distributed=True):
    """Fails in the middle of a step."""

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        raise BranchTuneError("here")


@scenario
def failed() -> dict[str, Any]:
    model = method("byol")
    why = refused(lambda: small_strategy(model, [Failing()]).train(first_experience()))
    left = {
        name: [kind for kind in ("_forward_hooks", "_forward_pre_hooks") if vars(module)[kind]]
        for name, module in model.named_modules()
    }
    changed = [name for name, module in model.named_modules() if "forward" in vars(module)]
    small_strategy(model).train(first_experience())
    return {"why": why, "left": {n: k for n, k in left.items() if k}, "changed": changed}


def test_a_failing_step_leaves_nothing_in_the_networks(in_two: InTwo) -> None:
    for found in in_two("failed"):
        assert found == {"why": "BranchTuneError: here", "left": {}, "changed": []}


# ---- evaluation, and who prints


class Early(EarlyStoppingPlugin, supports_distributed=True):
    """Avalanche's, which does the same wherever the metrics are the same."""


class Prints(SupervisedPlugin, supports_distributed=True):
    """Counts the evaluations of its process."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluations = 0

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.evaluations += 1


@scenario
def evaluated() -> dict[str, Any]:
    both = stream(2, data(80))
    said, written, counts = io.StringIO(), io.StringIO(), Prints()
    with redirect_stdout(said), ranks.unseen():  # by Avalanche's loggers: they are of rank 0 alone
        strategy = small_strategy(
            plugins=[counts, Early(1, "test_stream", "Loss_Stream", "max"), BranchTuningPlugin()],
            train_epochs=6,
            eval_every=1,
            reproducible_views=True,
            evaluator=EvaluationPlugin(
                loss_metrics(epoch=True, stream=True), loggers=[TextLogger(written)]
            ),
        )
        metrics, steps = [], []
        for experience in both.train_stream:
            metrics.append(strategy.train(experience, eval_streams=[both.test_stream]))
            steps.append(strategy.clock.train_exp_iterations)
        metrics.append(strategy.eval(both.test_stream))
    return {
        "metrics": metrics,
        "steps": steps,
        "printed": len(said.getvalue()),
        "written": len(written.getvalue()),
        "evaluations": counts.evaluations,
        "weights": weights_of(strategy),
        "training": strategy.model.training,
    }


def test_the_first_rank_evaluates_and_prints_for_all(in_two: InTwo) -> None:
    first, second = in_two("evaluated")
    expected = evaluated()
    assert first["printed"] and first["written"] and first["evaluations"]
    assert (second["printed"], second["written"], second["evaluations"]) == (0, 0, 0)
    assert first["steps"] == second["steps"] == expected["steps"]
    assert min(first["steps"]) < 12, "it has stopped early"
    assert_equal_ranks([first["weights"], second["weights"]])
    for one, other, alone in zip(
        first["metrics"], second["metrics"], expected["metrics"], strict=True
    ):
        assert one.keys() == alone.keys()
        assert other == {k: v for k, v in one.items() if k in other} and set(one) == set(other)
        for name, value in alone.items():
            assert one[name] == pytest.approx(value, rel=1e-3), name


# ---- plugins and modes


class Draws(SupervisedPlugin, supports_distributed=True):
    """Draws random numbers in one rank only."""

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        torch.rand(3 * ranks.rank())


@scenario
def drawing() -> list[Weights]:
    return trained(Run("simclr", "branch_tuning+replay", {"plugins": [Draws()]}))


def test_draws_of_one_rank_change_nothing(in_two: InTwo) -> None:
    by_rank = in_two("drawing")
    assert_equal_ranks(by_rank)
    far, where = farthest(trained(Run("simclr", "branch_tuning+replay")), by_rank[0])
    assert far < DOUBLE, where


@scenario
def still() -> list[bool]:
    strategy = small_strategy(plugins=[BranchTuningPlugin(norm_mode="eval", verbose=False)])
    found = []
    for experience in stream(2, data(80)).train_stream:
        before = [m.running_mean.clone() for m in norms_of(strategy)]
        strategy.train(experience)
        found += [
            torch.equal(b, m.running_mean) for b, m in zip(before, norms_of(strategy), strict=True)
        ]
    return found


def norms_of(strategy: SelfSupervised) -> list[nn.BatchNorm2d]:
    return [m for m in strategy.model.modules() if isinstance(m, nn.BatchNorm2d)]


def test_fixed_norms_stay_fixed(in_two: InTwo) -> None:
    assert in_two("still") == [[False, True]] * 2


class Sizes(SupervisedPlugin, supports_distributed=True):
    """Notes how many samples a minibatch has."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.sizes.append(len(strategy.mb_y))


@scenario
def small_buffer() -> tuple[list[str], int]:
    """Of a buffer that is not full: 5 of 4 + 20 samples, which two ranks cannot share."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("solo_bridge.plugins.rehearsal.replay")
    logger.addHandler(handler)
    sizes = Sizes()
    strategy = small_strategy(plugins=[replay("reservoir", size=5, batch_size_mem=8), sizes])
    for experience in stream(2, data(80)).train_stream:
        strategy.train(experience)
    logger.removeHandler(handler)
    return said, sizes.sizes[-1]


def test_a_buffer_that_cannot_be_shared(in_two: InTwo) -> None:
    for said, samples in in_two("small_buffer"):
        assert samples == (20 + 4) / 2
        assert said == [
            "WholeBatchReplay: 4 of the buffer's samples in a minibatch instead of 5, which 2 "
            "processes cannot share equally"
        ]
