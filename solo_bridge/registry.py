"""Names of plugins and strategies, given by the decorator :func:`register` where they stand."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from avalanche_branchtune.errors import NameTakenError, UnknownOptionError
from solo_bridge.strategy import SelfSupervised

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """What a name stands for.

    :param name: in specifications.
    :param title: in tables.
    :param maker: makes the plugin from its options, or is a strategy class.
    :param fixed: arguments that belong to the name; options override them.
    """

    name: str
    title: str
    maker: Callable[..., Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def make(self, **options: Any) -> Any:
        """Make the plugin.

        :param options: arguments.
        """
        return self.maker(**{**self.fixed, **options})

    @property
    def is_strategy(self) -> bool:
        """Whether it is a strategy class, of which there can be only one."""
        return isinstance(self.maker, type) and issubclass(self.maker, SelfSupervised)


ENTRIES: dict[str, Entry] = {}
"""All names that were given so far."""


def register(name: str, title: str | None = None, **fixed: Any) -> Callable[[T], T]:
    """Give a plugin class, a function that makes a plugin, or a strategy class a name.

    :param name: lower case letters, digits and ``_``.
    :param title: how tables call it; by default the name.
    :param fixed: arguments that the name stands for, so that one function can
        have several names.
    :return: the decorator, which returns what it is given.
    :raises NameTakenError: if the name stands for something else.
    :raises UnknownOptionError: for a name that cannot be written in a specification.
    """
    if not name.isidentifier() or name != name.lower():
        raise UnknownOptionError(
            f"register({name!r}): expected lower case letters, digits and _, as in 'branch_tuning'"
        )

    def keep(make: T) -> T:
        taken = ENTRIES.get(name)
        if taken is not None and (taken.maker, taken.fixed) != (make, fixed):
            raise NameTakenError(
                f"register({name!r}): the name is taken by {taken.maker!r}; taken are "
                f"{', '.join(sorted(ENTRIES))}"
            )
        ENTRIES[name] = Entry(name, title or name, make, fixed)
        return make

    return keep


def import_file(path: str | Path) -> None:
    """Run a file of one's own that registers names; once, however often it is asked for.

    It is imported under its own name, and may import what lies beside it.

    :param path: of a Python file.
    :raises UnknownOptionError: if there is no such file, another module has its name, or it fails.
    """
    path = Path(path).resolve()
    if path.suffix != ".py" or not path.stem.isidentifier() or not path.is_file():
        raise UnknownOptionError(f"import {path}: expected a Python file, such as mine.py")
    known = sys.modules.get(path.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "") == path:
        return
    if known is not None or path.stem in sys.stdlib_module_names:
        raise UnknownOptionError(f"import {path}: another module has this name: rename the file")
    spec: Any = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[path.stem]
        sys.path.remove(str(path.parent))
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = own[-1] if own else getattr(error, "lineno", None)
        where = f"{path}, line {line}" if line else path
        raise UnknownOptionError(f"import {where}: {type(error).__name__}: {error}") from error
