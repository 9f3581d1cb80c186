"""To and from solo-learn's checkpoints, and plain weights of a backbone.

A checkpoint is read as data: nothing in it is ever imported or called, see
:func:`load_solo_checkpoint`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune.errors import CheckpointError, ExpansionError, expected_one_of
from avalanche_branchtune.surgery import is_expanded, is_head, without_branches
from solo_bridge.compat import parts
from solo_bridge.compat.checkpoint_keys import (
    BACKBONE_KEYS,
    GENERATIONS,
    is_left_alone,
    lightning_checkpoint,
    renamed,
)
from solo_bridge.compat.settings import Description
from solo_bridge.files import (
    CHECKPOINT,
    CHECKSUM,
    METHOD,
    WEIGHTS,
    checksum,
    portable,
    read_tensors,
    refuse_suffix,
    some,
    tensors,
    write,
)
from solo_bridge.method import SoloMethod

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointReport:
    """What became of the tensors of a file and of a model.

    :param path: the file.
    :param matched: names, in the model, of tensors that were loaded.
    :param missing: names, in the model, of tensors that the file lacks; they
        keep their values.
    :param unexpected: names, in the file, of tensors that the model lacks.
    :param mismatched: names, in the model, of tensors whose shape differs, with
        the shape in the file and in the model; they keep their values.
    :param copied: names, in the model, of tensors of momentum networks that the
        file lacks altogether: they were set to the online networks', as when
        solo-learn builds a method.
    :param ignored: names, in the file, of parts that are not loaded at all:
        solo-learn's online classifiers, what it makes anew whenever training
        starts (SwAV's queue, DeepClusterV2's memory), and everything but the
        backbone for a model that is one.
    """

    path: Path
    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: Mapping[str, tuple[torch.Size, torch.Size]] = field(default_factory=dict)
    copied: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was found, and nothing was left over."""
        return not (self.missing or self.unexpected or self.mismatched or self.copied)

    def __str__(self) -> str:
        """Return the numbers, and the first names of each kind."""
        total = sum(map(len, (self.matched, self.missing, self.mismatched, self.copied)))
        shapes = [
            f"{name} {tuple(there)} instead of {tuple(here)}"
            for name, (there, here) in self.mismatched.items()
        ]
        kinds = {
            "missing in the file": self.missing,
            "unknown to the model": self.unexpected,
            "of another shape": shapes,
            "copied from the online network": self.copied,
            "not looked at": self.ignored,
        }
        lines = [f"{kind}: {some(names)}" for kind, names in kinds.items() if names]
        head = f"matched {len(self.matched)} of {total} tensors with {self.path}"
        return "\n  ".join([head, *lines])


