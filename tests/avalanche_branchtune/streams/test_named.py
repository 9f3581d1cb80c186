"""Streams by name, what they say of themselves, and the same stream made again from that."""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from avalanche.benchmarks import split_online_stream
from PIL import Image

from avalanche_branchtune.errors import MissingDirectoryError, RecordError, UnknownOptionError
from avalanche_branchtune.streams import (
    DIVISIONS,
    STREAMS,
    class_incremental,
    few,
    named_stream,
    online,
    remade,
)
from tests import fake_archives as fake
from tests.fake_cifar import fake_cifar

DIGITS: dict[str, Any] = {"samples": 100, "test_samples": 50, "size": 8}
HOW: dict[str, dict[str, Any]] = {
    "classes": {"n_experiences": 5},
    "superclasses": {"n_experiences": 5, "superclasses": [[0, 5], [1, 6], [2, 7], [3, 8], [4, 9]]},
    "sparse": {"n_experiences": 7, "per_experience": 3, "images": "share"},
    "power_law": {"n_experiences": 7, "exponent": 1.5},
    "recurring": {"schedule": [[1, 2], [2, 3]]},
    "instances": {"n_experiences": 3},
    "altered": {"alterations": ["plain", "noise"]},
    "joint": {},
}


def content(benchmark: Any) -> Any:
    return [
        [(item[0].tobytes(), item[1]) for item in e.dataset]
        for stream in benchmark.streams.values()
        for e in stream
    ]


@cache
def digits() -> Any:
    return STREAMS["digits"].load(**DIGITS)


@pytest.mark.parametrize("division", HOW)
def test_a_stream_is_made_again_from_what_a_file_has_of_it(division: str) -> None:
    make, how = DIVISIONS[division], HOW[division]
    benchmark = make(*digits(), **how, **_seeded(division, 3))
    if division == "altered":
        benchmark = online(benchmark, 7, boundaries=False, seed=2)
    recipe = json.loads(json.dumps(benchmark.recipe))
    again = remade(recipe, digits(), train_transform=lambda image: image)
    assert content(again) == content(benchmark) and again.recipe == benchmark.recipe
    assert benchmark.train_stream.recipe == benchmark.recipe
    if _seeded(division, 3) and division != "recurring":
        assert content(make(*digits(), **how, **_seeded(division, 4))) != content(benchmark)


def _seeded(division: str, seed: int) -> dict[str, int]:
    return {} if division == "joint" else {"seed": seed}


def test_a_named_stream_is_made_again_by_its_name() -> None:
    benchmark = named_stream("digits", "sparse", seed=3, **DIGITS, **HOW["sparse"])
    recipe = json.loads(json.dumps(benchmark.recipe))
    assert recipe["name"] == "digits" and recipe["data"] == {**DIGITS, "seed": 3}
    assert content(remade(recipe)) == content(benchmark)


def test_the_order_is_what_counts_and_not_the_seed() -> None:
    data = [(f"image {i}", i % 4) for i in range(8)]
    benchmark = class_incremental(data, data, 2, seed=5)
    order = benchmark.class_order
    assert order == benchmark.train_stream.class_order == benchmark.recipe["class_order"]
    recipe = {**benchmark.recipe, "class_order": order[::-1]}
    again = remade(recipe, (data, data))
    assert [e.classes_in_this_experience for e in again.train_stream] == [
        e.classes_in_this_experience for e in reversed(list(benchmark.train_stream))
    ]


def test_every_name_says_what_it_is_and_takes() -> None:
    assert set(STREAMS) == {
        *("digits", "folder", "split_cifar10", "split_cifar100", "split_tiny_imagenet"),
        *("split_imagenet", "split_imagenet100", "core50", "domainnet", "hugging_face"),
    }
    for name, entry in STREAMS.items():
        assert entry.title and "\n" not in entry.title and len(entry.title) < 90, name
        for division in entry.divisions:
            options = entry.options(division)
            assert not {"train", "train_transform"} & set(entry.of_division(division)), name
            asked = inspect.signature(DIVISIONS[division]).parameters
            assert set(options) <= set(_parameters(entry.load)) | set(asked), name
    assert STREAMS["core50"].options()["scenario"] == "nc"
    with pytest.raises(UnknownOptionError, match="did you mean split_cifar100"):
        named_stream("split_cifar1000")
    with pytest.raises(UnknownOptionError, match="got 'classes'"):
        named_stream("domainnet", "classes")
    with pytest.raises(UnknownOptionError, match="unknown option sise; did you mean size"):
        named_stream("digits", n_experiences=5, sise=8)
    with pytest.raises(UnknownOptionError, match=r"n_experiences=… is needed"):
        named_stream("digits")


