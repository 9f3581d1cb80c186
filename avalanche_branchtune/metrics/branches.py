"""The branches' size as an Avalanche metric."""

from __future__ import annotations

from typing import Any

from avalanche_branchtune.experiences import position
from avalanche_branchtune.metrics.base import WHERE, RunMetric
from avalanche_branchtune.records.run import Run


class BranchNormMetric(RunMetric):
    """Frobenius norm of what each layer's branches added: ``Branch_Norm`` is the mean."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.norms: list[dict[str, float]] = []
        self._place = 0

    @property
    def missing(self) -> bool:
        """Never: the norms are read when the experience ends."""
        return False

    def after_training_exp(self, strategy: Any) -> None:
        """Remember which experience it is that ends, now or with its last part."""
        self._place = position(strategy)
        super().after_training_exp(strategy)

    def _finish(self, strategy: Any) -> None:
        """Read the norms from the plugin, which has just merged the branches."""
        super()._finish(strategy)
        plugins = [p for p in strategy.plugins if hasattr(p, "branch_norms")]
        series = plugins[0].branch_norms if plugins else {}
        self.norms.append(series.get(self._place, {}))

    def forget(self, experience: int) -> None:
        """Drop the norms of an experience that is trained again."""
        del self.norms[experience:]

    def measure(self, strategy: Any) -> dict[str, float]:
        """Return the mean over the layers of the last experience."""
        last = self.norms[-1] if self.norms and not self._training else {}
        return {f"Branch_Norm/{WHERE}": sum(last.values()) / len(last)} if last else {}

    def record(self, run: Run) -> None:
        """Write the layers' values."""
        run.branch_norms = self.norms
