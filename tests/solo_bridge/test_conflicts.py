"""Plugins that cannot work beside each other are refused in any order, each pair said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from avalanche_branchtune import BranchTuningPlugin, FixedNormsPlugin
from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.metrics import OnlineProbe
from solo_bridge.plugins import (
    CaSSLePlugin,
    CLRPlugin,
    KaizenPlugin,
    KappaTunePlugin,
    LUMPPlugin,
    NaPPlugin,
    PeriodicFineTuningPlugin,
    PFRPlugin,
    SelfSupervisedEWCPlugin,
    replay,
)
from tests.selfsupervised import strategy

Make = Callable[[], Any]


def some_replay() -> Any:
    return replay("reservoir", 10)


def online_probe() -> Any:
    return OnlineProbe(10)


def ewc() -> Any:
    return SelfSupervisedEWCPlugin(1.0)


PAIRS: list[tuple[Make, Make]] = [
    (BranchTuningPlugin, CLRPlugin),
    (BranchTuningPlugin, KappaTunePlugin),
    (BranchTuningPlugin, NaPPlugin),
    (BranchTuningPlugin, FixedNormsPlugin),
    (CaSSLePlugin, KaizenPlugin),
    (CLRPlugin, FixedNormsPlugin),
    (CLRPlugin, ewc),
    (CLRPlugin, KappaTunePlugin),
    (CLRPlugin, NaPPlugin),
    (CLRPlugin, PeriodicFineTuningPlugin),
    (FixedNormsPlugin, FixedNormsPlugin),
    (FixedNormsPlugin, KappaTunePlugin),
    (KaizenPlugin, KaizenPlugin),
    (KaizenPlugin, LUMPPlugin),
    (KappaTunePlugin, PeriodicFineTuningPlugin),
    (LUMPPlugin, LUMPPlugin),
    (LUMPPlugin, online_probe),
    (LUMPPlugin, some_replay),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "+".join(make.__name__ for make in pair))
def test_refused_in_both_orders_with_the_reason(pair: tuple[Make, Make]) -> None:
    for order in (1, -1):
        plugins = [make() for make in pair][::order]
        with pytest.raises(IncompatiblePluginError, match=r"beside \w+: .{20,}"):
            strategy(plugins=[PFRPlugin(), *plugins])


def test_each_pair_says_it_once() -> None:
    for one, other in ([make() for make in pair] for pair in PAIRS):
        said = [
            any(isinstance(b, kind) for kind in getattr(a, "conflicts", {}))
            for a, b in ((one, other), (other, one))
        ]
        assert sum(said) <= 1 or type(one) is type(other), (one, other)
