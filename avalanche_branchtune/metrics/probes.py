"""The accuracy matrix of a probe as an Avalanche metric."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from avalanche.evaluation.metric_results import MetricValue
from torch import Tensor

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.features import fingerprint
from avalanche_branchtune.evaluation.stream import StreamProbe
from avalanche_branchtune.metrics.base import WHERE, RunMetric
from avalanche_branchtune.options import at_least_one
from avalanche_branchtune.records.probe import ProbeRecord
from avalanche_branchtune.records.run import Run
from avalanche_branchtune.records.sample import FeatureSample

SUMMARY = {
    "final_accuracy": "Final_Acc",
    "continual_accuracy": "Continual_Acc",
    "forgetting": "Forgetting",
    "backward_transfer": "BWT",
    "forward_transfer": "FWT",
}
"""Names of :meth:`ProbeRecord.summary` → names of metrics."""


class ProbeMetric(RunMetric):
    """Accuracy matrix of a probe: per experience, over the stream, and what is read from it.

    Names: ``<probe>_Acc_Exp/eval_phase/test_stream/Exp000``,
    ``<probe>_Acc_Stream/…`` and, between experiences, ``<probe>_Final_Acc``,
    ``_Continual_Acc``, ``_Forgetting``, ``_BWT``, ``_FWT``, see
    :class:`~avalanche_branchtune.evaluation.AccuracyMatrix`; also ``_Seconds``.

    :param probe: what is measured.
    :param samples: test features that are kept for a picture of the embedding.
    """

    def __init__(self, probe: StreamProbe, samples: int = 1000) -> None:
        """See the class."""
        super().__init__()
        self.probe = probe
        self.samples = at_least_one("ProbeMetric(samples=…)", samples)
        self._found: ProbeRecord | None = None
        self._sample: FeatureSample | None = None
        self._state: tuple[str, int, bool] | None = None
        self._values_then: dict[str, float] = {}

    @property
    def missing(self) -> bool:
        """Whether the random network, or the last experience, has no accuracies yet."""
        found = self._found
        return found is None or (self.trained > 0 and len(found.accuracies) < self.trained)

    def forget(self, experience: int) -> None:
        """Drop the accuracies of an experience that is trained again."""
        if self._found is not None:
            del self._found.accuracies[experience:], self._found.overall[experience:]

    def before_training_exp(self, strategy: Any) -> list[MetricValue] | None:
        """Refuse to judge by another stream; see :class:`RunMetric`."""
        self.probe.check_trained(strategy)
        return super().before_training_exp(strategy)

    def measure(self, strategy: Any) -> dict[str, float]:
        """Judge the network, and keep the accuracies if no experience is under way."""
        begin = time.perf_counter()
        state = (fingerprint(strategy.model), self.trained, self._training)
        if state == self._state:
            return self._values_then  # nothing was trained since
        result = self.probe.measure(strategy.model, self._seen(strategy))
        name = self.probe.name
        values = {
            f"{name}_Acc_Exp/{WHERE}/Exp{i:03d}": a
            for i, a in enumerate(result.accuracies)
            if a is not None
        }
        if result.overall is not None:
            values[f"{name}_Acc_Stream/{WHERE}"] = result.overall
        if self._found is None:
            self._found = ProbeRecord(result.settings)
        found = self._found
        if self._training:
            pass  # in the middle of an experience: no row of the matrix
        elif self.trained == 0:
            if None not in result.accuracies:
                found.random, found.random_overall = result.accuracies, result.overall
        elif result.overall is not None:
            row = self.trained - 1
            if len(found.accuracies) < row:
                raise ProbeError(
                    f"{name}: experience {len(found.accuracies)} was trained without being measured"
                )
            found.accuracies[row:] = [result.accuracies]
            found.overall[row:] = [result.overall]
            self._sample = _sample(result.features, result.labels, self.samples)
            summary = found.summary(max(self.stream_length, self.trained))
            values.update({f"{name}_{SUMMARY[k]}/{WHERE}": v for k, v in summary.items()})
        values[f"{name}_Seconds/{WHERE}"] = time.perf_counter() - begin
        self._state, self._values_then = state, values
        return values

    def record(self, run: Run) -> None:
        """Write the accuracies and the sample of features."""
        if self._found is not None:
            if run.probes.get(self.probe.name, self._found) is not self._found:
                raise ProbeError(
                    f"two probes are called {self.probe.name!r}: pass StreamProbe(name=…)"
                )
            run.probes[self.probe.name] = self._found
        if self._sample is not None and self.probe.probe.needs_training:
            run.sample = self._sample

    def _seen(self, strategy: Any) -> int:
        """Return how many of the probe's training experiences the network has been trained on."""
        trained = self.trained + self._training
        n = len(self.probe.train)
        if self.stream_length in (0, n) or self.probe.scope != "seen" or trained == 0:
            return min(trained, n)
        if self.stream_length == 1:  # joint training
            return n
        raise ProbeError(
            f"{self.probe.name}: trained on a stream of {self.stream_length} experiences, probed "
            f"with one of {n}: which of them were seen is not known; use scope='all'"
        )


def _sample(features: Sequence[Tensor], labels: Sequence[Tensor], samples: int) -> FeatureSample:
    """Return random samples of each experience, about as many of each, the same every time."""
    share = max(1, samples // len(features))
    generator = torch.Generator().manual_seed(0)
    taken = [torch.randperm(len(x), generator=generator)[:share] for x in features]
    return FeatureSample(
        torch.cat([x[i] for x, i in zip(features, taken, strict=True)]).numpy(),
        torch.cat([y[i] for y, i in zip(labels, taken, strict=True)]).numpy(),
        np.concatenate([np.full(len(i), e) for e, i in enumerate(taken)]),
    )
