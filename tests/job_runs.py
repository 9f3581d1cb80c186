"""Small runs of a job's processes, alone or several, that are interrupted and go on.

Under torchrun it is a script: ``torchrun --nproc-per-node=2 -m tests.job_runs FOLDER [WHAT]``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.errors import UnreadableImageError
from avalanche_branchtune.streams import class_incremental
from solo_bridge import EvalTransform, specification
from tests.selfsupervised import data, method, small_options

SPEC = "branch_tuning"

WHAT: dict[Any, Callable[[], None]] = {}
"""What happens on this rank: after a step's update, by the step's number; ``"eval"``: in an
evaluation; ``"write"``: when a checkpoint is written; ``"between"``: between two calls."""


class Watching(SupervisedPlugin, supports_distributed=True):
    """Lets things happen, and says which samples were trained on."""

    needs = frozenset({"index"})

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        whole = sorted(ranks.whole(strategy.minibatch.index).tolist())
        SEEN.append([strategy.clock.train_exp_counter, *whole])
        happen(strategy.clock.train_iterations)

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        happen("eval")


SEEN: list[list[int]] = []
"""Of each step the experience, and the whole minibatch's samples."""


def happen(when: Any) -> None:
    WHAT.pop(when, lambda: None)()


def ask(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


class Quiet(BaseLogger):
    """Says nothing, as no logger at all would be warned of."""


class Bad:
    """Images of which some cannot be read."""

    def __init__(self, images: Any, bad: set[int]) -> None:
        self.images, self.bad, self.targets = images, bad, images.targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        if index in self.bad:
            raise UnreadableImageError(f"image-{index}.png is broken")
        return self.images[index]


def made(folder: Path, bad: set[int] = frozenset(), **settings: Any) -> tuple[Any, Any]:
    """Make the strategy and the stream, as a script does."""
    options = {"spec": SPEC, "resume": True, "every_epochs": None, **settings}
    spec, of_saving = options.pop("spec"), ("resume", "every_epochs", "every_minutes")
    saving = {name: options.pop(name) for name in of_saving if name in options}
    torch.manual_seed(0)
    images = data(100)
    benchmark = class_incremental(
        Bad(images, bad) if bad else images,
        data(20, train=False),
        5,
        eval_transform=EvalTransform(8),
    )
    with ranks.unseen():  # Avalanche lets the first process alone make loggers
        metrics = loss_metrics(epoch=True, experience=True)
        evaluator = EvaluationPlugin(metrics, loggers=[Quiet()])
    strategy = specification.build(
        spec,
        method("simclr"),
        options=small_options(spec),
        plugins=[Watching(), Checkpoints(folder, **saving)],
        optimizer="sgd",
        lr=0.5,
        train_mb_size=4,
        train_epochs=2,
        evaluator=evaluator,
        on_bad_image="skip" if bad else "stop",
        **options,
    )
    return strategy, benchmark


def run(
    folder: Path, *, one_call: bool = False, experiences: int = 2, **settings: Any
) -> dict[str, Any]:
    """Train and evaluate, or go on with it.

    :param folder: of the checkpoints.
    :param one_call: whether all experiences are trained in one call.
    :param experiences: how many.
    :param settings: of the checkpoints and the strategy.
    :return: the samples of each step; exit status if it was asked to end, and whether it had been
        saved in a call then; else weights, what ``eval`` gave, and replaced images.
    """
    SEEN.clear()
    found: dict[str, Any] = {"status": None, "seen": SEEN}
    try:
        strategy, benchmark = made(folder, **settings)
        results = []
        stream = benchmark.train_stream[:experiences]
        for part in [stream] if one_call else stream:
            strategy.train(part)
            results.append(strategy.eval(benchmark.test_stream[:1]))
            happen("between")
        weights = {n: w.clone() for n, w in strategy.model.state_dict().items()}
        found |= {"weights": weights, "results": results, "replaced": strategy.replaced_images}
    except SystemExit as error:
        found["status"] = error.code
        found["midway"] = bool(list(folder.glob("midway-*")))
    return {**found, "seen": list(SEEN)}


@contextlib.contextmanager
def written(what: Callable[[], None]) -> Iterator[None]:
    """Let something happen when half of a checkpoint of a step is written."""
    from avalanche_branchtune.checkpoints import files

    write = files.write_whole

    def half(path: Path, put: Any) -> str:
        if path.name.startswith("midway"):
            path.with_name(".half").write_bytes(bytes(1000))
            what()
        return write(path, put)

    files.write_whole = half
    try:
        yield
    finally:
        files.write_whole = write


# ---- under torchrun


def main(folder: str, what: str = "") -> None:
    """Run until the end, or until ``what`` happens: ``"RANK WHEN HOW"``, more by commas."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    options: dict[str, Any] = {}
    for word in filter(None, what.split(",")):
        who, when, how = word.split()
        if who in ("all", os.environ["RANK"]):
            WHAT[int(when) if when.isdigit() else when] = partial_of(how, Path(folder))
        if when == "write":
            options["every_minutes"] = 1e-9
    (Path(folder) / f"process-{os.environ['RANK']}").write_text(str(os.getpid()))
    with written(lambda: happen("write")):
        found = run(Path(folder) / "state", **options)
    if found["status"] is not None:
        raise SystemExit(found["status"])
    if os.environ["RANK"] == "0":
        torch.save(found, Path(folder) / "end.pt")


def partial_of(how: str, folder: Path) -> Callable[[], None]:
    """Return what is done: a signal's name, ``raise``,
    ``other`` to kill rank 1, or ``wait`` and seconds."""

    def do() -> None:
        (folder / f"at-{os.environ['RANK']}").write_text(str(time.time()))
        if how == "raise":
            raise UnreadableImageError("image-3.png is broken")
        if how.startswith("wait"):
            end = time.monotonic() + float(how[4:])
            while time.monotonic() < end:
                time.sleep(0.05)
        elif how == "other":
            os.kill(int((folder / "process-1").read_text()), signal.SIGKILL)
            time.sleep(2)
        else:
            os.kill(os.getpid(), signal.Signals[how])

    return do


if __name__ == "__main__":
    main(*sys.argv[1:])
