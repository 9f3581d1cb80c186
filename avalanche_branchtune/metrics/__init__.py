"""Probes, analysis, branches and cost as Avalanche metrics, and the record of a run.

For :class:`avalanche.training.plugins.EvaluationPlugin` and all of Avalanche's loggers. The
network is measured when ``strategy.train(...)`` or ``strategy.eval(...)`` returns, once after each
experience, so that none goes unmeasured::

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

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.features import FeatureCache
from avalanche_branchtune.evaluation.stream import StreamProbe
from avalanche_branchtune.metrics.analysis import AnalysisMetric
from avalanche_branchtune.metrics.base import RunMetric
from avalanche_branchtune.metrics.branches import BranchNormMetric
from avalanche_branchtune.metrics.continual import ContinualEvaluation
from avalanche_branchtune.metrics.cost import CostMetric
from avalanche_branchtune.metrics.labelled import LabelledImages
from avalanche_branchtune.metrics.online import OnlineProbe
from avalanche_branchtune.metrics.online_accuracy import OnlineProbeAccuracy
from avalanche_branchtune.metrics.parameters import ParameterMetric
from avalanche_branchtune.metrics.probes import ProbeMetric
from avalanche_branchtune.metrics.recorder import RunRecorder
from avalanche_branchtune.metrics.tensorboard import TensorBoardLogger
from avalanche_branchtune.metrics.trackers import TrackioLogger, WandBLogger

LOGGERS = {"tensorboard": TensorBoardLogger, "trackio": TrackioLogger, "wandb": WandBLogger}
"""Name → logger of what a :class:`RunRecorder` writes; ``with`` ends it."""

__all__ = [
    "LOGGERS",
    "AnalysisMetric",
    "BranchNormMetric",
    "ContinualEvaluation",
    "CostMetric",
    "LabelledImages",
    "OnlineProbe",
    "OnlineProbeAccuracy",
    "ParameterMetric",
    "ProbeMetric",
    "RunMetric",
    "RunRecorder",
    "TensorBoardLogger",
    "TrackioLogger",
    "WandBLogger",
    "run_metrics",
]


def run_metrics(probes: Sequence[StreamProbe], *others: Any) -> list[Any]:
    """Return the metrics of a run in their order: probes, others, parameters, branch norms, cost.

    :param probes: each becomes a :class:`ProbeMetric`.
    :param others: for example an :class:`AnalysisMetric`.
    :return: for ``EvaluationPlugin(*metrics)``; probes that were given no cache
        of their own share one, so that features are computed once.
    :raises ProbeError: for two probes of one name.
    """
    given = [p.name for p in probes]
    if len(set(given)) < len(given):
        raise ProbeError(f"two probes have one name ({', '.join(given)}): pass StreamProbe(name=…)")
    cache = FeatureCache()
    for probe in probes:
        probe.cache = probe.cache or cache
    metrics = [*(ProbeMetric(p) for p in probes), *others]
    metrics += [ParameterMetric(), BranchNormMetric()]
    return [*metrics, CostMetric([m for m in metrics if hasattr(m, "seconds")])]
