"""Strategies by name: ``build("branch_tuning+cassle", method)``.

A name stands for a plugin, or for a strategy class (a reference such as ``joint``); names are
joined by ``+``, in any order.  Your own joins them with the decorator :func:`register`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from avalanche.core import BasePlugin

from avalanche_branchtune.errors import NameTakenError, UnknownOptionError
from solo_bridge.method import SelfSupervisedMethod
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


_ENTRIES: dict[str, Entry] = {}


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
        taken = _ENTRIES.get(name)
        if taken is not None and (taken.maker, taken.fixed) != (make, fixed):
            raise NameTakenError(
                f"register({name!r}): the name is taken by {taken.maker!r}; taken are "
                f"{', '.join(names())}"
            )
        _ENTRIES[name] = Entry(name, title or name, make, fixed)
        return make

    return keep


def names() -> list[str]:
    """Return the known names, sorted."""
    return sorted(_ENTRIES)


def entries(spec: str) -> list[Entry]:
    """Return what a specification is made of.

    :param spec: names joined by ``+``; spaces do not matter.
    :raises UnknownOptionError: for an unknown name, one that is given twice, or
        two strategies.
    """
    found = []
    for name in (part.strip() for part in spec.split("+")):
        if name not in _ENTRIES:
            raise UnknownOptionError(
                f"strategy {spec!r}: {name!r} is unknown; known are {', '.join(names())}"
            )
        found.append(_ENTRIES[name])
    given = [e.name for e in found]
    twice = sorted({n for n in given if given.count(n) > 1})
    if twice:
        raise UnknownOptionError(f"strategy {spec!r}: {twice[0]!r} is given twice")
    strategies = [e.name for e in found if e.is_strategy]
    if len(strategies) > 1:
        raise UnknownOptionError(
            f"strategy {spec!r}: {' and '.join(strategies)} are each a whole strategy: keep one"
        )
    return found


def title(spec: str) -> str:
    """Return how tables call a specification.

    :param spec: names joined by ``+``.
    """
    return " + ".join(e.title for e in entries(spec))


def build(
    spec: str,
    method: SelfSupervisedMethod,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    plugins: list[BasePlugin] | None = None,
    **settings: Any,
) -> SelfSupervised:
    """Make the strategy that a specification names.

    :param spec: for example ``"branch_tuning+cassle"``.
    :param method: what is trained.
    :param options: name → arguments of its plugin (or strategy class).
    :param plugins: further plugins.
    :param settings: of :class:`~solo_bridge.SelfSupervised`.
    :return: the strategy.
    :raises UnknownOptionError: for unknown names, here or in ``options``.
    :raises IncompatiblePluginError: for a combination that cannot work.
    """
    parts, options = entries(spec), dict(options or {})
    strange = sorted(set(options) - {e.name for e in parts})
    if strange:
        raise UnknownOptionError(
            f"strategy {spec!r}: options for {strange[0]!r}, which is not part of it"
        )
    made = [e.make(**options.get(e.name, {})) for e in parts if not e.is_strategy]
    cls: Any = SelfSupervised
    for e in parts:
        if e.is_strategy:
            cls = e.maker
            settings = {**options.get(e.name, {}), **settings}
    strategy: SelfSupervised = cls(method, plugins=[*made, *(plugins or [])], **settings)
    return strategy