def load_solo_checkpoint(
    model: nn.Module, path: str | Path, *, strict: bool = False
) -> CheckpointReport:
    """Start a model from a checkpoint of solo-learn or CaSSLe, or from plain weights.

    Read are Lightning checkpoints with ``backbone.*`` or ``encoder.*`` keys, a
    backbone's ``state_dict`` written by ``torch.save``, ``.safetensors``, and the
    folder of a run with :class:`~avalanche_branchtune.checkpoints.Checkpoints`, whose
    network is as it was last saved.  Branches of a network that was expanded are
    merged into their kernels.
    A :class:`SoloMethod` also takes over projector, predictor, momentum
    networks, queues and prototypes where names and shapes agree; solo-learn's
    online classifiers, and what it makes anew whenever training starts, are left
    alone.  Any other module is taken for a backbone.

    Objects that solo-learn and Lightning store beside the tensors
    (hyper-parameters, schedulers) are replaced by empty placeholders, for which
    nothing is imported or called; files that name anything else are refused.
    Damage is found by the checksums of ``torch.save``'s archives and of our own
    files; in others, by numbers that are not finite.

    :param model: a SoloMethod, or a backbone.
    :param path: the file, or the folder of a run.
    :param strict: refuse a file unless it holds exactly the model's tensors
        (parts listed under ``ignored`` do not count).
    :return: what was loaded and what was not; it is logged too.
    :raises CheckpointError: if the file cannot be read, would run code, is
        damaged, holds no tensor of the backbone, one of another shape than the
        backbone's, a tensor that the model's cannot take over (sparse, quantised,
        integers for floats) or one that is not finite, or is not complete although
        ``strict``; the model is not changed then.  Also for a model that is expanded.
    """
    path = Path(path)
    _refuse_expanded(model, "load_solo_checkpoint")
    found = plain_tensors(path)
    target, part, inside, name = model, "", "", ""
    if isinstance(model, SoloMethod):
        target, part, name = model.solo, _name_of(model.backbone, model.solo), model.name
        inside = f"{part}."
    own = {n: t for n, t in tensors(target).items() if not (part and is_left_alone(n, name))}

    def fits(names: Mapping[str, str]) -> list[str]:
        return [n for n, k in names.items() if n in own and own[n].shape == found[k].shape]

    readings = _readings(found, part, name)
    names = max(readings, key=lambda reading: len(fits(reading)))
    matched = fits(names)
    # A counter of batches, which has no axes, fits any other.
    if not any(n.startswith(inside) and own[n].ndim for n in matched):
        alike = max(readings, key=lambda reading: len(own.keys() & reading))
        shapes = [
            f"{n} {tuple(found[k].shape)} instead of {tuple(own[n].shape)}"
            for n, k in alike.items()
            if n in own and n.startswith(inside) and own[n].ndim and own[n].shape != found[k].shape
        ]
        if shapes:
            raise CheckpointError(
                f"{path} is of another backbone, as of another width: {some(shapes)}"
            )
        raise CheckpointError(
            f"{path} holds no tensor that fits the backbone ({type(model).__name__}): the file has "
            f"{some(list(found))}; the model has "
            f"{some([n for n in own if n.startswith(inside)])}. Is it the same architecture?"
        )
    copies = _momentum_copies(target, matched)
    copied = tuple(n for _, _, prefix in copies for n in own if n.startswith(prefix))
    report = CheckpointReport(
        path=path,
        matched=tuple(matched),
        missing=tuple(n for n in own if n not in names and n not in copied),
        unexpected=tuple(k for n, k in names.items() if n not in own),
        mismatched={
            n: (found[k].shape, own[n].shape)
            for n, k in names.items()
            if n in own and own[n].shape != found[k].shape
        },
        copied=copied,
        ignored=tuple(k for k in found if k not in names.values()),
    )
    if any(n.startswith(inside) and not is_head(n) for n in report.mismatched):
        raise CheckpointError(
            f"{path} is of another backbone: build the same one, its width, its patches, its first "
            f"convolution (cifar_stem; in a configuration data.dataset decides it): {report}"
        )
    if strict and not report.complete:
        raise CheckpointError(f"strict, but {report}")
    chosen = {n: found[names[n]] for n in matched}
    for n, tensor in chosen.items():
        _refuse_unfit(f"{path}: {names[n]}", tensor, own[n])
    target.load_state_dict(chosen, strict=False)
    for online, momentum, _ in copies:
        momentum.load_state_dict(online.state_dict())
    logger.log(logging.INFO if report.complete else logging.WARNING, "%s", report)
    return report


