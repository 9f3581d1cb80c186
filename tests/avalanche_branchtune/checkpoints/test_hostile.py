"""Plain data that was made to do harm: refused when it is read, and nothing is left to be run."""

from __future__ import annotations

import builtins
import functools
import io
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import nn

from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.checkpoints.decoder import Decoder
from avalanche_branchtune.checkpoints.encoder import Encoder
from avalanche_branchtune.checkpoints.names import find
from avalanche_branchtune.errors import CheckpointError
from tests.supervised import benchmark, strategy

CPU = torch.device("cpu")
NAMES = (
    *("os:system", "builtins:eval", "builtins:exec", "builtins:__import__", "builtins:getattr"),
    *("torch:os.system", "torch:sys.modules", "torch:load", "torch:save", "torch:from_file"),
    *("torch:hub.load", "torch.hub:load", "torch.serialization:load", "torch.jit:load"),
    *("torch.nn.functional:importlib.import_module", "torch.nn.functional:torch.os.system"),
    *("torch.utils.cpp_extension:load", "torchvision.datasets.utils:download_url"),
    *(
        "torch.fx.graph_module:GraphModule",
        "torch.jit:ScriptModule",
        "torch.package:PackageImporter",
    ),
    *("avalanche_branchtune.writing:write_text", "avalanche_branchtune.writing:os.system"),
    *("avalanche.checkpointing.checkpoint:maybe_load_checkpoint", "subprocess:Popen"),
    *(
        "torch.utils.data.dataloader:_MultiProcessingDataLoaderIter",
        "pickle:loads",
        "",
        ":",
        "torch:",
    ),
    *("torch.nn.modules.linear:Linear.__init__", "torch.nn:Linear", "builtins:type"),
)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_mean_nothing(name: str) -> None:
    assert find(name) is None
    nodes: list[Any] = [
        {"@": "name", "id": 0, "value": name},
        {"@": "object", "id": 0, "class": name, "vars": {}},
        {"@": "member", "id": 0, "class": name, "name": "x"},
        {"@": "default", "id": 0, "items": [], "factory": {"@": "name", "id": 1, "value": name}},
    ]
    for node in nodes:
        with pytest.raises(CheckpointError):
            Decoder({}, CPU).decode(node, "value")


def test_every_function_that_can_be_meant_lives_where_it_says() -> None:
    """No module's import of another brings in what runs, opens or loads something."""
    wrong = []
    for module in [m for n, m in sys.modules.items() if n.startswith(("torch", "avalanche"))]:
        for key in list(vars(module)) if isinstance(module, types.ModuleType) else ():
            found = find(f"{module.__name__}:{key}")
            if isinstance(found, types.FunctionType) and found.__module__ != module.__name__:
                wrong.append(f"{module.__name__}:{key}")
    assert not wrong
    assert find("torch.nn.functional:relu") is torch.nn.functional.relu, "some can be meant"
    assert find("torch:zeros") is torch.zeros
    assert all(find(f"builtins:{n}") in (None, getattr(builtins, n)) for n in dir(builtins))


def named(value: str, number: int = 1) -> dict[str, Any]:
    return {"@": "name", "id": number, "value": value}


def call(function: str, *args: Any) -> dict[str, Any]:
    items = {"@": "list", "id": 90, "items": list(args)}
    keywords = {"@": "dict", "id": 91, "items": []}
    parts = {"args": items, "keywords": keywords}
    return {"@": "partial", "id": 92, "function": named(function, 93), **parts}


def nested(depth: int) -> Any:
    node: Any = {"@": "list", "id": 0, "items": []}
    for number in range(1, depth):
        node = {"@": "list", "id": number, "items": [node]}
    return node


def shared(depth: int) -> Any:
    """Two to the power of depth, if each is read each time that it is met."""
    node: Any = {"@": "list", "id": 0, "items": []}
    for number in range(1, depth):
        node = {"@": "list", "id": number, "items": [node, node]}
    return node


def round_and_round() -> Any:
    node: dict[str, Any] = {"@": "tuple", "id": 0, "items": []}
    node["items"].append(node)
    return node


