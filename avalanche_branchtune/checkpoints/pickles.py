"""What cannot be plain data, pickled for those who trust their plugins."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any


def pickled(value: Any, part: Callable[[Any], int | None]) -> bytes:
    """Return an object's pickle.

    :param value: the object.
    :param part: called with everything in it: the number of what is written elsewhere, or None.
    :raises Exception: whatever pickling raises.
    """
    file = io.BytesIO()
    _Pickler(file, part).dump(value)
    return file.getvalue()


def unpickled(content: bytes, parts: Sequence[Any]) -> Any:
    """Return the object of a pickle, which can run anything.

    :param content: the pickle.
    :param parts: by their numbers, see :func:`pickled`.
    """
    return _Unpickler(content, parts).load()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, part: Callable[[Any], int | None]) -> None:
        super().__init__(file, protocol=4)
        self._part = part

    def persistent_id(self, value: Any) -> int | None:
        return self._part(value)


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, parts: Sequence[Any]) -> None:
        super().__init__(io.BytesIO(content))
        self._parts = parts

    def persistent_load(self, number: Any) -> Any:
        return self._parts[number]
