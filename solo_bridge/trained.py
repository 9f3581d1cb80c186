"""Backbones of checkpoints: built as the file says they were, or as they are named."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune.checkpoints.files import INDEX
from avalanche_branchtune.errors import CheckpointError, UnknownOptionError
from avalanche_branchtune.options import at_least_one, one_of
from avalanche_branchtune.surgery import HEADS
from solo_bridge.archives import opened
from solo_bridge.backbones import small_resnet
from solo_bridge.checkpoint import load_solo_checkpoint, plain_tensors
from solo_bridge.comparison.asked import ASKED, Asked, asked
from solo_bridge.comparison.experiment import REFERENCE
from solo_bridge.comparison.resumed import made
from solo_bridge.comparison.settings import Comparison
from solo_bridge.compat.checkpoint_keys import BACKBONE_KEYS
from solo_bridge.compat.config_keys import DATASETS
from solo_bridge.defaults import DEFAULTS
from solo_bridge.files import CHECKPOINT, some
from solo_bridge.method import SoloMethod
from solo_bridge.plugins.partial.clr import MAP
from solo_bridge.views import EvalTransform

SIZE = 32
"""Side of the images in pixels, where nothing says it."""

RESNETS = {
    (2, 2, 2, 2, False): "resnet18",
    (3, 4, 6, 3, False): "resnet34",
    (3, 4, 6, 3, True): "resnet50",
    (3, 4, 23, 3, True): "resnet101",
    (3, 8, 36, 3, True): "resnet152",
}
"""Blocks of the four layers, and whether they are bottlenecks → name."""

_SMALL = re.compile(r"small_resnet(?:\((\d+)\))?")


@dataclass(frozen=True)
class Architecture:
    """What a backbone is built by.

    :param name: see :class:`~solo_bridge.SoloMethod`, or ``"small_resnet(WIDTH)"``.
    :param size: side of the images in pixels.
    :param kwargs: arguments of its constructor.
    :param cifar_stem: 3×3 stem without max-pool for ResNets; None for what is usual at its size.
    :param method: of solo-learn, that it was trained by.
    :param normalised: mean and deviation of its images' channels; None for CIFAR-10's, the usual.
    """

    name: str | None = None
    size: int | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    cifar_stem: bool | None = None
    method: str = "simclr"
    normalised: tuple[Sequence[float], Sequence[float]] | None = None

    def build(self) -> SoloMethod:
        """Return a method with the backbone, newly initialised.

        :raises UnknownOptionError: for a name that nobody has.
        """
        assert self.name is not None and self.size is not None
        small = _SMALL.fullmatch(self.name)
        backbone = small_resnet(int(small[1] or 32)) if small else self.name
        return SoloMethod(
            self.method,
            backbone,
            image_size=self.size,
            cifar_stem=self.cifar_stem,
            backbone_kwargs=None if small else self.kwargs,
        )


@dataclass(frozen=True)
class Trained:
    """A backbone with the weights of a checkpoint.

    :param path: the file, or the folder of a run.
    :param architecture: how it is built.
    :param method: that it is the backbone of; the method's other parts are newly initialised.
    """

    path: Path
    architecture: Architecture
    method: SoloMethod

    @property
    def backbone(self) -> nn.Module:
        """Images ``(N, 3, H, W)`` to features ``(N, D)``."""
        return self.method.backbone

    @property
    def name(self) -> str:
        """Of the backbone."""
        return str(self.architecture.name)

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.architecture.size or SIZE

    @property
    def view(self) -> EvalTransform:
        """From an image to what it takes: of the size and normalised as its own were."""
        return EvalTransform(self.size, *(self.architecture.normalised or ()))

    def to(self, device: str) -> nn.Module:
        """Return the backbone where it is to run.

        :param device: of torch.
        :raises UnknownOptionError: if it cannot be used.
        """
        try:
            return self.backbone.to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UnknownOptionError(f"device {device!r} cannot be used: {reason}") from error


def trained(
    checkpoint: str | Path, *, backbone: str | None = None, size: int | None = None
) -> Trained:
    """Read the backbone of a checkpoint.

    What is not told is taken from the checkpoint: from the run's ``comparison.json``,
    from ``args.json`` beside a ``.ckpt``, from the hyper-parameters in it, or, for ResNets, from
    the tensors themselves.

    :param checkpoint: what :func:`~solo_bridge.load_solo_checkpoint` reads.
    :param backbone: name, see :class:`Architecture`.
    :param size: side of the images in pixels.
    :return: the backbone, all of whose tensors are the checkpoint's.
    :raises CheckpointError: for a file that cannot be read, is another backbone's, or of which
        nobody knows whose it is.
    :raises UnknownOptionError: for a name that nobody has.
    """
    path = Path(checkpoint)
    path = path / REFERENCE if (path / REFERENCE).is_file() else path
    told = _told(path)
    if path.is_dir() and asked(path) is not None and not (path / INDEX).exists():
        raise CheckpointError(
            f"{path}: there is no {REFERENCE}, and no checkpoint: it has not begun, or an earlier "
            "version trained it, which kept neither"
        )
    found = _of_backbone(plain_tensors(path))
    name = backbone or told.name or _recognised(found)
    if name is None:
        raise CheckpointError(
            f"{path}: of which backbone? Neither the checkpoint nor an args.json beside it says "
            f"so, and it is no ResNet; it has {some(list(found))}: pass its name (--backbone)"
        )
    stem = found.get("conv1.weight")
    architecture = replace(
        told,
        name=name,
        size=size or told.size or SIZE,
        kwargs=told.kwargs if name == told.name else {},
        cifar_stem=None if stem is None or stem.ndim != 4 else stem.shape[-1] == 3,
    )
    if name == "small_resnet" and "0.weight" in found:
        architecture = replace(architecture, name=f"small_resnet({len(found['0.weight'])})")
    method = architecture.build()
    report = load_solo_checkpoint(method.backbone, path)
    missing = [n for n in report.missing if not n.endswith("num_batches_tracked")]
    others = [n for n in report.unexpected if n.split(".")[0] not in HEADS]
    if any(n.split(".")[-1] == MAP for n in others):
        raise CheckpointError(
            f"{path} is a network that CLR reprogrammed: a plain {architecture.name} has no place "
            "for the maps of its last experience; what it reached stands in the run's record"
        )
    if missing or others or report.mismatched:
        raise CheckpointError(f"{path} is not of backbone {architecture.name}: {report}")
    return Trained(path, architecture, method)


def _of_backbone(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a backbone's tensors by its own names."""
    for key in BACKBONE_KEYS:
        own = {n.removeprefix(f"{key}."): t for n, t in found.items() if n.startswith(f"{key}.")}
        if own:
            return own
    return dict(found)


