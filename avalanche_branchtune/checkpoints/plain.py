"""Objects as plain data, and back: what a checkpoint's file holds and a reader can trust.

Plain data are numbers, texts, tensors, and lists and dictionaries of them: ``torch.load(…,
weights_only=True)`` reads them.  Whatever else there is becomes a dictionary with a kind, see
:class:`Encoder`; nothing in it is ever called.  An object that is there already (the network that a
script has made anew) is filled in its place, so that whoever knows it goes on knowing it; another
one is made of its class, without its constructor, if the class is one of :data:`TRUSTED`.
"""

from __future__ import annotations

import copy
import enum
import functools
import io
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from avalanche_branchtune.errors import CheckpointError

TRUSTED = frozenset(
    {"avalanche", "avalanche_branchtune", "builtins", "collections", "solo", "solo_bridge"}
    | {"timm", "torch", "torchmetrics", "torchvision"}
)
"""Packages of whose classes objects are made, and whose functions are looked up."""

KIND = "@"
"""Key of what is no plain value: its kind."""

KINDS = frozenset(
    {"array", "copy", "default", "deque", "dict", "frozenset", "image", "in place", "kept", "list"}
    | {"member", "name", "object", "ordered", "parameter", "partial", "path", "range", "scalar"}
    | {"set", "tensor", "torch", "tuple"}
)
"""Kinds of what is no plain value, beside ``live`` and ``seen``."""

_OWN = ("avalanche.", "avalanche_branchtune.", "solo_bridge.")
_WITHOUT_STATE = (io.IOBase, types.MethodType, types.ModuleType, RemovableHandle)
_CONTAINERS: dict[type, str] = {list: "list", set: "set", deque: "deque"}
_MAPPINGS: dict[type, str] = {dict: "dict", OrderedDict: "ordered"}
_PLAIN = (type(None), bool, int, float, str, bytes)
_TORCH = (torch.dtype, torch.device, torch.Size)


