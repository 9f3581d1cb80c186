"""Features of a frozen network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from avalanche_branchtune.errors import ProbeError


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    :param accuracy: share of the test samples that were classified rightly, in [0, 1].
    :param predictions: predicted labels ``(M,)``.
    :param protocol: how the number was made, to be printed beside it.
    """

    accuracy: float
    predictions: Tensor
    protocol: str


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode without gradients, and every module's mode back afterwards.

    :param model: any module.
    """
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def single_images(dataset: Any) -> Any:
    """Return a data set as probes see it: with the ``eval`` transforms, if it is Avalanche's.

    :param dataset: any map-style data set.
    :return: the data set.
    :raises ProbeError: if it has no samples.
    """
    dataset = dataset.eval() if hasattr(dataset, "with_transforms") else dataset
    if len(dataset) == 0:
        raise ProbeError("a probe needs at least one sample: the data set is empty")
    return dataset


def loader_of(dataset: Any, batch_size: int, num_workers: int = 0) -> DataLoader[Any]:
    """Return a loader in the data set's order that leaves torch's random state alone.

    :param dataset: any map-style data set.
    :param batch_size: samples in a minibatch.
    :param num_workers: worker processes.
    :return: the loader; without a generator of its own it would draw from the
        global one, and training would depend on whether it is evaluated.
    """
    generator = torch.Generator().manual_seed(0)
    return DataLoader(dataset, batch_size=batch_size, num_workers=num_workers, generator=generator)


def extract_features(
    model: nn.Module,
    dataset: Any,
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    num_workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """Compute the features of a data set once, in its order.

    :param model: maps images ``(N, C, H, W)`` to features ``(N, D)``.
    :param dataset: yields ``(image, label, …)``; of an Avalanche data set the
        ``eval`` transforms are used.
    :param batch_size: images in a forward pass.
    :param device: where the model runs; by default where its parameters are.
    :param num_workers: workers of the data loader.
    :return: features ``(N, D)`` in float32 and labels ``(N,)``, on the CPU.
    :raises ProbeError: for an empty data set, images that are not single
        tensors, features that are not ``(N, D)`` or not finite.
    """
    dataset = single_images(dataset)
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    loader = loader_of(dataset, batch_size, num_workers)
    features, labels = [], []
    with frozen(model):
        for images, targets, *_ in loader:
            if not isinstance(images, Tensor):
                raise ProbeError(
                    "a probe needs one tensor per image: give the data set's eval transform one "
                    "view (for example EvalTransform), not a list of views"
                )
            out = model(images.to(device))
            if out.ndim != 2:
                raise ProbeError(f"expected features (N, D), the model gave {tuple(out.shape)}")
            features.append(out.float().cpu())
            labels.append(targets)
    found = torch.cat(features)
    if not torch.isfinite(found).all():
        bad = int((~torch.isfinite(found)).any(dim=1).nonzero()[0])
        raise ProbeError(f"the features of sample {bad} are not finite: the network is damaged")
    return found, torch.cat(labels)
