"""The presets beside the authors' code: what is built is what was recorded, or it is said why."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from benchmarks import presets as pages
from solo_bridge.presets import PRESETS


@pytest.fixture(scope="module", autouse=True)
def _without_random_weights() -> Iterator[None]:
    """No table has a weight in it, and 24 networks of random ones take their time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("uniform_", "normal_"):
            patch.setattr(torch.Tensor, name, lambda tensor, *given, **named: tensor)
        yield


def recorded() -> Any:
    return json.loads(pages.RECORDED.read_text(encoding="utf-8"))


def test_the_page_is_the_one_that_is_made() -> None:
    """Each setting of each method is there, the same as theirs or with a reason."""
    assert pages.PAGE.read_text(encoding="utf-8") == pages.page()


def test_recorded_is_of_the_code_that_the_presets_name() -> None:
    said = {name: (r["repository"], r["commit"]) for name, r in recorded().items()}
    assert said == {name: (p.repository, p.commit) for name, p in PRESETS.items()}


@pytest.mark.parametrize(
    ("preset", "setting", "theirs"),
    [
        ("pfr/cifar100", "lr", 0.31),
        ("pfr/cifar100", "exclude_bias_and_norm", False),
        ("pfr/cifar100", "std", "0.247 0.2435 0.261"),
        ("pfr/cifar100", "solarization_prob", 0.2),
        ("pfr/cifar100", "warmup_start_lr", 3e-5),
        ("pfr/cifar100", "projector", "2048, ReLU, 2048"),
        ("pfr/cifar100", "pfr: weight", 25),
    ],
)
def test_a_setting_that_differs_needs_a_reason(preset: str, setting: str, theirs: Any) -> None:
    other = copy.deepcopy(recorded())
    settings = other[preset]["methods"]["barlow_twins"]["settings"]
    assert settings[setting] != theirs
    settings[setting] = theirs
    with pytest.raises(AssertionError, match=f"{setting}: .* here: why"):
        pages.rows(preset, other)


def test_a_reason_needs_a_setting_that_differs() -> None:
    other = copy.deepcopy(recorded())
    for run in other["lump/cifar10"]["methods"].values():
        run["settings"]["interpolation"] = "bicubic"
    with pytest.raises(AssertionError, match=r"a reason for what is the same.*interpolation"):
        pages.rows("lump/cifar10", other)


def test_both_sides_have_all_settings() -> None:
    for setting in ("momentum", "crop_to"):
        other = copy.deepcopy(recorded())
        settings = other["pfr/cifar100"]["methods"]["barlow_twins"]["settings"]
        if setting in settings:
            del settings[setting]
        else:
            settings[setting] = 1.0
        with pytest.raises(AssertionError, match=setting):
            pages.rows("pfr/cifar100", other)


def test_what_differs_today() -> None:
    """Read from the tables: a new difference is a decision, not an accident."""
    found = {
        (name, row.setting)
        for name in ("branch_tuning/cifar100", "lump/cifar10", "pfr/cifar100")
        for row in pages.rows(name)
        if row.why != "same"
    }
    lump = ("stem", "projector", "interpolation", "optimizer_state")
    expected = {("lump/cifar10", setting) for setting in lump}
    assert found == expected | {("branch_tuning/cifar100", "stem")}
