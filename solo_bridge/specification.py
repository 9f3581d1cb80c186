"""Strategies by specification: ``build("branch_tuning+cassle", method)``.

A name stands for a plugin, or for a strategy class (a reference such as ``joint``); names are
joined by ``+``, in any order.  Your own joins them by :func:`~solo_bridge.registry.register`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avalanche.core import BasePlugin

import solo_bridge.plugins  # noqa: F401  # these give the names, and the references do
from avalanche_branchtune.errors import UnknownOptionError, did_you_mean
from solo_bridge.interface import SelfSupervisedMethod
from solo_bridge.presets import preset as find_preset
from solo_bridge.references import settings_of
from solo_bridge.registry import ENTRIES, Entry
from solo_bridge.registry import register as register
from solo_bridge.strategy import SelfSupervised


def names() -> list[str]:
    """Return the known names, sorted."""
    return sorted(ENTRIES)


def entries(spec: str) -> list[Entry]:
    """Return what a specification is made of.

    :param spec: names joined by ``+``; spaces do not matter.
    :raises UnknownOptionError: for an unknown name, one that is given twice, or
        two strategies.
    """
    found = []
    for name in (part.strip() for part in spec.split("+")):
        if name not in ENTRIES:
            raise UnknownOptionError(
                f"strategy {spec!r}: {name!r} is unknown; known are {', '.join(names())}"
                f"{did_you_mean(name, names())}"
            )
        found.append(ENTRIES[name])
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
    preset: str | None = None,
    **settings: Any,
) -> SelfSupervised:
    """Make the strategy that a specification names.

    :param spec: for example ``"branch_tuning+cassle"``.
    :param method: what is trained.
    :param options: name → arguments of its plugin, or of its strategy class, which go before
        ``settings``.
    :param plugins: further plugins.
    :param preset: name of a preset, see :data:`solo_bridge.presets.PRESETS`, from which
        options and settings are taken that are not given: options one by one, and so
        those of ``optimizer_settings``.
    :param settings: of :class:`~solo_bridge.SelfSupervised`.
    :return: the strategy.
    :raises UnknownOptionError: for unknown names, here or in ``options``; and for a method that
        is not the preset's, see :func:`settings_of`.
    :raises IncompatiblePluginError: for a combination that cannot work.
    """
    parts, options = entries(spec), dict(options or {})
    strange = sorted(set(options) - {e.name for e in parts})
    if strange:
        raise UnknownOptionError(
            f"strategy {spec!r}: options for {strange[0]!r}, which is not part of it"
            f"{did_you_mean(strange[0], [e.name for e in parts])}"
        )
    if preset is not None:
        found = find_preset(preset)
        settings = settings_of(found, method, settings)
        said = found.options(method.name)
        options = {e.name: {**said.get(e.name, {}), **options.get(e.name, {})} for e in parts}
    made = [e.make(**options.get(e.name, {})) for e in parts if not e.is_strategy]
    cls: Any = SelfSupervised
    for e in parts:
        if e.is_strategy:
            cls = e.maker
            settings = {**settings, **e.fixed, **options.get(e.name, {})}
    strategy: SelfSupervised = cls(method, plugins=[*made, *(plugins or [])], **settings)
    return strategy
