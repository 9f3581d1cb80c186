"""Objects from plain data: the way back from what :mod:`.encoder` wrote."""

from __future__ import annotations

import copy
import enum
import functools
import re
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from avalanche_branchtune.checkpoints.data import DATA, found_again
from avalanche_branchtune.checkpoints.encoder import (
    KIND,
    PLAIN,
    STATELESS,
    called,
    in_brief,
    left_out_of,
    says_its_state,
)
from avalanche_branchtune.checkpoints.logs import lines_of, put_back
from avalanche_branchtune.checkpoints.names import BOUND, find, lives_in, name_of
from avalanche_branchtune.checkpoints.pickles import unpickled
from avalanche_branchtune.errors import CheckpointError

KINDS = frozenset(
    {"array", "bytes", "copy", "default", "deque", "dict", "frozenset", "image", "in place", "kept"}
    | {"list", "log", "member", "name", "object", "ordered", "parameter", "partial", "path"}
    | {"pickle", "range", "scalar", "set", "tensor", "torch", "tuple"}
)
"""Kinds of what is no plain value, beside ``live`` and ``seen``."""


class Decoder:
    """Turns plain data back into objects.

    :param live: what was given to :class:`.Encoder`, in the process that reads.
    :param device: for tensors that were not on a CPU, and for devices of its type: of several GPUs
        each process has its own.
    :param pickles: whether to read pickles, which can run anything.
    """

    def __init__(
        self, live: Mapping[str, Any], device: torch.device, *, pickles: bool = False
    ) -> None:
        """See the class."""
        self._pickles = pickles
        self._begun: set[int] = set()
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
        if isinstance(node, PLAIN) and type(node) in PLAIN:
            return node
        try:
            return self._decoded(node, where, there)
        except CheckpointError:
            raise
        except Exception as error:  # whatever a damaged or hostile file can cause
            raise CheckpointError(f"{where} cannot be read: {error!r}") from error

    def _decoded(self, node: Any, where: str, there: Any) -> Any:
        kind = node[KIND] if isinstance(node, dict) and KIND in node else type(node).__name__
        if kind == "live":
            if node["name"] not in self._live:
                raise CheckpointError(f"{where}: there is no {node['name']} here")
            return self._live[node["name"]]
        if kind == "seen":
            return self._made[node["id"]]
        if kind not in KINDS or node["id"] in self._begun:  # a file can hold one part twice
            raise CheckpointError(f"{where}: unknown kind of data {kind!r}")
        self._begun.add(node["id"])
        if id(there) in self._filled_ones and kind not in ("kept", "in place"):
            there = None  # two objects may have been one here
        elif there is not None:
            self._filled_ones[id(there)] = there
        value = getattr(self, f"_{kind.replace(' ', '_')}")(node, where, there)
        if kind in ("parameter", "tensor"):
            value.grad = self.decode(node.get("gradient"), f"{where}.grad")
        stays = kind in ("kept", "log") and not found_again(value)
        if not stays:  # nothing else in a file refers to what does
            self._made[node["id"]] = value
        return value

    def fill(self, nodes: Mapping[str, Any], value: Any, where: str) -> None:
        """Put attributes into an object, and take away those that it has besides.

        :param nodes: see :meth:`.Encoder.fill`.
        :param value: the object.
        :param where: its name.
        :raises CheckpointError: see :meth:`decode`.
        """
        if says_its_state(value):
            if nodes.get(KIND) != "own":
                raise CheckpointError(
                    f"{where} did not say its state (state_dict) when it was saved"
                )
            value.load_state_dict(self.decode(nodes["state"], f"{where}.state_dict()"))
            return
        if KIND in nodes or isinstance(value, STATELESS):
            raise CheckpointError(
                f"{where} is a {name_of(type(value))} here, which has no such state"
            )
        old = dict(vars(value))
        new = {k: self.decode(n, f"{where}.{k}", old.get(k)) for k, n in nodes.items()}
        new.update({k: old[k] for k in left_out_of(value) if k in old})
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
            pairs.append((key, self.decode(value_node, f"{where}[{in_brief(key)}]", old.get(key))))
        found.clear()
        found.update(pairs)
        return found

    @torch.no_grad()
    def _tensor(self, node: Any, where: str, there: Any) -> Any:
        value = _numbers(node, where)
        same = isinstance(there, Tensor) and not isinstance(there, nn.Parameter) and there.is_leaf
        if same and there.shape == value.shape and there.dtype == value.dtype:
            return there.copy_(value).requires_grad_(node["grad"])
        return self._moved(node, value).requires_grad_(node["grad"])

    @torch.no_grad()
    def _parameter(self, node: Any, where: str, there: Any) -> Any:
        value = _numbers(node, where)
        same = isinstance(there, nn.Parameter) and there.shape == value.shape
        if same and there.dtype == value.dtype:
            there.copy_(value)
            return there.requires_grad_(node["grad"])
        return nn.Parameter(self._moved(node, value), node["grad"])

    def _moved(self, node: Any, value: Tensor) -> Tensor:
        return value.to(self._device, copy=True) if node["on"] else value.clone()

    def _array(self, node: Any, where: str, there: Any) -> Any:
        return _numbers(node, where).numpy().copy()

    def _scalar(self, node: Any, where: str, there: Any) -> Any:
        if not re.fullmatch(r"[<>|=][biufU]\d+", node["type"]):
            raise CheckpointError(f"{where}: unknown number {node['type']!r}")
        return np.dtype(node["type"]).type(node["value"])

    def _range(self, node: Any, where: str, there: Any) -> Any:
        return range(*node["of"])

    def _torch(self, node: Any, where: str, there: Any) -> Any:
        kind, text = node["value"].split(":", 1)
        if kind == "dtype" and isinstance(getattr(torch, text, None), torch.dtype):
            return getattr(torch, text)
        if kind == "device":
            device = torch.device(text)
            return self._device if device.type == self._device.type else device
        if kind == "size":
            return torch.Size(int(n) for n in text.split(",") if n)
        raise CheckpointError(f"{where}: unknown {node['value']!r}")

    def _bytes(self, node: Any, where: str, there: Any) -> Any:
        return _numbers(node, where).numpy().tobytes()

    def _image(self, node: Any, where: str, there: Any) -> Any:
        (width, height), pixels = node["size"], _numbers(node, where)
        if not 0 < width * height <= 8 * pixels.numel():
            raise CheckpointError(f"{where}: {pixels.numel()} bytes of {width} x {height} pixels")
        return Image.frombytes(node["mode"], (width, height), pixels.numpy().tobytes())

    def _path(self, node: Any, where: str, there: Any) -> Any:
        return there if isinstance(there, Path) else Path(node["value"])  # where it now lies

    def _name(self, node: Any, where: str, there: Any) -> Any:
        name = node["value"]
        if isinstance(there, types.FunctionType | type) and name_of(there) == name:
            return there
        found = find(name)
        if found is None:
            raise CheckpointError(f"{where}: {name!r} is not known here")
        return found

    def _member(self, node: Any, where: str, there: Any) -> Any:
        cls = find(node["class"])
        if not (isinstance(cls, type) and issubclass(cls, enum.Enum)):
            raise CheckpointError(f"{where}: the class {node['class']!r} is not known here")
        return cls[node["name"]]

    def _partial(self, node: Any, where: str, there: Any) -> Any:
        function = self.decode(node["function"], where)
        if not (isinstance(function, types.FunctionType) and lives_in(function, BOUND)):
            raise CheckpointError(f"{where}: a call of {function}")
        old = (list(there.args), dict(there.keywords)) if type(there) is functools.partial else ()
        args, keywords = (
            self.decode(node[k], f"{where}.{k}", old[i] if old else None)
            for i, k in enumerate(("args", "keywords"))
        )
        return functools.partial(function, *args, **keywords)

    def _object(self, node: Any, where: str, there: Any) -> Any:
        name = name_of(type(there))
        same = name == node["class"] and not isinstance(there, DATA)  # it would be found again
        value = there if same else self.made(node["class"], where)
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
        of = self._live[node["of"]]
        if name != node["class"] and not (
            isinstance(of, nn.Module) and name_of(type(of)) == node["class"]
        ):
            raise CheckpointError(f"{where}: {node['of']} is no {node['class']}")
        value = there if name == node["class"] else copy.deepcopy(of)
        return self._with_vars(node, where, value)

    def _with_vars(self, node: Any, where: str, value: Any) -> Any:
        self._made[node["id"]] = value
        self.fill(node["vars"], value, where)
        return value

    def _kept(self, node: Any, where: str, there: Any) -> Any:
        if there is None:
            raise CheckpointError(f"{where}: something was to be found here, and nothing is")
        if node.get("called", called(there)) != called(there):
            raise CheckpointError(
                f"{where}: {node['called']} was to be found here, not {called(there)}; a function "
                "that a plugin takes up in training cannot be saved: let it keep its name instead"
            )
        return there

    def _log(self, node: Any, where: str, there: Any) -> Any:
        if lines_of(there) is not None:  # else it goes to a terminal now
            put_back(there, _numbers(node, where).numpy().tobytes())
        return self._kept(node, where, there)

    def _pickle(self, node: Any, where: str, there: Any) -> Any:
        if not self._pickles:
            raise CheckpointError(
                f"{where}: the checkpoint holds a pickle of {node['class']}, and a pickle can run "
                "anything when it is read: pass Checkpoints(trust_plugins=True) if you trust who "
                "wrote it"
            )
        return unpickled(
            _numbers(node, where).numpy().tobytes(), [self.decode(n, where) for n in node["parts"]]
        )


def _numbers(node: Any, where: str) -> Tensor:
    """Return a node's tensor if it is no larger than what lies in the file."""
    value = node["tensor"]
    if isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu":
        size, there = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        if size <= there:
            return value.detach()
    raise CheckpointError(f"{where}: no tensor that a checkpoint holds")
