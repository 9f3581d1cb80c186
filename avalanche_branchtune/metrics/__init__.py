"""Probes, analysis, branches and cost as Avalanche metrics, and the record of a run.

For :class:`avalanche.training.plugins.EvaluationPlugin` and all of Avalanche's loggers. They are
measured whenever ``strategy.eval(...)`` runs, and before the next experience where that was left
out, so that no experience goes unmeasured::

    metrics = run_metrics([StreamProbe(KNNProbe(), stream.train_stream, stream.test_stream)])
    recorder = RunRecorder("runs/branch-tuning-0", "Branch-tuning", seed=0)
    evaluator = EvaluationPlugin(*metrics, loggers=[InteractiveLogger(), recorder])
    strategy = SelfSupervised(method, evaluator=evaluator, plugins=[BranchTuningPlugin()])
    for experience in stream.train_stream:
        strategy.train(experience)
        strategy.eval(stream.test_stream)
"""

from collections.abc import Sequence
from typing import Any

from avalanche_branchtune.evaluation.stream import StreamProbe
from avalanche_branchtune.metrics.analysis import AnalysisMetric
from avalanche_branchtune.metrics.base import RunMetric
from avalanche_branchtune.metrics.branches import BranchNormMetric
from avalanche_branchtune.metrics.continual import ContinualEvaluation
from avalanche_branchtune.metrics.cost import CostMetric
from avalanche_branchtune.metrics.online import OnlineProbe, OnlineProbeAccuracy
from avalanche_branchtune.metrics.probes import ProbeMetric
from avalanche_branchtune.metrics.recorder import RunRecorder

__all__ = [
    "AnalysisMetric",
    "BranchNormMetric",
    "ContinualEvaluation",
    "CostMetric",
    "OnlineProbe",
    "OnlineProbeAccuracy",
    "ProbeMetric",
    "RunMetric",
    "RunRecorder",
    "run_metrics",
]


def run_metrics(probes: Sequence[StreamProbe], *others: Any) -> list[Any]:
    """Return the metrics of a run in their order: probes, others, branch norms, cost.

    :param probes: each becomes a :class:`ProbeMetric`.
    :param others: for example an :class:`AnalysisMetric`.
    :return: for ``EvaluationPlugin(*metrics)``.
    """
    metrics = [*(ProbeMetric(p) for p in probes), *others, BranchNormMetric()]
    return [*metrics, CostMetric([m for m in metrics if hasattr(m, "seconds")])]
