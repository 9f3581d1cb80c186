"""What a strategy holds beside its network, as an Avalanche metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.core import BasePlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from avalanche.training.templates.base import BaseTemplate
from torch import Tensor, nn
from torch.utils.data import Dataset

from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.metrics.base import WHERE, RunMetric
from avalanche_branchtune.records.run import Run

_NOT_PARAMETERS = (Dataset, AvalancheDataset, ExemplarsBuffer, BaseTemplate)


class ParameterMetric(RunMetric):
    """Parameters that are held beyond the plain network: ``Extra_During`` and ``Extra_After``.

    During training: branches, predictors, teachers, importances, stored
    weights, whatever tensors the model and the plugins hold, also your own
    plugins and their helpers; data sets, Avalanche's buffers of samples and the
    optimizer's state are not counted (samples kept as bare tensors are: nothing
    tells them apart).  After training: what the network
    needs beyond its own size to be used, from the plugins'
    ``lasting_parameters()`` (a classifier, a task's parameters).
    """

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.network = self.during = self.after = 0

    @property
    def missing(self) -> bool:
        """Never: parameters are counted as training goes on."""
        return False

    def before_training(self, strategy: Any) -> None:
        """Count the network before anything is added."""
        self.network = self.network or held_parameters(strategy.model)

    def before_training_epoch(self, strategy: Any) -> None:
        """Count what an experience works with."""
        beside = (EvaluationPlugin, Checkpoints)  # they are no part of what learns
        plugins = [p for p in strategy.plugins if not isinstance(p, beside)]
        held = held_parameters([strategy.model, *plugins])
        self.during = max(self.during, held - self.network)

    def after_training_exp(self, strategy: Any) -> None:
        """Count what stays."""
        super().after_training_exp(strategy)
        self._count(strategy)

    def _finish(self, strategy: Any) -> None:
        super()._finish(strategy)
        self._count(strategy)

    def _count(self, strategy: Any) -> None:
        lasting = [getattr(p, "lasting_parameters", None) for p in strategy.plugins]
        self.after = held_parameters(strategy.model) - self.network
        self.after += sum(count() for count in lasting if count is not None)

    def measure(self, strategy: Any) -> dict[str, float]:
        """Return the counts."""
        return {f"Extra_During/{WHERE}": self.during, f"Extra_After/{WHERE}": self.after}

    def record(self, run: Run) -> None:
        """Write the counts."""
        run.parameters = {"network": self.network, "during": self.during, "after": self.after}


def held_parameters(root: Any) -> int:
    """Count the parameters in all tensors that an object holds, buffers too, each tensor once.

    A single number that is not a module's own, as a term of the loss, is none.

    :param root: modules, mappings, sequences and plugins are looked into, and
        objects of the packages that plugins come from; data sets, replay
        buffers and strategies are not.
    """
    packages = {"avalanche", "avalanche_branchtune", "solo_bridge"}
    seen: set[int] = set()
    kept: list[Any] = []  # so that no id is given to another object meanwhile

    def count(held: Any, in_module: bool = False) -> int:
        if id(held) in seen or isinstance(held, _NOT_PARAMETERS):
            return 0
        seen.add(id(held))
        kept.append(held)
        if isinstance(held, Tensor):
            return held.numel() if in_module or held.ndim else 0
        if isinstance(held, nn.Module):
            own = [*held._parameters.values(), *held._buffers.values(), *held._modules.values()]
            return sum(count(part, in_module=True) for part in own)
        if isinstance(held, Mapping):
            return sum(map(count, list(held.values())))
        if isinstance(held, list | tuple | set):
            return sum(map(count, held))
        package = type(held).__module__.partition(".")[0]
        if isinstance(held, BasePlugin):
            packages.add(package)
        if package in packages and hasattr(held, "__dict__"):
            return sum(map(count, list(vars(held).values())))
        return 0

    return count(root)