def _parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_each_name_finds_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar(tmp_path / "archives", monkeypatch, classes=6)
    root = tmp_path / "cifar"
    how: dict[str, Any] = {"root": root, "download": True, "n_experiences": 2}
    stream = named_stream("split_cifar100", "superclasses", **how)
    assert sorted(sorted(e.classes_in_this_experience) for e in stream.train_stream) == [
        [0, 2, 4],
        [1, 3, 5],
    ]
    recipe = json.loads(json.dumps(stream.recipe))
    assert recipe["data"] == {"root": str(root), "download": True}
    assert content(remade(recipe)) == content(stream)

    fake.imagenet_archives(tmp_path / "imagenet", monkeypatch)
    two = [fake.WORDNET[2], fake.WORDNET[0]]
    how = {"root": tmp_path / "imagenet", "classes": two, "n_experiences": 2}
    with pytest.raises(UnknownOptionError, match="those of ImageNet-100; got 2"):
        named_stream("split_imagenet100", **how)
    stream = named_stream("split_imagenet", class_order=[1, 0], **how)
    assert [e.dataset[0][0].getpixel((0, 0))[0] for e in stream.train_stream] == [2, 0]
    assert [e.dataset[0][0].getpixel((0, 0))[0] for e in stream.test_stream] == [100, 101]

    fake.core50(tmp_path / "core50")
    stream = named_stream("core50", root=tmp_path / "core50", run=1)
    assert [len(e.dataset) for e in stream.train_stream] == [4, 4]
    assert [len(e.dataset) for e in stream.test_stream] == [4]
    assert content(remade(stream.recipe)) == content(stream)

    fake.domainnet(tmp_path / "domains")
    stream = named_stream("domainnet", root=tmp_path / "domains", domains=("painting", "real"))
    assert [len(e.dataset) for e in stream.train_stream] == [2, 3]
    assert content(remade(stream.recipe)) == content(stream)

    fake.tiny_imagenet(tmp_path / "tiny")
    stream = named_stream("split_tiny_imagenet", root=tmp_path / "tiny", n_experiences=10)
    assert [len(e.dataset) for s in stream.streams.values() for e in s] == [20] * 20

    for part in ("train", "test"):
        for name in "ab":
            fake.saved(tmp_path / "folder" / part / name / "1.png")
    stream = named_stream("folder", root=tmp_path / "folder", n_experiences=2)
    assert [len(e.dataset) for s in stream.streams.values() for e in s] == [1] * 4
    fake.without_network(monkeypatch)
    for name in ("split_cifar10", "split_tiny_imagenet"):
        with pytest.raises(MissingDirectoryError, match="cannot be downloaded"):
            named_stream(name, root=tmp_path / "no", n_experiences=2, download=True)


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"made by": "class_incremental", "name": "digit"},
        {"made by": "eval", "name": "digits"},
        {"made by": "joint", "name": "digits", "seed": 1},
        {"made by": "joint", "name": "digits", "data": {"sise": 8}},
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(recipe: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="remade"):
        remade(recipe)


def test_parts_are_those_of_avalanche_and_know_more() -> None:
    data = [(Image.new("L", (1, 1), i), i % 2) for i in range(40)]
    benchmark = class_incremental(few(data, 10), data, 2)
    made = online(benchmark, 4)
    theirs = list(
        split_online_stream(
            benchmark.train_stream, 4, access_task_boundaries=True, seed=0, shuffle=False
        )
    )
    parts = list(made.train_stream)
    assert [len(p.dataset) for p in parts] == [len(p.dataset) for p in theirs] == [4, 4, 2] * 2
    assert [p.is_first_subexp for p in parts] == [p.is_first_subexp for p in theirs]
    assert [p.is_last_subexp for p in parts] == [p.is_last_subexp for p in theirs]
    assert [p.origin_experience for p in parts] == [p.origin_experience for p in theirs]
    assert [p.sub_stream_length for p in parts] == [p.sub_stream_length for p in theirs]
    exact = list(online(benchmark, 5).train_stream)
    assert [p.is_last_subexp for p in exact] == [False, True] * 2
    values = [
        sorted(item[0].getpixel((0, 0)) for p in h for item in p.dataset)
        for h in (parts[:3], parts[3:])
    ]
    assert values == [
        sorted(item[0].getpixel((0, 0)) for item in e.dataset) for e in benchmark.train_stream
    ]
    assert len(made.train_stream) == 6 and made.test_stream is benchmark.test_stream
    assert [p.current_experience for p in parts] == list(range(6))
    with pytest.raises(UnknownOptionError, match="size"):
        online(benchmark, 0)