ONE = torch.zeros(1)
HOSTILE: dict[str, Any] = {
    "a call for later": call("avalanche_branchtune.writing:write_text", "/tmp/x", "code"),
    "a call of torch's": call("torch.nn.functional:relu", 1),
    "a factory that is a call": {"@": "default", "id": 0, "items": [], "factory": call("os:x")},
    "no such part": {"@": "seen", "id": 7},
    "a part of no number": {"@": "seen", "id": []},
    "no such object": {"@": "live", "name": "x"},
    "an object without name": {"@": "live"},
    "no number": {"@": "list", "items": []},
    "deep": nested(100_000),
    "wide": shared(100),
    "in itself": round_and_round(),
    "a long row": {"@": "deque", "id": 0, "items": [], "length": 10**30},
    "a bare list": [1],
    "a bare tensor": torch.zeros(2),
    "a bare dictionary": {"a": 1},
    "numbers that are not there": {
        "@": "tensor", "id": 0, "tensor": ONE.expand(10**13), "grad": False, "on": ""
    },
    "no numbers": {"@": "parameter", "id": 0, "tensor": "x", "grad": False, "on": ""},
    "an array of nothing": {"@": "array", "id": 0, "tensor": ONE.to_sparse()},
    "pixels that are not there": {
        "@": "image", "id": 0, "mode": "RGB", "size": [10**6, 10**6], "tensor": ONE.byte()
    },
    "a number of objects": {"@": "scalar", "id": 0, "type": "|O", "value": "x"},
    "room for a number": {"@": "scalar", "id": 0, "type": "|V9", "value": 10**12},
    "a kind that is none": {"@": "fill", "id": 0},
    "a kind of another kind": {"@": ["list"], "id": 0},
    "an unknown device": {"@": "torch", "id": 0, "value": "device:x"},
    "a copy of what is no network": {"@": "copy", "id": 0, "of": "x", "class": "y:z", "vars": {}},
    "what stands nowhere": {"@": "kept", "id": 0},
    "a pickle": {"@": "pickle", "id": 0, "class": "a:b", "tensor": ONE.byte(), "parts": []},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_data(name: str) -> None:
    with pytest.raises(CheckpointError, match="value"):
        Decoder({}, CPU).decode(HOSTILE[name], "value")


def test_what_stands_there_is_not_moved() -> None:
    """A function of the script stays where the script put it: no file can have it called."""
    there = [print, None]
    nodes = [{"@": "kept", "id": 1}, {"@": "seen", "id": 1}]
    with pytest.raises(CheckpointError):
        Decoder({}, CPU).decode({"@": "list", "id": 0, "items": nodes}, "value", there)
    twice = Encoder({}, [print]).encode([print, print], "value")
    assert Decoder({}, CPU).decode(twice, "value", [print, print]) == [print, print]


@pytest.mark.parametrize("there", [types.ModuleType("numpy"), NAMES.index, lambda: 1, Path])
def test_modules_functions_and_classes_are_not_filled(there: Any) -> None:
    cls = f"{type(there).__module__}:{type(there).__qualname__}"
    before = dict(vars(there)) if hasattr(there, "__dict__") else {}
    for kind in ("object", "in place"):
        node = {"@": kind, "id": 0, "class": cls, "vars": {}}
        with pytest.raises(CheckpointError):
            Decoder({}, CPU).decode(node, "value", there)
    assert before == (dict(vars(there)) if hasattr(there, "__dict__") else {})


def test_no_method_sees_a_file_s_attributes() -> None:
    """Attributes go past setters, __setattr__ and __setstate__."""
    node = {"@": "object", "id": 0, "class": "torch.nn.modules.linear:Linear", "vars": {"x": 1}}
    made = Decoder({}, CPU).decode(node, "value")
    assert type(made) is nn.Linear and made.x == 1
    there = Watches()
    node = {"@": "in place", "id": 0, "class": f"{__name__}:Watches", "vars": {"level": 3}}
    assert Decoder({}, CPU).decode(node, "value", there) is there
    assert vars(there) == {"level": 3} and SEEN == []


SEEN: list[Any] = []


class Watches:
    @property
    def level(self) -> int:
        return 1

    @level.setter
    def level(self, value: int) -> None:
        SEEN.append(value)

    def __setattr__(self, name: str, value: Any) -> None:
        SEEN.append(name)

    def __setstate__(self, state: Any) -> None:
        SEEN.append(state)


def test_functions_of_the_script_stay_with_their_arguments() -> None:
    there = functools.partial(print, 1)
    node = Encoder({}, [there]).encode([there, torch.nn.functional.relu], "value")
    here = functools.partial(print, 2)
    assert Decoder({}, CPU).decode(node, "value", [here, None]) == [here, torch.nn.functional.relu]
    node = call("torch.nn.functional:relu", 1)
    with pytest.raises(CheckpointError, match="a call of"):
        Decoder({}, CPU).decode(node, "value", functools.partial(torch.nn.functional.relu, 2))


# ---- plugins of others


RAN: list[str] = []


class Code:
    """Runs when it is unpickled."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return _made, ("code",)


def _made(text: str) -> Any:
    RAN.append(text)
    return Code()


class Own(nn.Module):
    """A user's network."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2))


class Holds(SupervisedPlugin):
    """Holds what cannot be written."""

    def __init__(self, held: Any = None) -> None:
        super().__init__()
        self.held = held
        self.steps = 0

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.steps += 1


class Later(SupervisedPlugin):
    """Makes it in training, beside what shares a weight with it."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.network = Own()
        self.weight = self.network.weight
        self.of = [self.network, strategy.model]


class Says(SupervisedPlugin):
    """Says its state."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = iter(range(10**6))
        self.at = 0

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.at = next(self.rows)

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]
        self.rows = iter(range(self.at + 1, 10**6))


