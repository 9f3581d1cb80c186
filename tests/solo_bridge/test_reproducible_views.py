"""Views that depend on seed, experience, epoch and sample, and images that cannot be read."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.errors import UnknownOptionError, UnreadableImageError, ViewsError
from avalanche_branchtune.metrics import RunRecorder
from avalanche_branchtune.records import load_run
from avalanche_branchtune.report import group_runs
from avalanche_branchtune.report.notices import notices
from avalanche_branchtune.streams import ImageFiles, class_incremental
from solo_bridge import EvalTransform, specification
from tests.selfsupervised import data, method, small_options, strategy, stream, weights

WORKERS: list[dict[str, Any]] = [
    {"num_workers": 1},
    {"num_workers": 2, "persistent_workers": True},
]
BEFORE = {"lump": {"memory": 20, "views": "before_augmentation"}}


def trained(
    spec: str, *, evaluated: bool = False, reproducible_views: bool | None = True, **loading: Any
) -> torch.Tensor:
    torch.manual_seed(0)
    benchmark = stream(5)
    made = specification.build(
        spec,
        method("byol"),
        options=small_options(spec) | (BEFORE if spec == "lump" else {}),
        optimizer="sgd",
        lr=0.05,
        train_mb_size=5,
        train_epochs=2,
        reproducible_views=reproducible_views,
        evaluator=None,
    )
    torch.manual_seed(1)
    for experience in benchmark.train_stream[:2]:
        made.train(experience, [benchmark.test_stream[:1]] if evaluated else [], **loading)
    return weights(made.model)


def check(spec: str, workers: list[dict[str, Any]]) -> None:
    expected = trained(spec)
    for loading in workers:
        assert torch.equal(trained(spec, **loading), expected), loading
    assert torch.equal(trained(spec, evaluated=True, **workers[0]), expected), "evaluated between"


def test_weights_do_not_depend_on_workers() -> None:
    check("branch_tuning+replay", WORKERS)
    one, other = (trained("fine_tuning", reproducible_views=False, **w) for w in WORKERS)
    assert not torch.equal(one, other), "else the above would show nothing"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("spec", ["branch_tuning+cassle", "kaizen+replay", "lump", "der"])
def test_weights_of_plugins_do_not_depend_on_workers(spec: str) -> None:
    twice = [{**w, "num_workers": 2 * w["num_workers"]} for w in WORKERS]
    check(spec, [*WORKERS, *twice, {"num_workers": 2}])


def test_on_beside_checkpoints_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    assert strategy().views_seed is None
    torch.manual_seed(5)
    beside = strategy(method(), [Checkpoints(tmp_path / "a")])
    assert beside.views_seed == torch.initial_seed()
    assert (
        strategy(method(), [Checkpoints(tmp_path / "b")], reproducible_views=False).views_seed
        is None
    )


class ListOfMinibatches(SupervisedPlugin):
    """What some plugins put in the loader's place."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.dataloader = list(strategy.dataloader)


def test_a_loader_of_another_kind_is_refused_where_it_matters() -> None:
    experience = stream(2).train_stream[0]
    strategy(method(), [ListOfMinibatches()]).train(experience)
    with pytest.raises(UnknownOptionError, match=r"data loader list is none of torch's"):
        strategy(method(), [ListOfMinibatches()], reproducible_views=True).train(experience)


# ---- images that cannot be read


def folder(path: Path, damaged: tuple[int, ...]) -> ImageFiles:
    """Files of 40 images of two classes."""
    files, targets = [], []
    path.mkdir()
    for i in range(40):
        image, _ = data(40)[i]
        files.append(str(path / f"{i}.png"))
        targets.append(i % 2)
        image.save(files[-1])
        if i in damaged:
            content = Path(files[-1]).read_bytes()
            Path(files[-1]).write_bytes(content[: len(content) // 2])
    return ImageFiles(files, targets, ["a", "b"])


def run(path: Path, files: ImageFiles, *, resume: bool = False, **settings: Any) -> Any:
    recorder = RunRecorder(path / "record", "run", seed=0, resume=resume)
    benchmark = class_incremental(files, files, 2, eval_transform=EvalTransform(8))
    torch.manual_seed(0)
    made = strategy(
        method(),
        [Checkpoints(path / "state", resume=resume)],
        train_mb_size=4,
        lr=0.05,
        evaluator=EvaluationPlugin(loggers=[recorder]),
        **settings,
    )
    for experience in benchmark.train_stream:
        made.train(experience)
    return made


def test_an_image_that_cannot_be_read_ends_the_run_after_saving(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = folder(tmp_path / "good", ())
    expected = weights(run(tmp_path / "whole", good).model)
    bad = folder(tmp_path / "bad", (13,))
    with pytest.raises(UnreadableImageError, match=r"sample \d+ of experience \d: .*bad/13\.png: "):
        run(tmp_path / "parts", bad)
    assert list((tmp_path / "parts" / "state").glob("midway-*.pt"))
    Path(bad.files[13]).write_bytes(Path(good.files[13]).read_bytes())
    found = run(tmp_path / "parts", bad, resume=True)
    said = capsys.readouterr().out
    assert re.search(r"state: goes on after \d finished calls of .*, within the next\n", said)
    assert torch.equal(weights(found.model), expected), "mended, the run went on"


def test_images_that_cannot_be_read_are_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = (0, 13, 20)
    files = folder(tmp_path / "images", bad)
    with caplog.at_level(logging.WARNING):
        made = run(tmp_path, files, on_bad_image="skip")
    assert made.replaced_images == {files.files[i]: 2 for i in bad}, "in each epoch"
    said = [r.getMessage() for r in caplog.records if "could not be read" in r.getMessage()]
    assert said[-1].startswith("3 images could not be read so far, and were replaced 6 times")
    assert files.files[13] in said[-1]
    assert load_run(tmp_path / "record").replaced_images == made.replaced_images
    assert "run, seed 0: 3 images could not be read" in "\n".join(
        notices(group_runs([tmp_path / "record"]))
    )


def test_views_that_cannot_be_made_are_named_where_they_are(tmp_path: Path) -> None:
    images = [(torch.full((3, 8, 8), 0.5), 0) for _ in range(20)]
    images[7] = (torch.full((3, 8, 8), float("nan")), 0)
    benchmark = class_incremental(images, images, 1, eval_transform=EvalTransform(8))
    for settings in ({}, {"reproducible_views": True}):
        with pytest.raises(ViewsError, match=r"sample 7 of experience 0: .*not finite"):
            strategy(**settings).train(benchmark.train_stream[0])


def test_unknown_options_are_refused() -> None:
    with pytest.raises(UnknownOptionError, match=r"on_bad_image=…\): expected one of stop, skip"):
        strategy(on_bad_image="ignore")
