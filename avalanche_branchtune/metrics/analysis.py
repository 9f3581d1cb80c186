"""Stability and plasticity as an Avalanche metric."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, Subset

from avalanche_branchtune.analysis import layerwise_cka
from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.features import single_images
from avalanche_branchtune.evaluation.stream import datasets_of
from avalanche_branchtune.metrics.base import WHERE, RunMetric
from avalanche_branchtune.options import at_least
from avalanche_branchtune.parts import Part, part_of
from avalanche_branchtune.records.run import Run

TO_JOINT = "; plasticity: to the jointly trained network, on those of the experience"


class AnalysisMetric(RunMetric):
    """Stability and plasticity, layer by layer: ``Stability`` and ``Plasticity`` are the means.

    Stability compares with the network before the experience, on test images of
    the experiences before; plasticity with ``joint``, on those of the experience.
    Copies of the backbone after the last two experiences are kept: one may be trained again.

    :param test: test experiences or data sets: one for each training
        experience, or one that they share.
    :param joint: the jointly trained backbone, or a method that has one; without
        it there is no plasticity.
    :param samples: images that are compared, 128 or more for the paper's precision.
    :param layers: see :func:`~avalanche_branchtune.analysis.layerwise_cka`.
    :param backbone: see :class:`~avalanche_branchtune.evaluation.StreamProbe`.
    :param batch_size: images in a minibatch.
    """

    def __init__(
        self,
        test: Iterable[Any],
        *,
        joint: nn.Module | None = None,
        samples: int = 512,
        layers: Sequence[str] | None = None,
        backbone: Part = None,
        batch_size: int = 128,
    ) -> None:
        """See the class."""
        super().__init__()
        self.test = datasets_of(test)
        self.joint = None if joint is None else part_of(joint, None)
        self.samples = at_least(4, "AnalysisMetric(samples=…)", samples)
        self.layers = layers
        self.backbone = backbone
        self.batch_size = at_least(4, "AnalysisMetric(batch_size=…)", batch_size)
        self.stability: list[dict[str, float]] = []
        self.plasticity: list[dict[str, float]] = []
        self._networks: dict[int, nn.Module] = {}  # as they were after the last two experiences

    @property
    def missing(self) -> bool:
        """Whether the last experience was not analysed."""
        return len(self.stability) < self.trained

    def forget(self, experience: int) -> None:
        """Drop the values of an experience that is trained again."""
        del self.stability[experience:], self.plasticity[experience:]
        self._networks = {t: n for t, n in self._networks.items() if t < experience}

    def measure(self, strategy: Any) -> dict[str, float]:
        """Compare the network with its references, once after each experience."""
        if self._training or not self.missing:
            return {}
        t = self.trained - 1
        if len(self.test) not in (1, self.stream_length):
            raise ProbeError(
                f"AnalysisMetric: {len(self.test)} test experiences for a stream of "
                f"{self.stream_length}: expected one for each, or one that they share"
            )
        network = part_of(strategy.model, self.backbone)
        stability = {}
        if t - 1 in self._networks:
            old = self.test[:t] if len(self.test) > 1 else self.test
            before = self._networks[t - 1]
            stability = layerwise_cka(network, before, self._images(old), **self._options())
        plasticity = self.likeness_to_joint(network, t)
        self.stability.append(stability)
        self.plasticity.append(plasticity)
        self._networks = {s: n for s, n in self._networks.items() if s == t - 1}
        self._networks[t] = copy.deepcopy(network)
        found = {"Stability": stability, "Plasticity": plasticity}
        return {f"{name}/{WHERE}": sum(v.values()) / len(v) for name, v in found.items() if v}

    def likeness_to_joint(self, network: nn.Module, t: int) -> dict[str, float]:
        """Return the plasticity of each layer; nothing without a jointly trained network.

        :param network: the backbone after an experience.
        :param t: index of the experience.
        """
        if self.joint is None:
            return {}
        return layerwise_cka(network, self.joint, self.images_of(t), **self._options())

    def images_of(self, t: int) -> Any:
        """Return the test images of an experience that plasticity is measured on.

        :param t: index of the experience.
        """
        return self._images(self.test[t : t + 1] if len(self.test) > 1 else self.test)

    def record(self, run: Run) -> None:
        """Write the layers' values."""
        run.stability, run.plasticity = self.stability, self.plasticity
        run.analysis_protocol = (
            "linear CKA, unbiased HSIC averaged over minibatches of "
            f"{self.batch_size}, eval mode, up to {self.samples} random test images; layers: "
            f"{'convolutions, BatchNorm, blocks' if self.layers is None else list(self.layers)}; "
            "stability: likeness to the network before the experience, on images of the "
            "experiences before" + (TO_JOINT if self.joint is not None else "")
        )

    def _options(self) -> dict[str, Any]:
        return {"layers": self.layers, "batch_size": self.batch_size}

    def _images(self, datasets: Sequence[Any]) -> Any:
        """Return random images of some experiences, as many of each, the same every time."""
        share = max(1, self.samples // len(datasets))
        generator = torch.Generator().manual_seed(0)
        images = [single_images(d) for d in datasets]
        orders = [torch.randperm(len(d), generator=generator)[:share].tolist() for d in images]
        return ConcatDataset([Subset(d, i) for d, i in zip(images, orders, strict=True)])
