"""Stability and plasticity of a network, layer by layer, by CKA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from avalanche_branchtune.analysis.cka import MinibatchCKA, linear_gram
from avalanche_branchtune.errors import ProbeError, UnknownOptionError
from avalanche_branchtune.evaluation.features import loader_of, single_images
from avalanche_branchtune.keeping import looked_at


@dataclass(frozen=True)
class StabilityPlasticity:
    """Likeness to the reference networks, in [0, 1] up to noise.

    :param stability: layer → CKA with the old reference on old data.
    :param plasticity: layer → CKA with the new reference on new data.
    :param protocol: how the numbers were made, to be printed beside them.

    Example::

        >>> from avalanche_branchtune.analysis import StabilityPlasticity
        >>> stability, plasticity = {"conv1": 1.0, "bn1": 0.5}, {"conv1": 0.25, "bn1": 0.75}
        >>> measured = StabilityPlasticity(stability, plasticity, protocol="linear CKA")
        >>> measured.mean_stability, measured.mean_plasticity
        (0.75, 0.5)
    """

    stability: dict[str, float]
    plasticity: dict[str, float]
    protocol: str

    @property
    def mean_stability(self) -> float:
        """Mean over the layers."""
        return sum(self.stability.values()) / len(self.stability)

    @property
    def mean_plasticity(self) -> float:
        """Mean over the layers."""
        return sum(self.plasticity.values()) / len(self.plasticity)


def analysed_layers(model: nn.Module) -> list[str]:
    """List the layers that the paper looks at: every convolution, BatchNorm and residual block.

    Authors' code: SmallPigPeppa/CKA 041bab7, s_resnet18_reparam_51_1x3.py, forward_features.
    Differs: theirs has 51 outputs of a ResNet-18, those of ReLUs and sums among them and none of
    downsample layers; ours has no ReLU, and the downsample layers.

    :param model: any module.
    :return: qualified names, in the order of the modules.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.analysis import analysed_layers
        >>> stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> analysed_layers(nn.ModuleDict({"stem": stem, "fc": nn.Linear(8, 2)}))
        ['stem.0', 'stem.1']
    """
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    return [
        name
        for name, module in model.named_modules()
        if name and (isinstance(module, kinds) or hasattr(module, "downsample"))
    ]


def layerwise_cka(
    model: nn.Module,
    reference: nn.Module,
    dataset: Any,
    *,
    layers: Sequence[str] | Mapping[str, str] | None = None,
    batch_size: int = 128,
) -> dict[str, float]:
    """Compare two networks layer by layer on the same images.

    Both run in eval mode.  Of each layer only the ``(N, N)`` Gram matrix of a
    minibatch is kept: memory does not depend on the layers' size.

    Authors' code: SmallPigPeppa/CKA 041bab7, s_resnet18_reparam_51_1x3.py, main.
    Differs: their forward_features adds a block's first convolution where its input belongs, ours
    watches the network's own forward pass: curves cannot be compared.

    :param model: the network.
    :param reference: the network that it is compared with, on the same device or another.
    :param dataset: yields ``(image, …)``; of an Avalanche data set the ``eval``
        transforms are used.  Images are taken in a random order, the same every
        time: minibatches of one class each would hide what distinguishes the
        classes.  A last minibatch of fewer than 4 images is left out.
    :param layers: names of layers in both networks, or a mapping from the
        model's names to the reference's; :func:`analysed_layers` by default.
    :param batch_size: images in a minibatch.
    :return: layer → CKA, see :class:`~avalanche_branchtune.analysis.cka.MinibatchCKA`.
    :raises UnknownOptionError: for a layer that a network does not have.
    :raises ProbeError: for too few images, layers that are not called, and
        features that do not vary.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.analysis import layerwise_cka
        >>> images = torch.utils.data.TensorDataset(torch.arange(-4.0, 4.0).reshape(8, 1, 1, 1))
        >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
        >>> same = layerwise_cka(model, model, images, layers=["0", "1"])
        >>> other = layerwise_cka(model, model, images, layers={"0": "1"})
        >>> [round(value, 4) for value in (same["0"], same["1"], other["0"])]
        [1.0, 1.0, 0.7154]
    """
    names = analysed_layers(model) if layers is None else layers
    pairs = dict(names) if isinstance(names, Mapping) else {n: n for n in names}
    _check_layers(model, pairs.keys())
    _check_layers(reference, pairs.values())
    alignments = {name: MinibatchCKA() for name in pairs}
    with looked_at(model), looked_at(reference):
        for images in _minibatches(dataset, batch_size):
            mine = _grams(model, list(pairs), images)
            theirs = _grams(reference, list(pairs.values()), images)
            for name, other in pairs.items():
                gram = mine[name]
                alignments[name].update_grams(gram, theirs[other].to(gram.device))
    return {name: _computed(name, alignment) for name, alignment in alignments.items()}


def layer_grams(
    model: nn.Module, dataset: Any, layers: Sequence[str], *, batch_size: int = 128
) -> list[dict[str, Tensor]]:
    """Return what :func:`layerwise_cka` compares of one network, to be compared another time.

    :param model: the network.
    :param dataset: see :func:`layerwise_cka`.
    :param layers: names of layers.
    :param batch_size: images in a minibatch.
    :return: for each minibatch layer → ``(N, N)``, in float64 and on the CPU.
    :raises BranchTuneError: for too few images, and for layers as :func:`layerwise_cka`.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.analysis.stability import layer_grams
        >>> images = torch.utils.data.TensorDataset(torch.arange(9.0).reshape(9, 1, 1, 1))
        >>> model = torch.nn.Sequential(torch.nn.ReLU())
        >>> [tuple(gram["0"].shape) for gram in layer_grams(model, images, ["0"], batch_size=5)]
        [(5, 5), (4, 4)]
    """
    _check_layers(model, layers)
    with looked_at(model):
        found = [
            {name: gram.cpu() for name, gram in _grams(model, list(layers), images).items()}
            for images in _minibatches(dataset, batch_size)
        ]
    if not found:
        raise ProbeError("CKA: no minibatch of at least 4 images was given")
    return found


def cka_of_grams(
    mine: Sequence[Mapping[str, Tensor]], theirs: Sequence[Mapping[str, Tensor]]
) -> dict[str, float]:
    """Return what :func:`layerwise_cka` does, from what :func:`layer_grams` returned.

    :param mine: of the network.
    :param theirs: of the one that it is compared with, on the same images.
    :return: layer → CKA.
    :raises ProbeError: for features that do not vary.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.analysis.stability import cka_of_grams, layer_grams
        >>> images = torch.utils.data.TensorDataset(torch.arange(-4.0, 4.0).reshape(8, 1, 1, 1))
        >>> one, other = (torch.nn.Sequential(m) for m in (torch.nn.Identity(), torch.nn.ReLU()))
        >>> grams = [layer_grams(network, images, ["0"]) for network in (one, other)]
        >>> round(cka_of_grams(*grams)["0"], 4)
        0.7154
    """
    alignments = {name: MinibatchCKA() for name in mine[0]}
    for one, other in zip(mine, theirs, strict=True):
        for name, alignment in alignments.items():
            alignment.update_grams(one[name], other[name])
    return {name: _computed(name, alignment) for name, alignment in alignments.items()}


def stability_plasticity(
    model: nn.Module,
    *,
    old_reference: nn.Module,
    old_data: Any,
    new_reference: nn.Module,
    new_data: Any,
    layers: Sequence[str] | None = None,
    batch_size: int = 128,
) -> StabilityPlasticity:
    """Measure what a network kept of the old data and learnt of the new.

    Liu, Zhu, Liu, arXiv 2403.18266, Section 3.  References are arguments,
    because two readings are in use: in the authors' scripts stability compares
    with the network before the experience and plasticity with the jointly
    trained one; others take the jointly trained network for both.

    Authors' code: SmallPigPeppa/CKA 041bab7, s_resnet18_reparam_51_1x3.py (stability) and
    p_resnet18_reparam_51_1x3.py (plasticity).

    :param model: the network after an experience.
    :param old_reference: what it is compared with on old data.
    :param old_data: images of earlier experiences, 128 or more.
    :param new_reference: what it is compared with on new data.
    :param new_data: images of this experience, 128 or more.
    :param layers: see :func:`layerwise_cka`.
    :param batch_size: images in a minibatch.
    :return: layer-wise values and their means.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.analysis import stability_plasticity
        >>> images = torch.utils.data.TensorDataset(torch.arange(-4.0, 4.0).reshape(8, 1, 1, 1))
        >>> before, joint = (torch.nn.Sequential(m) for m in (torch.nn.Identity(), torch.nn.ReLU()))
        >>> references = {"old_reference": before, "new_reference": joint, "layers": ["0"]}
        >>> measured = stability_plasticity(before, old_data=images, new_data=images, **references)
        >>> round(measured.mean_stability, 4), round(measured.mean_plasticity, 4)
        (1.0, 0.7154)
    """
    shared: dict[str, Any] = {"layers": layers, "batch_size": batch_size}
    stability = layerwise_cka(model, old_reference, old_data, **shared)
    plasticity = layerwise_cka(model, new_reference, new_data, **shared)
    return StabilityPlasticity(
        stability,
        plasticity,
        f"linear CKA, unbiased HSIC averaged over minibatches of {batch_size}, eval mode, "
        f"{len(stability)} layers; {len(old_data)} old and {len(new_data)} new images",
    )


def _minibatches(dataset: Any, batch_size: int) -> Iterator[Tensor]:
    """Yield images in a random order that is always the same, 4 or more at a time."""
    images_of = single_images(dataset)
    order = torch.randperm(len(images_of), generator=torch.Generator().manual_seed(0))
    for images, *_ in loader_of(Subset(images_of, order.tolist()), batch_size):
        if len(images) >= 4:
            yield images


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _computed(name: str, alignment: MinibatchCKA) -> float:
    try:
        return alignment.compute()
    except ProbeError as error:
        raise ProbeError(f"layer {name!r}: {error}") from error


def _check_layers(model: nn.Module, names: Any) -> None:
    known = dict(model.named_modules())
    unknown = [n for n in names if n not in known]
    if unknown or not names:
        raise UnknownOptionError(
            f"layers: {type(model).__name__} has no {unknown[:3]}; it has for example "
            f"{analysed_layers(model)[:5]}"
        )


def _grams(model: nn.Module, names: list[str], images: Tensor) -> dict[str, Tensor]:
    grams: dict[str, Tensor] = {}
    with _watched(model, names, grams):
        model(images.to(_device(model)))
    missing = [n for n in names if n not in grams]
    if missing:
        raise ProbeError(
            f"layers {missing[:3]} of {type(model).__name__} were not called, or do not give one "
            "tensor: leave them out"
        )
    return grams


@contextmanager
def _watched(model: nn.Module, names: list[str], grams: dict[str, Tensor]) -> Iterator[None]:
    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                grams[name] = linear_gram(output)  # a layer that is called twice: the last time

        return hook

    handles = [model.get_submodule(n).register_forward_hook(keep(n)) for n in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
