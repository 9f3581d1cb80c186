"""The accuracies of an online probe as Avalanche metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.stream import datasets_of
from avalanche_branchtune.metrics.online import OnlineProbe


class OnlineProbeAccuracy(PluginMetric):
    """The accuracies of an :class:`OnlineProbe` as Avalanche metrics.

    After each epoch ``Online_Probe_Acc_Epoch/train_phase/train_stream``; after
    ``strategy.eval(…)``, whatever it was given,
    ``Online_Probe_Acc_Exp/eval_phase/test_stream/Exp000`` and
    ``Online_Probe_Acc_Stream/eval_phase/test_stream``, once there is a classifier.

    :param probe: the probe, which must be among the strategy's plugins.
    :param test_stream: test experiences, or data sets.
    :param loading: see :meth:`OnlineProbe.accuracy`.
    """

    def __init__(self, probe: OnlineProbe, test_stream: Iterable[Any], **loading: Any) -> None:
        """See the class."""
        super().__init__()
        self.probe = probe
        self.test = datasets_of(test_stream)
        self.loading = loading

    def before_training(self, strategy: Any) -> None:
        """Refuse a strategy that does not train the probe."""
        if not any(p is self.probe for p in strategy.plugins):
            raise ProbeError("OnlineProbeAccuracy: its OnlineProbe is not among the plugins")

    def after_training_epoch(self, strategy: Any) -> list[MetricValue]:
        """Give the running accuracy of the epoch."""
        value = self.probe.train_accuracy
        values = {} if value is None else {"Epoch/train_phase/train_stream": value}
        return self._values(strategy, values)

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Give the accuracy on the test experiences."""
        if self.probe.classifier is None:
            return []
        hits = [self.probe.hits(strategy.model, d, **self.loading) for d in self.test]
        where = "eval_phase/test_stream"
        values = {f"Exp/{where}/Exp{i:03d}": right / n for i, (right, n) in enumerate(hits)}
        values[f"Stream/{where}"] = sum(right for right, _ in hits) / sum(n for _, n in hits)
        return self._values(strategy, values)

    def result(self) -> float | None:
        """Return the running accuracy of the epoch."""
        return self.probe.train_accuracy

    def reset(self) -> None:
        """Keep everything: the probe begins its epochs itself."""

    def _values(self, strategy: Any, values: dict[str, float]) -> list[MetricValue]:
        x = strategy.clock.train_iterations
        return [MetricValue(self, f"Online_Probe_Acc_{name}", v, x) for name, v in values.items()]