def _recognised(found: Mapping[str, Tensor]) -> str | None:
    """Return the name of a ResNet, by the names and shapes of its tensors."""
    if {"0.weight", "3.conv1.weight", "5.downsample.0.weight"} <= found.keys():
        return f"small_resnet({len(found['0.weight'])})"
    blocks = [{n.split(".")[1] for n in found if n.startswith(f"layer{i}.")} for i in range(1, 5)]
    bottleneck = "layer1.0.conv3.weight" in found
    counts = [len(block) for block in blocks]
    return RESNETS.get((*counts, bottleneck))  # type: ignore[arg-type]


# ---- what is said of it


def _told(path: Path) -> Architecture:
    """Return what a checkpoint says of its backbone, as far as it does."""
    run = asked(path if path.is_dir() else path.parent)
    if run is not None:
        settings = run.filled(vars(Comparison())).settings
        method = one_of(f"{path}: method", settings["method"], DEFAULTS)
        normalised = _normalised(run, path)
        if "backbone" in settings:
            return replace(_configured(settings, method), normalised=normalised)
        small = f"small_resnet({settings['width']})"
        name = small if settings["preset"] is None else DEFAULTS[method].backbone
        size = at_least_one(f"{path}: size", settings["size"])
        return Architecture(name, size, method=method, normalised=normalised)
    if path.suffix not in CHECKPOINT or not path.is_file():
        return Architecture()
    beside = path.with_name("args.json")
    try:
        said = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else _inside(path)
        return _from_arguments(said)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Architecture()  # another program's


def _normalised(run: Asked, path: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation of the images that a run was judged on."""
    try:
        view = made(run.settings).eval_view
    except TypeError as error:
        raise CheckpointError(f"{path}: {ASKED} is of another version: {error}") from error
    return view.mean, view.std


def _configured(settings: Mapping[str, Any], method: str) -> Architecture:
    """Return the backbone that a run's configuration names."""
    name, options = str(settings["backbone"]), dict(settings["backbone_options"])
    if name == "small_resnet":
        name, options = f"{name}({options['width']})", {}
    stem = settings["method_options"].get("cifar_stem")
    return Architecture(name, int(settings["size"]), options, stem, method)


def _inside(path: Path) -> Any:
    """Return the hyper-parameters in a file of Lightning's."""
    try:
        with opened(path) as archive:
            return dict(archive.content["hyper_parameters"])
    except Exception as error:  # damaged files fail in a great many ways; who reads it says so
        raise ValueError(str(error)) from error


def _from_arguments(said: Mapping[str, Any]) -> Architecture:
    """Read what solo-learn, of any generation, and CaSSLe were called with."""
    name: Any = said.get("backbone", said.get("encoder"))
    kwargs: Any = said.get("backbone_args", {})
    if isinstance(name, dict):
        name, kwargs = name.get("name"), name.get("kwargs") or {}
    method, crop = said.get("method"), said.get("crop_size")
    views = said.get("augmentations")
    first = views[0] if isinstance(views, list) and views else {}
    data = said.get("data")
    named = data.get("dataset") if isinstance(data, dict) else said.get("dataset")
    known_data = DATASETS.get(str(named))
    normalised: Any = None if known_data is None else (known_data.mean, known_data.std)
    if "mean" in first and "std" in first:
        normalised = tuple(first["mean"]), tuple(first["std"])
    if crop is None and isinstance(views, list):
        crop = views[0].get("crop_size")
    crop = crop[0] if isinstance(crop, list) else crop
    crop = kwargs.get("img_size") if crop is None else crop  # a transformer's
    known = isinstance(name, str) and name.isidentifier() and name != "Sequential"
    return Architecture(
        str(name) if known else None,
        crop if isinstance(crop, int) and crop > 0 else None,
        {k: v for k, v in kwargs.items() if k not in ("cifar", "zero_init_residual")},
        method=str(method) if method in DEFAULTS else "simclr",
        normalised=normalised,
    )


def random_images(size: int, count: int = 4) -> Tensor:
    """Return images on which networks are compared, the same every time.

    :param size: side in pixels.
    :param count: how many.
    :return: ``(count, 3, size, size)``.
    """
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
