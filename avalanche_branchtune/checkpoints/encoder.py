"""Objects as plain data, and back: what a checkpoint's file holds and a reader can trust.

Plain data are numbers, texts, tensors, and lists and dictionaries of them: ``torch.load(…,
weights_only=True)`` reads them.  Whatever else there is becomes a dictionary with a kind, see
:class:`Encoder`; nothing in it is ever called.  An object that is there already (the network that a
script has made anew) is filled in its place, so that whoever knows it goes on knowing it; another
one is made of its class, without its constructor, if the class is one of :data:`.TRUSTED`.
"""

from __future__ import annotations

import enum
import functools
import io
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

from avalanche_branchtune.checkpoints.names import find, name_of
from avalanche_branchtune.errors import CheckpointError

KIND = "@"
"""Key of what is no plain value: its kind."""

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
            name = name_of(kind)
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
            if find(name) is value:
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
        name = name_of(type(value))
        content = {k: self.encode(v, f"{where}.{k}") for k, v in vars(value).items()}
        if find(name) is type(value):
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


def _torch_text(value: Any) -> str:
    if isinstance(value, torch.dtype):
        return f"dtype:{str(value).removeprefix('torch.')}"
    if isinstance(value, torch.device):
        return f"device:{value}"
    return f"size:{','.join(map(str, value))}"
