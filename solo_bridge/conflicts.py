"""Which plugins can work under a self-supervised strategy, and beside one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from avalanche.core import BasePlugin
from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    GEMPlugin,
    LFLPlugin,
    LRSchedulerPlugin,
    LwFPlugin,
    MASPlugin,
    MIRPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)

from avalanche_branchtune.errors import IncompatiblePluginError
from solo_bridge.interface import SelfSupervisedMethod

Conflicts: TypeAlias = Mapping[type, str]
"""Classes of plugins that cannot do their work beside the one that says so, with the reason."""

_SUPERVISED = "it works on class outputs and labelled images, there are only views and a loss"

REFUSED: dict[type, str] = {
    LRSchedulerPlugin: "it steers one optimizer, here each experience has a fresh one: use "
    "optimizer_settings={'scheduler': …, 'warmup_epochs': …}",
    **dict.fromkeys((AGEMPlugin, GEMPlugin, LFLPlugin, MIRPlugin), _SUPERVISED),
    EWCPlugin: f"{_SUPERVISED}: use solo_bridge.plugins.SelfSupervisedEWCPlugin",
    LwFPlugin: f"{_SUPERVISED}: use solo_bridge.plugins.LwFPlugin",
    MASPlugin: f"{_SUPERVISED}: use solo_bridge.plugins.SelfSupervisedMASPlugin",
    SynapticIntelligencePlugin: "on a CPU it keeps references instead of values and penalises "
    "nothing: use solo_bridge.plugins.SelfSupervisedSIPlugin",
}
"""Avalanche's plugins that cannot work under :class:`~solo_bridge.SelfSupervised`, with the reason;
subclasses that can say so by ``self_supervised = True``."""


def check_plugins(plugins: Sequence[BasePlugin], model: SelfSupervisedMethod) -> None:
    """Refuse plugins that cannot work under ``SelfSupervised``, or beside each other.

    :param plugins: of which each may have ``conflicts``, see :data:`Conflicts`;
        one of two says it, whichever.  One that needs the samples' numbers cannot
        stand beside replay.
    :param model: the method.
    :raises IncompatiblePluginError: for the first plugin or pair that is found.
    """
    for plugin in plugins:
        for kind, reason in REFUSED.items():
            if isinstance(plugin, kind) and not getattr(plugin, "self_supervised", False):
                raise IncompatiblePluginError(f"{kind.__name__} under SelfSupervised: {reason}")
        if "index" in model.needs and isinstance(plugin, ReplayPlugin):
            raise IncompatiblePluginError(
                f"{type(model).__name__} keeps a memory of this experience's samples by their "
                "number, which replayed samples do not have: leave ReplayPlugin out"
            )
    for plugin in plugins:
        conflicts: Conflicts = getattr(plugin, "conflicts", {})
        for other in plugins:
            for kind, reason in conflicts.items():
                if other is not plugin and isinstance(other, kind):
                    raise IncompatiblePluginError(
                        f"{type(plugin).__name__} beside {type(other).__name__}: {reason}"
                    )
            if "index" in getattr(plugin, "needs", ()) and isinstance(other, ReplayPlugin):
                raise IncompatiblePluginError(
                    f"{type(plugin).__name__} beside {type(other).__name__}: it knows samples by "
                    "their number in the experience, which replayed ones do not have: keep one of "
                    "the two"
                )
