"""Objects from plain data: the way back from what :mod:`.encoder` wrote."""

from __future__ import annotations

import copy
import enum
import functools
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from avalanche_branchtune.checkpoints.encoder import KIND
from avalanche_branchtune.checkpoints.names import OWN, find, name_of
from avalanche_branchtune.errors import CheckpointError

KINDS = frozenset(
    {"array", "copy", "default", "deque", "dict", "frozenset", "image", "in place", "kept", "list"}
    | {"member", "name", "object", "ordered", "parameter", "partial", "path", "range", "scalar"}
    | {"set", "tensor", "torch", "tuple"}
)
"""Kinds of what is no plain value, beside ``live`` and ``seen``."""


class Decoder:
    """Turns plain data back into objects.

    :param live: what was given to :class:`.Encoder`, in the process that reads.
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
        :raises CheckpointError: for data that :class:`.Encoder` does not make, and for what was to
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

        :param nodes: see :meth:`.Encoder.fill`.
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
        found = find(node["value"])
        if found is None:
            raise CheckpointError(f"{where}: {node['value']!r} is not known here")
        return found

    def _member(self, node: Any, where: str, there: Any) -> Any:
        cls = find(node["class"])
        if not (isinstance(cls, type) and issubclass(cls, enum.Enum)):
            raise CheckpointError(f"{where}: the class {node['class']!r} is not known here")
        return cls[node["name"]]

    def _partial(self, node: Any, where: str, there: Any) -> Any:
        function = self.decode(node["function"], where)
        if not str(getattr(function, "__module__", "")).startswith(OWN):
            raise CheckpointError(f"{where}: a call of {function}")
        old = (list(there.args), dict(there.keywords)) if type(there) is functools.partial else ()
        args, keywords = (
            self.decode(node[k], f"{where}.{k}", old[i] if old else None)
            for i, k in enumerate(("args", "keywords"))
        )
        return functools.partial(function, *args, **keywords)

    def _object(self, node: Any, where: str, there: Any) -> Any:
        name = name_of(type(there))
        value = there if name == node["class"] else self.made(node["class"], where)
        return self._with_vars(node, where, value)

    def made(self, name: str, where: str) -> Any:
        """Return a new object of a class, without attributes.

        :param name: ``"module:class"``.
        :param where: for messages.
        :raises CheckpointError: for a class that is not trusted, or not there.
        """
        cls = find(name)
        if not isinstance(cls, type):
            raise CheckpointError(f"{where}: the class {name!r} is not known here")
        made: Any = object.__new__(cls)
        if isinstance(made, nn.Module):
            nn.Module.__init__(made)
        return made

    def _in_place(self, node: Any, where: str, there: Any) -> Any:
        name = name_of(type(there))
        if name != node["class"]:
            raise CheckpointError(f"{where}: a {node['class']} was to be found here, not {name}")
        return self._with_vars(node, where, there)

    def _copy(self, node: Any, where: str, there: Any) -> Any:
        name = name_of(type(there))
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
