"""The settings of the papers' runs, by name.

``SoloMethod.from_preset("simclr", "cassle/cifar100")`` makes a method of them.

A preset is what the authors' code does where its scripts are run, which may be another thing than
the paper says; ``docs/presets.md`` has each setting beside theirs.  The bridge's own defaults
(:mod:`solo_bridge.defaults`) are solo-learn's and stay so.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from avalanche_branchtune.errors import expected_one_of
from solo_bridge.presets import branch_tuning, cassle, kaizen, lump, pfr
from solo_bridge.presets.preset import MethodPreset, Preset

__all__ = ["PRESETS", "MethodPreset", "Preset", "preset"]

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        found.name: found
        for found in (
            branch_tuning.CIFAR100,
            cassle.CIFAR100,
            cassle.IMAGENET100,
            kaizen.CIFAR100,
            lump.CIFAR10,
            pfr.CIFAR100,
        )
    }
)
"""By name."""


def preset(name: str) -> Preset:
    """Return the preset of a name.

    :param name: ``"paper/data set"``, see :data:`PRESETS`.
    :raises UnknownOptionError: for a name that is none.

    Example::

        >>> from solo_bridge.presets import preset
        >>> preset("cassle/cifar100").method("simclr").lr
        0.4
        >>> preset("cassle/cifar10")
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...; did you mean cassle/cifar100?
    """
    if name not in PRESETS:
        raise expected_one_of("preset", name, list(PRESETS))
    return PRESETS[name]
