"""Objects become plain data and come back, and nothing in plain data is run."""

from __future__ import annotations

import io
from collections import OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from avalanche_branchtune.checkpoints.decoder import Decoder
from avalanche_branchtune.checkpoints.encoder import Encoder
from avalanche_branchtune.errors import CheckpointError

CPU = torch.device("cpu")


def there_and_back(value: Any, there: Any = None, live: Any = None) -> Any:
    """Write a value to a file that ``weights_only`` reads, and read it."""
    file = io.BytesIO()
    torch.save(Encoder(live or {}).encode(value, "value"), file)
    file.seek(0)
    node = torch.load(file, weights_only=True)
    return Decoder(live or {}, CPU).decode(node, "value", there)


VALUES = {
    "scalars": [None, True, 3, 2.5, "text", b"bytes", b""],
    "nested": {"a": (1, [2, {3}]), 4: frozenset({5}), (6, 7): deque([8], maxlen=2)},
    "ordered": OrderedDict(b=1, a=2),
    "path": Path("runs/a"),
    "torch": [torch.float16, torch.device("cpu"), torch.Size([2, 3])],
    "numpy scalar": np.float32(2.5),
}


@pytest.mark.parametrize("name", VALUES)
def test_plain_values(name: str) -> None:
    value = VALUES[name]
    found = there_and_back(value)
    assert found == value and type(found) is type(value)


def test_tensors_arrays_images() -> None:
    image = Image.effect_noise((5, 4), 50).convert("RGB")
    weight = nn.Parameter(torch.randn(3), requires_grad=False)
    found = there_and_back([torch.arange(4.0), weight, np.eye(2), image])
    assert torch.equal(found[0], torch.arange(4.0)) and not found[0].requires_grad
    assert isinstance(found[1], nn.Parameter) and torch.equal(found[1], weight)
    assert not found[1].requires_grad
    assert np.array_equal(found[2], np.eye(2)) and found[2].dtype == np.float64
    assert found[3].tobytes() == image.tobytes() and found[3].mode == "RGB"


def test_what_is_met_twice_is_one_object() -> None:
    shared = [1]
    loop: list[Any] = [shared, shared]
    loop.append(loop)
    found = there_and_back(loop)
    assert found[0] is found[1] and found[2] is found


def test_counters_with_a_default() -> None:
    found = there_and_back(defaultdict(list, a=[1]))
    found["b"].append(2)
    assert found == {"a": [1], "b": [2]}


def test_what_is_there_is_filled_in_its_place() -> None:
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    weight = other.weight
    found = Decoder({}, CPU).decode(Encoder({}).encode(net, "net"), "net", other)
    assert found is other and other.weight is weight and torch.equal(weight, net.weight)


def test_a_module_is_made_anew_without_its_constructor() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    net(torch.randn(4, 3))
    found = there_and_back(net)
    assert found is not net
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in found.state_dict().items())
    x = torch.randn(4, 3)
    assert torch.equal(found.eval()(x), net.eval()(x))


def test_live_objects_are_found_by_name() -> None:
    net = nn.Linear(2, 2)
    assert there_and_back([net.weight], live={"weight": net.weight})[0] is net.weight
    node = Encoder({"weight": net.weight}).encode(net.weight, "x")
    with pytest.raises(CheckpointError, match="x: there is no weight here"):
        Decoder({}, CPU).decode(node, "x")


class Stranger:
    """Of a package that is not trusted."""

    def __init__(self, number: int) -> None:
        self.number = number


def test_an_object_of_a_stranger_s_class_can_be_filled_but_not_made() -> None:
    with pytest.raises(CheckpointError, match=r"value is a tests\..*Stranger.*cannot be made anew"):
        there_and_back(Stranger(1))
    there = Stranger(2)
    stranger = Stranger(1)
    node = Encoder({}, known=[stranger]).encode(stranger, "value")
    assert Decoder({}, CPU).decode(node, "value", there) is there and there.number == 1
    with pytest.raises(CheckpointError, match="was to be found here"):
        Decoder({}, CPU).decode(node, "value", 3)


def test_what_cannot_be_written_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"plugin\.views\[0\] is a builtins.list_iterator"):
        Encoder({}).encode([iter([1])], "plugin.views")


def test_a_function_of_nobody_s_stays_where_it_is_or_is_missed() -> None:
    def own() -> None:
        """Of no module."""

    with pytest.raises(CheckpointError, match="own, that was not there before training"):
        Encoder({}).encode([own], "plugin.views")
    node = Encoder({}, [own]).encode([own], "plugin.views")
    assert Decoder({}, CPU).decode(node, "plugin.views", [own]) == [own]
    with pytest.raises(CheckpointError, match=r"plugin\.views\[0\]: something was to be found"):
        Decoder({}, CPU).decode(node, "plugin.views")
    with pytest.raises(CheckpointError, match="own was to be found here, not print"):
        Decoder({}, CPU).decode(node, "plugin.views", [print])


@pytest.mark.parametrize(
    "node",
    [
        {"@": "object", "id": 0, "class": "subprocess:Popen", "vars": {}},
        {"@": "object", "id": 0, "class": "torch:load", "vars": {}},
        {"@": "name", "id": 0, "value": "os:system"},
        {"@": "partial", "id": 0, "function": {"@": "name", "id": 1, "value": "torch:load"}},
        {"@": "default", "id": 0, "items": [], "factory": {"@": "name", "id": 1, "value": "x:y"}},
        {"@": "made", "id": 0, "name": "torch.nn:Linear"},
        {"@": "fill", "id": 0},
        {"@": "unknown", "id": 0},
        {"@": "list"},
        {"@": "torch", "id": 0, "value": "dtype:load"},
    ],
)
def test_nothing_foreign_is_made_or_called(node: Any) -> None:
    with pytest.raises(CheckpointError):
        Decoder({}, CPU).decode(node, "value")


def test_two_objects_that_are_one_here_become_two() -> None:
    one = {"n": [1]}
    there = [one, one]
    node = Encoder({}).encode([{"n": [1]}, {"n": [2]}], "value")
    found = Decoder({}, CPU).decode(node, "value", there)
    assert found == [{"n": [1]}, {"n": [2]}] and found[0] is one


def test_a_part_of_a_storage_is_written_alone() -> None:
    """Views hold the whole of what they are of, and torch writes each storage with one type."""
    whole = torch.arange(100_000.0)
    node = Encoder({}).encode([whole[:3], whole[1:2].expand(5)], "value")
    assert all(item["tensor"].untyped_storage().nbytes() <= 20 for item in node["items"])
    other = torch.zeros(4)
    values = [whole, whole.detach(), whole[:3], other, other.view(torch.int32), other.view(2, 2)]
    found = there_and_back(values)
    assert all(torch.equal(*pair) for pair in zip(found, values, strict=True))
    assert [v.dtype for v in found] == [v.dtype for v in values]
    assert len({v.untyped_storage().data_ptr() for v in found}) == len(values), "each is its own"


def test_a_whole_tensor_is_not_copied() -> None:
    image = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert Encoder({}).encode(image, "value")["tensor"].data_ptr() == image.data_ptr()
    assert there_and_back(image).stride() == image.stride()