def plain_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a network, the branches of an expanded one merged into their kernels.

    :param path: see :func:`load_solo_checkpoint`.
    :return: name → tensor.
    :raises CheckpointError: see there.
    """
    try:
        found = without_branches(read_tensors(path))
    except ExpansionError as error:
        raise CheckpointError(f"{path}: {error}") from error
    whole = all(name.startswith(METHOD) for name in found)  # the state of a SoloMethod
    return {name.removeprefix(METHOD): t for name, t in found.items()} if whole else found


def save_solo_checkpoint(
    method: SoloMethod,
    path: str | Path,
    *,
    args: Mapping[str, Any] | None = None,
    generation: str = "main",
    device: str | torch.device | None = None,
    only_backbone: bool = False,
) -> Path:
    """Write a checkpoint for solo-learn's own commands, with ``args.json`` beside it.

    ``main_linear.py`` reads the checkpoint; ``main_knn.py`` and
    ``main_umap.py`` take a folder, with one checkpoint and its ``args.json``,
    and build the method from the latter: give each checkpoint a folder of its
    own.  They can only build solo-learn's own backbones.  A run cannot be
    resumed from this file: it holds no optimizer.

    Lightning puts a method where its file's first tensor was, and ``main_knn.py``
    brings all images to the GPU: a method for it must be written from there, as
    solo-learn's own training on a GPU does.  Where there is none, Lightning
    reads such files to the CPU.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, main_knn.py, main and extract_features.

    :param method: the method; it must not be expanded.
    :param path: the file to write, ending in ``.ckpt``; its folder is made.
    :param args: entries of ``args.json``, over those that the method knows:
        ``{"data": {"dataset": "imagenet100"}}``.
    :param generation: whose keys to write: ``"main"`` (``backbone.*``) or
        ``"1.0.2"`` (``encoder.*``), which load nothing from each other's files.
    :param device: where the tensors of the file are, for example ``"cuda"`` for a
        method that was moved to the CPU; by default where the method is.
    :param only_backbone: leave out projector, predictor and whatever else the method has.
    :return: the path.
    :raises CheckpointError: for another suffix or an expanded method.
    :raises UnknownOptionError: for an unknown generation.
    """
    path = Path(path)
    _refuse_expanded(method, "save_solo_checkpoint")
    if generation not in GENERATIONS:
        raise expected_one_of("save_solo_checkpoint(generation=…)", generation, list(GENERATIONS))
    refuse_suffix(path, CHECKPOINT)
    adapter = GENERATIONS[generation]
    state = {renamed(n, adapter.backbone_key): t for n, t in portable(method.solo, device).items()}
    if only_backbone:
        state = {n: t for n, t in state.items() if n.startswith(f"{adapter.backbone_key}.")}
    described = Description(
        method=method.name,
        settings=method.settings,
        optimizer=method.optimizer,
        lr=method.lr,
        weight_decay=method.weight_decay,
        epochs=method.trainer.max_epochs,
    )
    contents = {
        path.with_name("args.json"): _merged(adapter.args(described), args or {}),
        path: {**lightning_checkpoint(state, method.trainer), CHECKSUM: checksum(state)},
    }
    for file, content in contents.items():
        write(content, file)
    return path


def save_backbone(model: nn.Module, path: str | Path) -> Path:
    """Write a backbone's ``state_dict`` alone, to be loaded by any library.

    :param model: a SoloMethod, whose online backbone is written, or a backbone.
    :param path: the file to write: ``.pt`` or ``.pth`` for ``torch.save``, or
        ``.safetensors``; its folder is made.
    :return: the path.
    :raises CheckpointError: for another suffix or an expanded model.
    """
    path = Path(path)
    _refuse_expanded(model, "save_backbone")
    refuse_suffix(path, WEIGHTS)
    write(portable(model.backbone if isinstance(model, SoloMethod) else model), path)
    return path


def _readings(found: Mapping[str, Tensor], part: str, method: str) -> list[dict[str, str]]:
    """Return the ways in which a file's names can be meant, as name in the model → in the file.

    :param found: the file's tensors.
    :param part: name of the backbone in the model, or ``""`` if it is the model.
    :param method: solo-learn's name of the method, if the model is one.
    """
    if part:
        whole = {renamed(k, part): k for k in found if not is_left_alone(k, method)}
        return [whole, {f"{part}.{k}": k for k in found}]
    prefixes = [f"{name}." for name in BACKBONE_KEYS]
    inside = [{k.removeprefix(p): k for k in found if k.startswith(p)} for p in prefixes]
    return [{k: k for k in found}, *inside]


def _name_of(module: nn.Module, root: nn.Module) -> str:
    return next(name for name, m in root.named_modules() if m is module)


def _momentum_copies(solo: nn.Module, matched: list[str]) -> list[tuple[nn.Module, nn.Module, str]]:
    """Return the momentum networks of which nothing was found, though of the online ones was.

    :param solo: solo-learn's module.
    :param matched: names of the tensors that were found.
    :return: online network, momentum network, and the prefix of the latter's names.
    """
    copies = []
    for online, momentum in parts.momentum_pairs(solo):
        there, prefix = (f"{_name_of(m, solo)}." for m in (online, momentum))
        read = [any(n.startswith(p) for n in matched) for p in (there, prefix)]
        if read == [True, False]:
            copies.append((online, momentum, prefix))
    return copies


def _refuse_unfit(what: str, there: Tensor, here: Tensor) -> None:
    """Refuse a tensor that cannot be copied, or whose values would not be a network's."""
    if here.layout != torch.strided or here.is_quantized or here.is_meta:
        raise CheckpointError(f"{what}: the model's own tensor is sparse, quantised or on meta")
    kinds = [(t.is_floating_point(), t.is_complex(), t.dtype == torch.bool) for t in (there, here)]
    if kinds[0] != kinds[1]:
        raise CheckpointError(f"{what} has {there.dtype}, the model's own {here.dtype}")
    taken = there.to(here.dtype)  # what is finite may not be in half precision
    wrong = ~torch.isfinite(taken.float() if taken.is_floating_point() else taken)
    if wrong.any() and not _same_constant(taken, here.detach().cpu(), wrong):
        raise CheckpointError(
            f"{what} has {int(wrong.sum())} values of {wrong.numel()} that are not finite as "
            f"{here.dtype}: the file is damaged, or the training that wrote it had failed"
        )


def _same_constant(there: Tensor, here: Tensor, wrong: Tensor) -> bool:
    """Tell whether values that are not finite are the model's own, as in a mask."""
    return torch.equal(there[wrong], here[wrong])  # NaN is unlike itself


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings with the entries of another one over them."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(below, value) if nested else value  # type: ignore[arg-type]
    return merged


def _refuse_expanded(model: nn.Module, what: str) -> None:
    if is_expanded(model):
        raise CheckpointError(
            f"{what}: the model is expanded, and its branches have no place in a checkpoint: "
            "compress it first (avalanche_branchtune.compress)"
        )