class Encoder:
    """Turns objects into plain data; an object that is met twice is written once.

    :param live: objects that whoever reads will have, by their names: they are written as names.
    :param known: objects that whoever reads will have where these are: they need no trusted class.
    :param fixed: objects that stand where they stood when all was made, and do not change.
    """

    def __init__(
        self, live: Mapping[str, Any], known: Iterable[Any] = (), fixed: Iterable[Any] = ()
    ) -> None:
        """See the class."""
        self._known = {id(value) for value in known}
        self._fixed = {id(value) for value in fixed}
        self._names = {id(value): name for name, value in live.items()}
        modules = [(type(m), name) for name, m in live.items() if isinstance(m, nn.Module)]
        self._of_class = dict(reversed(modules))  # the first of each
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # ids are given again to what is made later

    def encode(self, value: Any, where: str) -> Any:
        """Return a value as plain data.

        :param value: the value.
        :param where: its name, for messages.
        :raises CheckpointError: for what can be neither written nor found again.
        """
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            return value
        if id(value) in self._names:
            return {KIND: "live", "name": self._names[id(value)]}
        if id(value) in self._seen:
            return {KIND: "seen", "id": self._seen[id(value)]}
        self._seen[id(value)] = number = len(self._seen)
        self._alive.append(value)
        return {"id": number, **self._node(value, where)}

    def fill(self, value: Any, where: str) -> Any:
        """Return what is to be filled into an object that whoever reads has: its attributes.

        :param value: the object.
        :param where: its name.
        """
        return {k: self.encode(v, f"{where}.{k}") for k, v in vars(value).items()}

    def _node(self, value: Any, where: str) -> dict[str, Any]:
        kind = type(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if kind is tuple:
            return {KIND: "tuple", "items": self._items(value, where)}
        if kind in _CONTAINERS:
            found = {KIND: _CONTAINERS[kind], "items": self._items(value, where)}
            return {**found, "length": value.maxlen} if kind is deque else found
        if kind is frozenset:
            return {KIND: "frozenset", "items": self._items(sorted(value), where)}
        if kind in _MAPPINGS or isinstance(value, defaultdict):
            return self._mapping(value, where)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            return {KIND: "array", "tensor": torch.from_numpy(value.copy())}
        if isinstance(value, np.generic):
            return {KIND: "scalar", "type": value.dtype.str, "value": value.item()}
        if isinstance(value, range):
            return {KIND: "range", "of": [value.start, value.stop, value.step]}
        if isinstance(value, _TORCH):
            return {KIND: "torch", "value": _torch_text(value)}
        if isinstance(value, Image.Image):
            pixels = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8)
            return {KIND: "image", "mode": value.mode, "size": list(value.size), "tensor": pixels}
        if isinstance(value, Path):
            return {KIND: "path", "value": str(value)}
        if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
            return self._named(value, where)
        if isinstance(value, enum.Enum):
            name = f"{kind.__module__}:{kind.__qualname__}"
            return {KIND: "member", "class": name, "name": value.name}
        if isinstance(value, functools.partial):
            return self._partial(value, where)
        return self._object(value, where)

    def _items(self, values: Any, where: str) -> list[Any]:
        return [self.encode(v, f"{where}[{i}]") for i, v in enumerate(values)]

    def _mapping(self, value: Any, where: str) -> dict[str, Any]:
        found: dict[str, Any] = {KIND: _MAPPINGS.get(type(value), "default")}
        if isinstance(value, defaultdict):  # in the order in which it is read
            found["factory"] = self.encode(value.default_factory, f"{where}.default_factory")
        found["items"] = [
            [self.encode(k, f"{where}: key"), self.encode(v, f"{where}[{k!r}]")]
            for k, v in value.items()
        ]
        return found

    def _tensor(self, value: Tensor) -> dict[str, Any]:
        kind = "parameter" if isinstance(value, nn.Parameter) else "tensor"
        on = "" if value.device.type == "cpu" else value.device.type
        plain = value.detach().cpu()
        return {KIND: kind, "tensor": plain.clone(), "grad": value.requires_grad, "on": on}

    def _named(self, value: Any, where: str) -> dict[str, Any]:
        names = f"{value.__module__}:{value.__qualname__}", f"torch:{value.__name__}"
        for name in names:  # torch's own functions have no module
            if _find(name) is value:
                return {KIND: "name", "value": name}
        return {KIND: "kept"}  # made by whoever reads, or an error there

    def _partial(self, value: Any, where: str) -> dict[str, Any]:
        function = self.encode(value.func, where)
        parts = {"args": list(value.args), "keywords": dict(value.keywords)}
        made = {k: self.encode(v, f"{where}.{k}") for k, v in parts.items()}
        return {KIND: "partial", "function": function, **made}

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        if id(value) in self._fixed:
            return {KIND: "kept"}
        if isinstance(value, _WITHOUT_STATE):
            return {KIND: "kept"}
        if not hasattr(value, "__dict__") or isinstance(value, dict | list | set | tuple):
            raise self._cannot(value, where)  # what it has become would be lost
        name = f"{type(value).__module__}:{type(value).__qualname__}"
        content = {k: self.encode(v, f"{where}.{k}") for k, v in vars(value).items()}
        if _find(name) is type(value):
            return {KIND: "object", "class": name, "vars": content}
        if type(value) in self._of_class:  # a copy of the network, or of a part: a teacher
            of = self._of_class[type(value)]
            return {KIND: "copy", "of": of, "class": name, "vars": content}
        if id(value) in self._known:
            return {KIND: "in place", "class": name, "vars": content}
        raise self._cannot(value, where)

    @staticmethod
    def _cannot(value: Any, where: str) -> CheckpointError:
        return CheckpointError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be "
            "made anew from a file: leave it out, or let the plugin that has it say its state "
            "(state_dict, load_state_dict)"
        )


