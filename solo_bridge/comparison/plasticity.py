"""Plasticity, measured when its reference is there: the jointly trained network.

What it needs of a strategy's network lies in files until then, so that strategies can train beside
joint training, or before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from avalanche_branchtune.analysis.stability import analysed_layers, cka_of_grams, layer_grams
from avalanche_branchtune.metrics import AnalysisMetric
from avalanche_branchtune.metrics.analysis import TO_JOINT
from avalanche_branchtune.records import Run, load_run
from solo_bridge.files import read_tensors, write

KEPT = "plasticity-{}.pt"


class PlasticityLater(AnalysisMetric):
    """Measures stability, and keeps what plasticity is measured from later.

    That is the Gram matrices of the layers on the test images of the experience: 4 MB for each
    experience of the digits, 26 MB for a ResNet-18, whatever a strategy makes of its layers.

    :param test: see :class:`~avalanche_branchtune.metrics.AnalysisMetric`.
    :param folder: of the run.
    """

    def __init__(self, test: Any, folder: Path) -> None:
        """See the class."""
        super().__init__(test)
        self.folder = folder

    def likeness_to_joint(self, network: nn.Module, t: int) -> dict[str, float]:
        """Keep the network's Gram matrices.

        :param network: the backbone after an experience.
        :param t: index of the experience.
        """
        layers, size = analysed_layers(network), self.batch_size
        grams = layer_grams(network, self.images_of(t), layers, batch_size=size)
        named = {f"{i} {name}": gram for i, one in enumerate(grams) for name, gram in one.items()}
        write(named, self.folder / KEPT.format(t))
        return {}

    def record(self, run: Run) -> None:
        """Write the layers' stability, and how both are measured."""
        super().record(run)
        run.analysis_protocol = f"{run.analysis_protocol}{TO_JOINT}"


def waits(folder: Path) -> bool:
    """Tell whether the plasticity of a run, or a part of it, is yet to be measured.

    :param folder: of the run.
    """
    return any(folder.glob(KEPT.format("*")))


def measure(folder: Path, test: Any, joint: nn.Module) -> None:
    """Complete the record of a run that waits; what is interrupted can be done again.

    :param folder: of the run.
    :param test: see :class:`PlasticityLater`.
    :param joint: the jointly trained backbone.
    :raises CheckpointError: for a file that is missing or damaged.
    """
    run = load_run(folder)
    if not any(run.plasticity):
        metric = AnalysisMetric(test, joint=joint)
        for t in range(len(run.plasticity)):
            mine = _minibatches(folder / KEPT.format(t))
            options = {"batch_size": metric.batch_size}
            theirs = layer_grams(joint, metric.images_of(t), list(mine[0]), **options)
            run.plasticity[t] = cka_of_grams(mine, theirs)
        run.save(folder)
    for path in folder.glob(KEPT.format("*")):
        path.unlink()


def _minibatches(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for key, gram in read_tensors(path).items():
        number, name = key.split(" ", 1)
        if int(number) == len(found):
            found.append({})
        found[int(number)][name] = gram
    return found
