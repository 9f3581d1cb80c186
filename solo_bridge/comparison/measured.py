"""What is measured of a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avalanche_branchtune.evaluation import ClassifierProbe, KNNProbe, LinearProbe, StreamProbe
from avalanche_branchtune.metrics import (
    AnalysisMetric,
    OnlineProbe,
    OnlineProbeAccuracy,
    run_metrics,
)
from solo_bridge.plugins import KaizenPlugin
from solo_bridge.strategy import SelfSupervised
from solo_bridge.titles import PROBES as PROBES

OFFLINE = {"knn": KNNProbe, "linear": LinearProbe}


def metrics_of(
    probes: Sequence[str],
    strategy: SelfSupervised,
    stream: Any,
    analysis: AnalysisMetric | None,
) -> list[Any]:
    """Return the metrics of one run.

    :param probes: names of :data:`PROBES`.
    :param strategy: with all its plugins; the classifiers of an online probe's and of Kaizen's
        are measured too.
    :param stream: whose experiences it learns.
    :param analysis: of stability and plasticity, None for none.
    """
    streams = stream.train_stream, stream.test_stream
    found = [StreamProbe(OFFLINE[name](), *streams) for name in OFFLINE if name in probes]
    others: list[Any] = [] if analysis is None else [analysis]
    for plugin in strategy.plugins:
        if isinstance(plugin, KaizenPlugin):
            found.append(StreamProbe(ClassifierProbe(), *streams, backbone=plugin.network))
        elif isinstance(plugin, OnlineProbe):
            others.append(OnlineProbeAccuracy(plugin, stream.test_stream))
    return run_metrics(found, *others)