def train(folder: Path, plugins: list[Any], experiences: int, **options: Any) -> Any:
    checkpoints = Checkpoints(folder, **options)
    made = strategy([*plugins, checkpoints], train_mb_size=4)
    checkpoints.attach(made)
    for experience in benchmark(3).train_stream[:experiences]:
        made.train(experience)
    return made


def test_a_plugin_that_cannot_be_saved_is_refused_before_training(tmp_path: Path) -> None:
    plugin = Holds(iter([1]))
    with pytest.raises(CheckpointError) as error:
        train(tmp_path, [plugin], 1)
    text = str(error.value)
    assert text.startswith("Holds.held is a builtins.list_iterator")
    for way in ("leave it out", "state_dict, load_state_dict", "trust_plugins=True"):
        assert way in text
    assert plugin.steps == 0 and not list(tmp_path.glob("*.pt"))


def test_a_plugin_of_plain_attributes_needs_nothing(tmp_path: Path) -> None:
    train(tmp_path, [Holds({"a": [1]})], 1)
    plugin = Holds()
    train(tmp_path, [plugin], 1, resume=True)
    assert plugin.held == {"a": [1]} and plugin.steps == 8


def test_a_plugin_that_says_its_state(tmp_path: Path) -> None:
    train(tmp_path, [Says()], 1)
    plugin = Says()
    train(tmp_path, [plugin], 2, resume=True)
    assert plugin.at == 15, "8 steps for each experience, from 0"


def test_trusted_plugins_are_pickled_and_only_then_unpickled(tmp_path: Path) -> None:
    RAN.clear()
    train(tmp_path, [Holds(Code())], 1, trust_plugins=True)
    assert not RAN
    with pytest.raises(
        CheckpointError, match=r"Holds\.held: .* pickle of .*hostile:Code.*trust_plugins=True"
    ):
        train(tmp_path, [Holds(Code())], 1, resume=True)
    assert not RAN
    plugin = Holds()
    train(tmp_path, [plugin], 1, resume=True, trust_plugins=True)
    assert RAN == ["code"] and isinstance(plugin.held, Code)


def test_what_a_pickle_shares_stays_shared(tmp_path: Path) -> None:
    first = Later()
    train(tmp_path, [first], 1, trust_plugins=True)
    plugin = Later()
    made = train(tmp_path, [plugin], 1, resume=True, trust_plugins=True)
    assert torch.equal(plugin.network.weight, first.weight) and plugin.weight is not first.weight
    assert plugin.weight is plugin.network.weight
    assert plugin.of[0] is plugin.network and plugin.of[1] is made.model


def test_what_would_become_two_is_refused() -> None:
    inner = Holds([1])
    with pytest.raises(CheckpointError, match=r"value\[1\] is also part of value\[0\]"):
        Encoder({}, pickles=True).encode([Stranger(inner), inner], "value")
    found = io.BytesIO()
    torch.save(Encoder({}, pickles=True).encode([Stranger(3)], "value"), found)


class Stranger:
    def __init__(self, held: Any) -> None:
        self.held = held
