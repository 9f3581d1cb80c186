"""Files, mappings, and the augmentations that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from avalanche_branchtune.errors import ConfigError, UnknownOptionError
from solo_bridge import SoloMethod
from solo_bridge.config import settings_from_config
from tests.solo_bridge.config.examples import CONFIG, PIPELINE, plain, written


def test_a_mapping_says_the_same_as_a_file(tmp_path: Path) -> None:
    of_file = settings_from_config(str(written(tmp_path)))
    of_mapping = settings_from_config(plain())
    assert of_mapping == settings_from_config(OmegaConf.create(plain()))
    assert (of_mapping.method, of_mapping.strategy) == (of_file.method, of_file.strategy)
    assert of_mapping.augmentations == [PIPELINE]
    # yaml itself takes 1e-4 for a text
    as_text = yaml.safe_load(CONFIG)
    assert as_text["optimizer"]["weight_decay"] == "1e-4"
    texts = settings_from_config(plain(optimizer=as_text["optimizer"]))
    assert texts.strategy == of_file.strategy


@pytest.mark.parametrize(
    ("position", "wins"), [("before", "file"), ("after", "key"), ("nowhere", "key")]
)
def test_augmentations_in_both_places_follow_hydras_order(
    tmp_path: Path, position: str, wins: str
) -> None:
    config = plain()
    config["augmentations"][0]["num_crops"] = 3
    order: list[Any] = [{"augmentations": "pair"}]
    if position != "nowhere":
        order.insert(0 if position == "before" else 1, "_self_")
    path = written(tmp_path, yaml.safe_dump({"defaults": order, **config}))
    found = settings_from_config(path)
    assert found.augmentations[0].num_crops == (2 if wins == "file" else 3)
    lost = "augmentations" if wins == "file" else "defaults.augmentations"
    assert lost in found.ignored


def test_the_file_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, CONFIG.replace("method:", "metod:"))
    with pytest.raises(
        UnknownOptionError, match=r"unknown metod \(did you mean method\?\)"
    ) as error:
        settings_from_config(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "no valid yaml"),
        ("- 1", "expected a mapping"),
        ("3", "no valid yaml"),
        ("", "method is missing"),
        ("method: byol\nmethod: simclr", "duplicate key"),
        ("method: !!python/object/apply:os.system ['touch was_run']", "no valid yaml"),
        ("method: byol\ndefaults:\n- augmentations: none.yaml", "no file .*none.yaml"),
        ("method: byol\ndefaults:\n- augmentations: broken", "broken.yaml is no valid yaml"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, text)
    (tmp_path / "augmentations/broken.yaml").write_text("- [")
    with pytest.raises(ConfigError, match=message) as error:
        SoloMethod.from_config(path)
    assert str(path) in str(error.value) and not Path("was_run").exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*none\.yaml"):
        settings_from_config(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml is no valid yaml"):
        settings_from_config(tmp_path / "binary.yaml")
