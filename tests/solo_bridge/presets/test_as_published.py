"""A comparison by a preset: trained as it says, and its record tells what was done otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avalanche_branchtune.records import load_run
from solo_bridge import specification
from solo_bridge.comparison import Comparison, experiment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of noise, 12 images to train and 4 to test each."""
    noise = np.random.default_rng(0)
    for part, images in (("train", 12), ("test", 4)):
        for name in "ab":
            place = tmp_path / "images" / part / name
            place.mkdir(parents=True)
            for i in range(images):
                pixels = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def tiny(folder: Path) -> Comparison:
    return Comparison.as_published(
        "branch_tuning/cifar100",
        method="simclr",
        data=str(folder),
        size=8,
        experiences=2,
        epochs=1,
        batch=8,
        workers=0,
    )


def test_what_is_not_the_presets_is_in_the_record(tiny: Comparison, tmp_path: Path) -> None:
    tiny.run("fine_tuning", tmp_path / "out", bar=False)
    run = load_run(tiny.folder("fine_tuning", tmp_path / "out"))
    assert run.complete and run.settings["backbone"] == "resnet18"
    published = "branch_tuning/cifar100: arXiv 2403.18266, SmallPigPeppa/ISSL 37827a5"
    assert run.settings["preset"] == published
    assert run.settings["overridden"] == (
        "image size 8 instead of 32, experiences 2 instead of 5, epochs 1 instead of 500, batch "
        "size 8 instead of 256, warm-up a tenth of the epochs, at most 10, instead of 10, "
        "precision bf16 instead of 16, on a CPU"
    )
    assert "LARS, lr 0.4 · batch/256; momentum 0.9, weight decay 0;" in run.settings["optimizer"]
    assert run.settings["caveat"]


def test_the_strategy_is_the_presets(tiny: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def build(*arguments: object, **how: object) -> None:
        made.append(specification.build(*arguments, **how))  # type: ignore[arg-type]
        raise InterruptedError

    monkeypatch.setattr(experiment, "build", build)
    for epochs in (1, 100):
        with pytest.raises(InterruptedError):
            replace(tiny, epochs=epochs).run("branch_tuning", f"{tiny.data}-{epochs}", bar=False)
    for run, epochs, warmup in zip(made, (1, 100), (None, 10), strict=True):
        found = run.optimizer_settings
        assert (found.name, found.weight_decay, found.warmup_start_lr) == ("lars", 0, 0.003)
        assert (found.lr, found.warmup_epochs) == (0.4 * 8 / 256, warmup)
        assert (run.train_epochs, run.train_mb_size, run.model.num_classes) == (epochs, 8, 2)
        assert run.model.preset == "branch_tuning/cifar100"