class Decoder:
    """Turns plain data back into objects.

    :param live: what was given to :class:`Encoder`, in the process that reads.
    :param device: for tensors that were not on a CPU.
    """

    def __init__(self, live: Mapping[str, Any], device: torch.device) -> None:
        """See the class."""
        self._live = live
        self._device = device
        self._made: dict[int, Any] = {}
        self._filled_ones: dict[int, Any] = {}  # by id; kept, so that no id is given again

    def decode(self, node: Any, where: str, there: Any = None) -> Any:
        """Return the value.

        :param node: plain data.
        :param where: its name, for messages.
        :param there: what stands in its place: filled, if it is of the same kind.
        :raises CheckpointError: for data that :class:`Encoder` does not make, and for what was to
            be found here and is not.
        """
        if not isinstance(node, dict):
            return node
        kind = node.get(KIND)
        if kind == "live":
            if node["name"] not in self._live:
                raise CheckpointError(f"{where}: there is no {node['name']} here")
            return self._live[node["name"]]
        if kind == "seen":
            return self._made[node["id"]]
        if kind not in KINDS or "id" not in node:
            raise CheckpointError(f"{where}: unknown kind of data {kind!r}")
        if id(there) in self._filled_ones and kind not in ("kept", "in place"):
            there = None  # two objects may have been one here
        elif there is not None:
            self._filled_ones[id(there)] = there
        try:
            value = getattr(self, f"_{str(kind).replace(' ', '_')}")(node, where, there)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{where}: {kind} cannot be read: {error!r}") from error
        self._made[node["id"]] = value
        return value

    def fill(self, nodes: Mapping[str, Any], value: Any, where: str) -> None:
        """Put attributes into an object, and take away those that it has besides.

        :param nodes: see :meth:`Encoder.fill`.
        :param value: the object.
        :param where: its name.
        """
        old = dict(vars(value))
        new = {k: self.decode(n, f"{where}.{k}", old.get(k)) for k, n in nodes.items()}
        vars(value).clear()
        vars(value).update(new)

    # ---- kinds

    def _list(self, node: Any, where: str, there: Any) -> Any:
        found = there if type(there) is list else []
        return self._filled(node, where, found)

    def _filled(self, node: Any, where: str, found: Any) -> Any:
        self._made[node["id"]] = found
        old = list(found)
        items = [
            self.decode(n, f"{where}[{i}]", old[i] if i < len(old) else None)
            for i, n in enumerate(node["items"])
        ]
        found.clear()
        found.extend(items)
        return found

    def _deque(self, node: Any, where: str, there: Any) -> Any:
        same = type(there) is deque and there.maxlen == node["length"]
        return self._filled(node, where, there if same else deque(maxlen=node["length"]))

    def _set(self, node: Any, where: str, there: Any) -> Any:
        return {self.decode(n, where) for n in node["items"]}

    def _frozenset(self, node: Any, where: str, there: Any) -> Any:
        return frozenset(self.decode(n, where) for n in node["items"])

    def _tuple(self, node: Any, where: str, there: Any) -> Any:
        old = there if type(there) is tuple else ()
        return tuple(
            self.decode(n, f"{where}[{i}]", old[i] if i < len(old) else None)
            for i, n in enumerate(node["items"])
        )

    def _dict(self, node: Any, where: str, there: Any) -> Any:
        return self._mapped(node, where, there if type(there) is dict else {})

    def _ordered(self, node: Any, where: str, there: Any) -> Any:
        return self._mapped(node, where, there if type(there) is OrderedDict else OrderedDict())

    def _default(self, node: Any, where: str, there: Any) -> Any:
        old = there.default_factory if isinstance(there, defaultdict) else None
        factory = self.decode(node["factory"], f"{where}.default_factory", old)
        if isinstance(there, defaultdict):
            return self._mapped(node, where, there)
        harmless = factory in (None, bool, dict, float, int, list, set, str)
        if not (harmless or isinstance(factory, functools.partial)):  # see _partial
            raise CheckpointError(f"{where}: a dictionary that calls {factory}")
        return self._mapped(node, where, defaultdict(factory))

    def _mapped(self, node: Any, where: str, found: Any) -> Any:
        self._made[node["id"]] = found
        old, pairs = dict(found), []
        for key_node, value_node in node["items"]:
            key = self.decode(key_node, f"{where}: key")
            pairs.append((key, self.decode(value_node, f"{where}[{key!r}]", old.get(key))))
        found.clear()
        found.update(pairs)
        return found

    @torch.no_grad()
    def _tensor(self, node: Any, where: str, there: Any) -> Any:
        value = node["tensor"]
        same = isinstance(there, Tensor) and not isinstance(there, nn.Parameter) and there.is_leaf
        if same and there.shape == value.shape and there.dtype == value.dtype:
            return there.copy_(value).requires_grad_(node["grad"])
        return self._moved(node).requires_grad_(node["grad"])

    @torch.no_grad()
    def _parameter(self, node: Any, where: str, there: Any) -> Any:
        value = node["tensor"]
        same = isinstance(there, nn.Parameter) and there.shape == value.shape
        if same and there.dtype == value.dtype:
            there.copy_(value)
            return there.requires_grad_(node["grad"])
        return nn.Parameter(self._moved(node), node["grad"])

    def _moved(self, node: Any) -> Tensor:
        value: Tensor = node["tensor"].clone()
        return value.to(self._device) if node["on"] else value

    def _array(self, node: Any, where: str, there: Any) -> Any:
        return node["tensor"].numpy().copy()

    def _scalar(self, node: Any, where: str, there: Any) -> Any:
        return np.dtype(node["type"]).type(node["value"])

    def _range(self, node: Any, where: str, there: Any) -> Any:
        return range(*node["of"])

    def _torch(self, node: Any, where: str, there: Any) -> Any:
        kind, text = node["value"].split(":", 1)
        if kind == "dtype" and isinstance(getattr(torch, text, None), torch.dtype):
            return getattr(torch, text)
        if kind == "device":
            return torch.device(text)
        if kind == "size":
            return torch.Size(int(n) for n in text.split(",") if n)
        raise CheckpointError(f"{where}: unknown {node['value']!r}")

    def _image(self, node: Any, where: str, there: Any) -> Any:
        width, height = node["size"]
        return Image.frombytes(node["mode"], (width, height), node["tensor"].numpy().tobytes())

    def _path(self, node: Any, where: str, there: Any) -> Any:
        return Path(node["value"])

    def _name(self, node: Any, where: str, there: Any) -> Any:
        found = _find(node["value"])
        if found is None:
            raise CheckpointError(f"{where}: {node['value']!r} is not known here")
        return found

    def _member(self, node: Any, where: str, there: Any) -> Any:
        cls = _find(node["class"])
        if not (isinstance(cls, type) and issubclass(cls, enum.Enum)):
            raise CheckpointError(f"{where}: the class {node['class']!r} is not known here")
        return cls[node["name"]]

    def _partial(self, node: Any, where: str, there: Any) -> Any:
        function = self.decode(node["function"], where)
        if not str(getattr(function, "__module__", "")).startswith(_OWN):
            raise CheckpointError(f"{where}: a call of {function}")
        old = (list(there.args), dict(there.keywords)) if type(there) is functools.partial else ()
        args, keywords = (
            self.decode(node[k], f"{where}.{k}", old[i] if old else None)
            for i, k in enumerate(("args", "keywords"))
        )
        return functools.partial(function, *args, **keywords)

    def _object(self, node: Any, where: str, there: Any) -> Any:
        name = f"{type(there).__module__}:{type(there).__qualname__}"
        value = there if name == node["class"] else self.made(node["class"], where)
        return self._with_vars(node, where, value)

    def made(self, name: str, where: str) -> Any:
        """Return a new object of a class, without attributes.

        :param name: ``"module:class"``.
        :param where: for messages.
        :raises CheckpointError: for a class that is not trusted, or not there.
        """
        cls = _find(name)
        if not isinstance(cls, type):
            raise CheckpointError(f"{where}: the class {name!r} is not known here")
        made: Any = object.__new__(cls)
        if isinstance(made, nn.Module):
            nn.Module.__init__(made)
        return made

    def _in_place(self, node: Any, where: str, there: Any) -> Any:
        name = f"{type(there).__module__}:{type(there).__qualname__}"
        if name != node["class"]:
            raise CheckpointError(f"{where}: a {node['class']} was to be found here, not {name}")
        return self._with_vars(node, where, there)

    def _copy(self, node: Any, where: str, there: Any) -> Any:
        name = f"{type(there).__module__}:{type(there).__qualname__}"
        value = there if name == node["class"] else copy.deepcopy(self._live[node["of"]])
        return self._with_vars(node, where, value)

    def _with_vars(self, node: Any, where: str, value: Any) -> Any:
        self._made[node["id"]] = value
        self.fill(node["vars"], value, where)
        return value

    def _kept(self, node: Any, where: str, there: Any) -> Any:
        if there is None:
            raise CheckpointError(f"{where}: something was to be found here, and nothing is")
        return there


def _find(name: str) -> Any:
    """Return a class or function by its name, None if it is not one of those that are trusted."""
    module, _, qualified = name.partition(":")
    found = sys.modules.get(module) if module.split(".")[0] in TRUSTED else None
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return found


def _torch_text(value: Any) -> str:
    if isinstance(value, torch.dtype):
        return f"dtype:{str(value).removeprefix('torch.')}"
    if isinstance(value, torch.device):
        return f"device:{value}"
    return f"size:{','.join(map(str, value))}"
