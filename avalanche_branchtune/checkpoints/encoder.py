"""Objects as plain data, and back: what a checkpoint's file holds and a reader can trust.

Plain data are numbers, texts, tensors, and lists and dictionaries of them: ``torch.load(…,
weights_only=True)`` reads them.  Whatever else there is becomes a dictionary with a kind, see
:class:`Encoder`; nothing in it is ever called.  An object that is there already (the network that a
script has made anew) is filled in its place, so that whoever knows it goes on knowing it; another
one is made of its class, without its constructor, if a file can mean it, see :mod:`.names`.

A plugin, metric or logger with ``state_dict`` and ``load_state_dict`` says its state itself; any
other is written by its attributes, which is exact if all of them can be written.  What cannot be is
refused by its name, or pickled for a user who trusts it.
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
from avalanche.core import BasePlugin
from avalanche.evaluation import PluginMetric
from avalanche.logging import BaseLogger, InteractiveLogger
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from avalanche_branchtune.checkpoints.logs import lines_of
from avalanche_branchtune.checkpoints.names import BOUND, find, lives_in, name_of
from avalanche_branchtune.checkpoints.pickles import pickled
from avalanche_branchtune.errors import CheckpointError
from avalanche_branchtune.loading import EndlessMinibatches

KIND = "@"
"""Key of what is no plain value: its kind."""

STATELESS = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, enum.Enum)
"""What has attributes that are no state of a run."""

_CALLS = (types.BuiltinFunctionType, types.FunctionType, types.MethodType, functools.partial)
_KEPT = (io.IOBase, types.ModuleType, RemovableHandle)
_TENSORBOARD = "torch.utils.tensorboard.writer"
_CONTAINERS: dict[type, str] = {list: "list", set: "set", deque: "deque"}
_MAPPINGS: dict[type, str] = {dict: "dict", OrderedDict: "ordered"}
PLAIN = (type(None), bool, int, float, str)
_TORCH = (torch.dtype, torch.device, torch.Size)


class Encoder:
    """Turns objects into plain data; an object that is met twice is written once.

    :param live: objects that whoever reads will have, by their names: they are written as names.
    :param known: objects that whoever reads will have where these are: they need no trusted class.
    :param fixed: objects that stand where they stood when all was made, and do not change.
    :param spent: weights whose gradients nobody will use again.
    :param pickles: whether to pickle what cannot be written.
    """

    def __init__(
        self,
        live: Mapping[str, Any],
        known: Iterable[Any] = (),
        fixed: Iterable[Any] = (),
        spent: Iterable[Tensor] = (),
        *,
        pickles: bool = False,
    ) -> None:
        """See the class."""
        self._pickles = pickles
        self._stored: dict[int, torch.dtype] = {}
        self._inside: dict[int, str] = {}  # what is part of a pickle, and of which
        self._known = {id(value) for value in known}
        self._fixed = {id(value) for value in fixed}
        self._spent = {id(value) for value in spent}
        self._names = {id(value): name for name, value in live.items()}
        modules = [(type(m), name) for name, m in live.items() if isinstance(m, nn.Module)]
        self._of_class = dict(reversed(modules))  # the first of each
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # ids are given again to what is made later

    def encode(self, value: Any, where: str) -> Any:
        """Return a value as plain data.

        Whole tensors on a CPU are not copied: write it before they change.

        :param value: the value.
        :param where: its name, for messages.
        :raises CheckpointError: for what can be neither written nor found again.
        """
        if isinstance(value, PLAIN) and type(value) in PLAIN:
            return value
        if isinstance(value, EndlessMinibatches):
            return None  # whoever has them makes them anew
        if id(value) in self._names:
            return {KIND: "live", "name": self._names[id(value)]}
        if id(value) in self._seen:
            return {KIND: "seen", "id": self._seen[id(value)]}
        if id(value) in self._inside:
            raise CheckpointError(
                f"{where} is also part of {self._inside[id(value)]}, which is pickled: they would "
                "become two; let the plugin say its state (state_dict, load_state_dict)"
            )
        self._alive.append(value)
        self._seen[id(value)] = number = len(self._alive)
        node = self._node(value, where)
        if node[KIND] in ("kept", "log") and id(value) not in self._fixed:
            del self._seen[id(value)]  # each stays where it stands
        return {"id": number, **node}

    def fill(self, value: Any, where: str) -> Any:
        """Return what is to be filled into an object that whoever reads has: its state.

        :param value: the object.
        :param where: its name.
        """
        if says_its_state(value):
            return {KIND: "own", "state": self.encode(value.state_dict(), f"{where}.state_dict()")}
        left_out = left_out_of(value)
        return {
            k: self.encode(v, f"{where}.{k}") for k, v in vars(value).items() if k not in left_out
        }

    def _node(self, value: Any, where: str) -> dict[str, Any]:
        kind = type(value)
        if isinstance(value, Tensor):
            return self._tensor(value, where)
        if kind is tuple:
            return {KIND: "tuple", "items": self._items(value, where)}
        if kind in _CONTAINERS:
            found = {KIND: _CONTAINERS[kind], "items": self._items(value, where)}
            return {**found, "length": value.maxlen} if kind is deque else found
        if kind is frozenset:
            return {KIND: "frozenset", "items": self._items(sorted(value, key=repr), where)}
        if kind in _MAPPINGS or isinstance(value, defaultdict):
            return self._mapping(value, where)
        if type(value) in (np.ndarray, np.memmap) and _torch_knows(value.dtype):
            return {KIND: "array", "tensor": torch.from_numpy(value.copy())}
        if isinstance(value, np.generic):
            return {KIND: "scalar", "type": value.dtype.str, "value": value.item()}
        if isinstance(value, range):
            return {KIND: "range", "of": [value.start, value.stop, value.step]}
        if isinstance(value, _TORCH):
            return {KIND: "torch", "value": _torch_text(value)}
        if isinstance(value, Image.Image):
            pixels = _octets(value.tobytes())
            return {KIND: "image", "mode": value.mode, "size": list(value.size), "tensor": pixels}
        if kind is bytes:
            return {KIND: "bytes", "tensor": _octets(value)}
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
            [self.encode(k, f"{where}: key"), self.encode(v, f"{where}[{in_brief(k)}]")]
            for k, v in value.items()
        ]
        return found

    def _tensor(self, value: Tensor, where: str) -> dict[str, Any]:
        if value.layout is not torch.strided or value.is_quantized:
            return self._pickled(value, where)
        kind = "parameter" if isinstance(value, nn.Parameter) else "tensor"
        on = "" if value.device.type == "cpu" else value.device.type
        plain = value.detach().cpu()
        node = {KIND: kind, "tensor": self._whole(plain), "grad": value.requires_grad, "on": on}
        if value.is_leaf and value.grad is not None and id(value) not in self._spent:
            node["gradient"] = self.encode(value.grad, f"{where}.grad")
        return node

    def _whole(self, value: Tensor) -> Tensor:
        """Return a tensor itself if torch writes nothing besides, else a copy of it alone."""
        storage = value.untyped_storage()
        whole = storage.nbytes() == value.numel() * value.element_size()
        dtype = self._stored.setdefault(storage.data_ptr(), value.dtype)  # torch writes one of each
        return value if whole and dtype == value.dtype else value.clone()

    def _named(self, value: Any, where: str) -> dict[str, Any]:
        names = name_of(value), f"torch:{value.__name__}"
        for name in names:  # torch's own functions have no module
            if find(name) is value:
                return {KIND: "name", "value": name}
        return self._function(value, where)

    def _function(self, value: Any, where: str) -> dict[str, Any]:
        """Say what a function is called that no file can mean, if whoever reads has it there."""
        if isinstance(value, type) or id(value) in self._known:
            return {KIND: "kept", "called": called(value)}
        return self._pickled(value, where)

    def _partial(self, value: Any, where: str) -> dict[str, Any]:
        if not (isinstance(value.func, types.FunctionType) and lives_in(value.func, BOUND)):
            return self._function(value, where)
        function = self.encode(value.func, where)
        parts = {"args": list(value.args), "keywords": dict(value.keywords)}
        made = {k: self.encode(v, f"{where}.{k}") for k, v in parts.items()}
        return {KIND: "partial", "function": function, **made}

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        if id(value) in self._fixed:
            return {KIND: "kept"}
        lines = lines_of(value)
        if lines is not None:
            return {KIND: "log", "tensor": _octets(lines)}
        if isinstance(value, types.MethodType):
            return self._function(value, where)
        if isinstance(value, _KEPT) or type(value).__module__ == _TENSORBOARD:
            return {KIND: "kept"}
        if not hasattr(value, "__dict__") or _has_more(value):
            return self._pickled(value, where)  # what it has become would be lost
        name = name_of(type(value))
        if find(name) is type(value):
            return {KIND: "object", "class": name, "vars": self.fill(value, where)}
        if type(value) in self._of_class:  # a copy of the network, or of a part: a teacher
            of = self._of_class[type(value)]
            return {KIND: "copy", "of": of, "class": name, "vars": self.fill(value, where)}
        if id(value) in self._known:
            return {KIND: "in place", "class": name, "vars": self.fill(value, where)}
        return self._pickled(value, where)

    def _pickled(self, value: Any, where: str) -> dict[str, Any]:
        if not self._pickles:
            raise self._cannot(value, where)
        parts: list[Any] = []

        def part(inner: Any) -> int | None:
            if inner is value:
                return None
            if isinstance(inner, Tensor) or id(inner) in self._names or id(inner) in self._seen:
                parts.append(self.encode(inner, where))
                return len(parts) - 1
            has_state = isinstance(inner, dict | list | set) or hasattr(inner, "__dict__")
            if has_state and not isinstance(inner, STATELESS) and id(inner) not in self._fixed:
                self._inside[id(inner)] = where
                self._alive.append(inner)
            return None

        try:
            content = pickled(value, part)
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"{where} cannot be pickled either: {error!r}") from error
        return {
            KIND: "pickle",
            "class": name_of(type(value)),
            "tensor": _octets(content),
            "parts": parts,
        }

    @staticmethod
    def _cannot(value: Any, where: str) -> CheckpointError:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if isinstance(value, _CALLS):
            kind = f"function, {called(value)}, that was not there before training"
        return CheckpointError(
            f"{where} is a {kind}, which cannot be made anew from a file: leave it out, let "
            "the plugin that has it say its state (state_dict, load_state_dict), or pass "
            "Checkpoints(trust_plugins=True) to pickle it"
        )


def left_out_of(value: Any) -> frozenset[str]:
    """Return which attributes of an object are not its state.

    :param value: any object; a schedule puts something around an optimizer's step, and Avalanche's
        logger makes its progress bar when it needs one.
    """
    if isinstance(value, InteractiveLogger):
        return frozenset({"_pbar"})
    return frozenset({"step"} if isinstance(value, Optimizer) else ())


def called(value: Any) -> str:
    """Return what a function is called in its module, also with arguments bound to it.

    :param value: a function, a method or a partial call.
    """
    if isinstance(value, functools.partial):
        return called(value.func)
    return getattr(value, "__qualname__", type(value).__qualname__)


def says_its_state(value: Any) -> bool:
    """Tell whether a plugin, metric or logger says its state by torch's two words.

    :param value: any object.
    """
    if not isinstance(value, BasePlugin | PluginMetric | BaseLogger):
        return False
    return hasattr(type(value), "state_dict") and hasattr(type(value), "load_state_dict")


class _Plain:
    """All of whose state is in its attributes' dictionary."""


def _has_more(value: Any) -> bool:
    """Tell whether an object has state besides its dictionary: items, slots, a generator's state.

    :param value: any object; texts and numbers, which do not change, have none.
    """
    if isinstance(value, str | bytes | int | float):
        return False
    return isinstance(value, tuple) or type(value).__basicsize__ > _Plain.__basicsize__


def _torch_knows(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" and dtype.isnative and dtype.itemsize <= 8


def _torch_text(value: Any) -> str:
    if isinstance(value, torch.dtype):
        return f"dtype:{str(value).removeprefix('torch.')}"
    if isinstance(value, torch.device):
        return f"device:{value}"
    return f"size:{','.join(map(str, value))}"


def _octets(value: bytes) -> Tensor:
    return torch.tensor(np.frombuffer(value, np.uint8))


def in_brief(key: Any) -> str:
    """Return a key as messages name it: a parameter of an optimizer's state takes long to show.

    :param key: of a dictionary.
    """
    return repr(key) if isinstance(key, PLAIN) else f"a {type(key).__name__}"
