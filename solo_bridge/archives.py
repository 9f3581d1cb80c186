"""What ``torch.save`` wrote, read as data: nothing that a file names is imported or called.

Both of torch's formats: the zip archive, each record of which has a checksum, and the row of
pickles before torch 1.6.  No size is believed before it was compared with the file's own.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import pickletools
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

LEGACY = (0x1950A86A20F9469CFC6C, 1001)
"""What a file of the older format begins with: torch's magic number and its version."""

# Where the classes come from that real checkpoints hold beside tensors: hyper-parameters of
# OmegaConf or argparse, schedulers (solo-learn's SimSiam stores a whole one), callbacks.
_HARMLESS = frozenset(
    {"argparse", "collections", "functools", "lightning", "lightning_fabric", "numpy", "omegaconf"}
    | {"pathlib", "pytorch_lightning", "solo", "torch._tensor", "torch._utils", "torch.optim"}
    | {"torch.nn.parameter", "torch.serialization", "torch.storage", "typing"}
    | {f"torch.{name}" for name in ("Size", "Tensor", "device", "strided")}
    | {f"torch.per_{each}_affine" for each in ("tensor", "channel")}
)
_HARMLESS_BUILTINS = frozenset(
    {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int"}
    | {"list", "object", "set", "slice", "str", "tuple", "type"}
)
_MAPPINGS = ("AttributeDict", "OrderedDict", "defaultdict")
_STORED = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "QInt32Storage": torch.qint32,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}


@dataclass(frozen=True)
class Storage:
    """A row of numbers in a file.

    :param key: its name there.
    :param dtype: of one number.
    :param numel: how many there are said to be.
    """

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, not read yet.

    :param kind: ``""`` for one that can be read, else what makes it unlike others.
    :param storage: where its numbers are.
    :param dtype: of one number.
    :param offset: of the first, in numbers.
    :param size: its shape.
    :param stride: of each axis, in numbers.
    """

    kind: str = ""
    storage: Storage | None = None
    dtype: torch.dtype = torch.uint8
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def __setstate__(self, state: Any) -> None:
        """Forget attributes of the tensor."""


class Archive:
    """The content of a file, and the tensors in it.

    :param size: bytes of the whole file.
    """

    def __init__(self, size: int) -> None:
        """See the class."""
        self.size = size
        self.content: Any = None
        """What was saved, with :class:`Stored` and placeholders."""
        self.refused: set[str] = set()
        """Names in the file for which there is no placeholder."""
        self._find: Callable[[Storage], bytearray]
        self._rows: dict[Storage, Tensor] = {}

    def tensor(self, stored: Stored) -> Tensor:
        """Read a tensor.

        :param stored: of :attr:`content`.
        :raises UnpicklingError: if it does not lie within the file.
        """
        storage, size, stride = stored.storage, stored.size, stored.stride
        if storage is None or len(size) != len(stride):
            raise pickle.UnpicklingError("a tensor is not described as torch.save does")
        bytes_each = stored.dtype.itemsize
        if math.prod(size) * bytes_each > self.size:
            raise pickle.UnpicklingError(f"a tensor of shape {size} is larger than the file")
        if not math.prod(size):
            return torch.empty(size, dtype=stored.dtype)
        last = stored.offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if (last + 1) * bytes_each > storage.numel * storage.dtype.itemsize:
            raise pickle.UnpicklingError(f"a tensor of shape {size} does not fit its storage")
        if storage not in self._rows:
            content = self._find(storage)
            if len(content) != storage.numel * storage.dtype.itemsize:
                raise pickle.UnpicklingError(f"record {storage.key} has {len(content)} bytes")
            self._rows[storage] = torch.frombuffer(content, dtype=torch.uint8)
        row = self._rows[storage]
        row = row[: row.numel() // bytes_each * bytes_each].view(stored.dtype)
        return row.as_strided(size, stride, stored.offset)


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Read a file of ``torch.save``; its tensors can be read until the end of the block.

    :param path: the file, which is not empty.
    :return: what is in it.
    :raises Exception: of many kinds for a damaged file.
    """
    archive = Archive(path.stat().st_size)
    with path.open("rb") as stream:
        if stream.read(4) == b"PK\x03\x04":
            with zipfile.ZipFile(stream) as members:
                _read_zip(archive, members)
                yield archive
        else:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                _read_row(archive, mapped)
                yield archive


# ---- the two formats


def _read_zip(archive: Archive, members: zipfile.ZipFile) -> None:
    found = {info.filename: info for info in members.infolist()}
    if not any(info.CRC for info in found.values()):  # torch can be told to leave them out
        for info in found.values():
            del info.CRC
    if any(info.compress_type != zipfile.ZIP_STORED for info in found.values()):
        raise pickle.UnpicklingError("an archive that is compressed, which torch.save does not do")
    total = sum(info.file_size for info in found.values())
    if total > archive.size:
        raise pickle.UnpicklingError(f"records of {total} bytes in a file of {archive.size}")
    roots = [n.removesuffix("/data.pkl") for n in found if n.endswith("/data.pkl")]
    if len(roots) != 1:
        raise pickle.UnpicklingError(f"{len(roots)} records data.pkl in the archive, not one")
    order = found.get(f"{roots[0]}/byteorder")
    if order is not None and members.read(order) != sys.byteorder.encode():
        raise pickle.UnpicklingError("numbers in another byte order than this machine's")
    archive._find = lambda storage: bytearray(members.read(found[f"{roots[0]}/data/{storage.key}"]))
    archive.content = _unpickled(io.BytesIO(members.read(found[f"{roots[0]}/data.pkl"])), archive)


