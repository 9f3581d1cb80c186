"""Small configurations that would become large ones."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from avalanche_branchtune.errors import ConfigError
from solo_bridge.config import settings_from_config
from tests.solo_bridge.config.examples import VIEW, plain, written


def doubled(times: int, first: str, line: str) -> str:
    return "\n".join([first, *(line.format(new=i + 1, old=i) for i in range(times))])


def greedy() -> dict[str, tuple[str, str]]:
    laughs = doubled(30, "a0: ha", "a{new}: ${{a{old}}}${{a{old}}}")
    lists = doubled(30, "a0: [1, 2]", "a{new}: {{x: '${{a{old}}}', y: '${{a{old}}}'}}")
    relative = doubled(30, "data:\n  a0: ha", "  a{new}: ${{.a{old}}}${{..data.a{old}}}")
    chain = doubled(3000, "a0: 1", "a{new}: ${{a{old}}}")
    aliases = doubled(30, "a0: &a0 [1, 1]", "a{new}: &a{new} [*a{old}, *a{old}]")
    merged = doubled(30, "a0: &a0 {{x: 1}}", "a{new}: &a{new} {{x: *a{old}, y: *a{old}}}")
    return {
        "texts": (f"{laughs}\nmethod: ${{a30}}\n", "more than 200000 letters"),
        "lists": (f"{lists}\nbackbone: ${{a30}}\n", "more than 200000 letters"),
        "relative": (f"{relative}\n", "more than 200000 letters"),
        "chain": (
            f"{chain}\nmethod: ${{a3000}}\n",
            "more than 200000 letters",
        ),
        "circle": ("method: ${b}\nb: ${method}", "interpolations lead back"),
        "resolvers": ("a: b\nmethod: ${oc.select:a}${oc.select:a}", "only values of the config"),
        "nested": ("a: b\nb: c\nmethod: ${${a}}", "an interpolation inside of another"),
        "aliases": (aliases, "more than 20000 values, with those of aliases"),
        "merged": (merged, "more than 20000 values, with those of aliases"),
        "own alias": ("a: &a [*a]", "stands for nothing, or for itself"),
        "deep": ("a: " + "[" * 5000 + "]" * 5000, "more than 50 levels"),
        "indented": ("".join(" " * i + "a:\n" for i in range(200)), "more than 50 levels"),
        "long": ("a: " + "x" * 2**18, "more than 262144 bytes"),
    }


@pytest.mark.parametrize("name", list(greedy()))
@pytest.mark.parametrize("place", ["config", "augmentations"])
def test_a_configuration_does_not_grow(tmp_path: Path, name: str, place: str) -> None:
    text, message = greedy()[name]
    begin = time.process_time()
    path = written(tmp_path, text) if place == "config" else written(tmp_path, view=text)
    with pytest.raises(ConfigError, match=message):
        settings_from_config(path)
    assert time.process_time() - begin < 5


def test_the_same_holds_for_a_mapping() -> None:
    keys: dict[str, Any] = {f"a{i + 1}": f"${{a{i}}}${{a{i}}}" for i in range(30)}
    with pytest.raises(ConfigError, match="more than 200000 letters"):
        settings_from_config({**plain(), "a0": "ha", **keys, "method": "${a30}"})
    deep: Any = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(ConfigError, match="no configuration"):
        settings_from_config({"backbone": deep})


def test_what_configurations_do_is_read_as_before(tmp_path: Path) -> None:
    expected = settings_from_config(written(tmp_path))
    aliased = VIEW.replace("crop_size: 8", "crop_size: &size 8")
    assert settings_from_config(written(tmp_path, view=aliased)) == expected
    referring = plain(max_epochs="${optimizer.batch_size}")
    referring["optimizer"]["batch_size"] = 7
    assert settings_from_config(referring).strategy["train_epochs"] == 7
    referring["max_epochs"] = "${..max_epochs}"
    with pytest.raises(ConfigError, match="lead back"):
        settings_from_config(referring)


def test_environment_variables_are_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHS_OF_TEST", "9")
    config = plain(max_epochs="${oc.env:EPOCHS_OF_TEST}")
    assert settings_from_config(config).strategy["train_epochs"] == 9


def test_a_pipe_is_no_configuration(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="no file"):
        settings_from_config(tmp_path / "a.yaml")