def _read_row(archive: Archive, mapped: mmap.mmap) -> None:
    stream: Any = mapped
    storages: dict[str, Storage] = {}
    if tuple(_unpickled(stream, archive) for _ in LEGACY) != LEGACY:
        raise pickle.UnpicklingError("it does not begin as a file of torch.save")
    system = _unpickled(stream, archive)
    if sys.byteorder != "little" or not system["little_endian"]:
        raise pickle.UnpicklingError("numbers in another byte order than this machine's")
    archive.content = _unpickled(stream, archive, storages)
    begins: dict[str, int] = {}
    for key in _unpickled(stream, archive):
        storage, begins[key] = storages[key], stream.tell() + 8  # their number comes first
        end = begins[key] + storage.numel * storage.dtype.itemsize
        if stream.read(8) != storage.numel.to_bytes(8, "little") or end > archive.size:
            raise pickle.UnpicklingError(f"record {key} is not as long as it was said to be")
        stream.seek(end)

    def find(storage: Storage) -> bytearray:
        begin = begins[storage.key]
        return bytearray(mapped[begin : begin + storage.numel * storage.dtype.itemsize])

    archive._find = find


# ---- pickles


def _unpickled(
    stream: BinaryIO, archive: Archive, storages: dict[str, Storage] | None = None
) -> Any:
    """Return what the next pickle of a stream holds.

    :param stream: whose ``read`` gives no more than there is.
    :param archive: takes up names that are refused.
    :param storages: takes up storages by key.
    """
    begin, highest = stream.tell(), 0
    for opcode, argument, _ in pickletools.genops(stream):  # compares lengths with what is there
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            highest = max(highest, int(argument or 0))
    length = stream.tell() - begin
    if highest > length:
        raise pickle.UnpicklingError(f"memo {highest} in a pickle of {length} bytes")
    stream.seek(begin)
    return _Unpickler(
        io.BytesIO(stream.read(length)), archive, {} if storages is None else storages
    ).load()


class _Unpickler(pickle.Unpickler):
    """An unpickler to which every name is a stand-in of this module."""

    def __init__(self, stream: BinaryIO, archive: Archive, storages: dict[str, Storage]) -> None:
        super().__init__(stream, encoding="latin1")
        self.archive = archive
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or a function."""
        module, name = NAME_MAPPING.get((module, name), (module, name))
        module = IMPORT_MAPPING.get(module, module)
        full = f"{module}.{name}"
        if full in _REBUILT:
            return _Maker(_REBUILT[full])
        if module in ("torch._utils", "torch._tensor") and name.startswith("_rebuild"):
            kind = name.removeprefix("_rebuild_").replace("_", " ")
            return _Maker(lambda *args: Stored(kind))
        if module in ("torch", "torch.storage") and name in _STORED:
            return _STORED[name]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        if not _is_harmless(full):
            self.archive.refused.add(full)
        return _Mapping if name in _MAPPINGS else _Placeholder

    def persistent_load(self, pid: Any) -> Any:
        """Return what stands for a storage."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            return _Placeholder()  # the source of a module, in old files
        _, dtype, key, _, numel = pid[:5]
        views = any(part is not None for part in pid[5:])
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or views:
            raise pickle.UnpicklingError("a storage is not described as torch.save does")
        if type(numel) is not int or not 0 <= numel <= self.archive.size:
            raise pickle.UnpicklingError(f"a storage of {numel!r} numbers")
        return self.storages.setdefault(key, Storage(key, dtype, numel))


def _is_harmless(name: str) -> bool:
    root, _, rest = name.partition(".")
    if root == "builtins":
        return rest in _HARMLESS_BUILTINS
    parts = name.split(".")
    return name == "_codecs.encode" or any(
        ".".join(parts[:i]) in _HARMLESS for i in range(1, len(parts) + 1)
    )


class _Placeholder:
    """Stands for an object in a checkpoint that is not read."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take and forget whatever the object was made of."""

    def __call__(self, *args: Any, **kwargs: Any) -> _Placeholder:
        """Return what stands for what the object makes."""
        return self

    def __setstate__(self, state: Any) -> None:
        """Forget the object's state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget an item."""

    def append(self, item: Any) -> None:
        """Forget an item."""

    def extend(self, items: Any) -> None:
        """Forget items."""


class _Mapping(dict[Any, Any]):
    """Stands for a kind of dictionary, whose items follow."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Forget what it makes of missing items."""

    def __setstate__(self, state: Any) -> None:
        """Forget its attributes."""


class _Maker:
    """Stands for one of torch's functions that make a tensor.

    :param make: what is called instead.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        """Forget it."""


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Stored:
    if any(isinstance(part, dict) and part for part in rest[2:]):
        return Stored("conjugated or negated")
    dtype = getattr(storage, "dtype", None)
    return _tensor_of_dtype(storage, offset, size, stride, None, None, dtype)


def _tensor_of_dtype(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Stored:
    if not isinstance(dtype, torch.dtype) or not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a type of numbers")
    if any(rest):
        return Stored("conjugated or negated")
    (first,) = _numbers([offset])
    return Stored("", storage, dtype, first, _numbers(size), _numbers(stride))


def _numbers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(n) is int and n >= 0 for n in value):
        raise pickle.UnpicklingError("a tensor without a shape")
    return tuple(value)


_REBUILT: dict[str, Callable[..., Any]] = {
    "torch.Size": lambda sizes=(): sizes,
    "torch._tensor._rebuild_from_type": lambda make, kind, args, *rest: make(*args),
    "torch._tensor._rebuild_from_type_v2": lambda make, kind, args, *rest: make(*args),
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *args: Stored("meta"),
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *rest: data,
    "torch._utils._rebuild_qtensor": lambda *args: Stored("quantised"),
    "torch._utils._rebuild_sparse_tensor": lambda *args: Stored("sparse"),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
}
