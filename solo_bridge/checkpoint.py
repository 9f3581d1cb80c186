"""To and from solo-learn's checkpoints, and plain weights of a backbone.

A checkpoint is read as data: nothing in it is ever imported or called, see
:func:`load_solo_checkpoint`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune.errors import CheckpointError, expected_one_of
from avalanche_branchtune.surgery import is_expanded
from solo_bridge.compat import parts
from solo_bridge.method import SoloMethod
from solo_bridge.tensor_files import read_tensors, some

logger = logging.getLogger(__name__)

BACKBONE_KEYS = {"main": "backbone", "1.0.2": "encoder"}
"""What each generation of solo-learn calls the backbone in its checkpoints."""

_CLASSIFIERS = ("classifier.", "momentum_classifier.")


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
        solo-learn's online classifiers, and everything but the backbone for a
        model that is one.
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
    backbone's ``state_dict`` written by ``torch.save``, and ``.safetensors``.
    A :class:`SoloMethod` also takes over projector, predictor, momentum
    networks, queues and prototypes where names and shapes agree; solo-learn's
    online classifiers are left alone.  Any other module is taken for a backbone.

    Files are read with ``weights_only=True``.  Objects that solo-learn and
    Lightning store beside the tensors (hyper-parameters, schedulers) are
    replaced by empty placeholders, for which nothing is imported or called;
    files that name anything else are refused.  (Before torch 2.6 there are no
    placeholders, and ``weights_only`` itself could be tricked, CVE-2025-32434:
    read files of strangers with a newer torch.)

    :param model: a SoloMethod, or a backbone.
    :param path: the file.
    :param strict: refuse a file unless it holds exactly the model's tensors
        (parts listed under ``ignored`` do not count).
    :return: what was loaded and what was not; it is logged too.
    :raises CheckpointError: if the file cannot be read, would run code, holds no
        tensor of the backbone, or is not complete although ``strict``; the model
        is not changed then.  Also for a model that is expanded.
    """
    path = Path(path)
    _refuse_expanded(model, "load_solo_checkpoint")
    found = read_tensors(path)
    target, part, inside = model, "", ""
    if isinstance(model, SoloMethod):
        target, part = model.solo, _name_of(model.backbone, model.solo)
        inside = f"{part}."
    own = {n: t for n, t in _tensors(target).items() if not (part and _is_classifier(n))}

    def fits(names: Mapping[str, str]) -> list[str]:
        return [n for n, k in names.items() if n in own and own[n].shape == found[k].shape]

    readings = _readings(found, part)
    names = max(readings, key=lambda reading: len(fits(reading)))
    matched = fits(names)
    # A counter of batches, which has no axes, fits any other.
    if not any(n.startswith(inside) and own[n].ndim for n in matched):
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
    if strict and not report.complete:
        raise CheckpointError(f"strict, but {report}")
    target.load_state_dict({n: found[names[n]] for n in matched}, strict=False)
    for online, momentum, _ in copies:
        momentum.load_state_dict(online.state_dict())
    logger.log(logging.INFO if report.complete else logging.WARNING, "%s", report)
    return report


def save_solo_checkpoint(
    method: SoloMethod,
    path: str | Path,
    *,
    args: Mapping[str, Any] | None = None,
    generation: str = "main",
) -> Path:
    """Write a checkpoint for solo-learn's own commands, with ``args.json`` beside it.

    ``main_linear.py`` reads the checkpoint; ``main_knn.py`` and
    ``main_umap.py`` take a folder, with one checkpoint and its ``args.json``,
    and build the method from the latter: give each checkpoint a folder of its
    own.  They can only build solo-learn's own backbones.  A run cannot be
    resumed from this file: it holds no optimizer.

    :param method: the method; it must not be expanded.
    :param path: the file to write, ending in ``.ckpt``; its folder is made.
    :param args: entries of ``args.json``, over those that the method knows:
        ``{"data": {"dataset": "imagenet100"}}``.
    :param generation: whose keys to write: ``"main"`` (``backbone.*``) or
        ``"1.0.2"`` (``encoder.*``), which load nothing from each other's files.
    :return: the path.
    :raises CheckpointError: for another suffix or an expanded method.
    :raises UnknownOptionError: for an unknown generation.
    """
    path = Path(path)
    _refuse_expanded(method, "save_solo_checkpoint")
    if generation not in BACKBONE_KEYS:
        known = list(BACKBONE_KEYS)
        raise expected_one_of("save_solo_checkpoint(generation=…)", generation, known)
    _refuse_suffix(path, (".ckpt",))
    part = BACKBONE_KEYS[generation]
    lightning = sys.modules.get("lightning") or sys.modules["pytorch_lightning"]
    checkpoint = {
        "epoch": method.trainer.current_epoch,
        "global_step": method.trainer.global_step,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": {_renamed(n, part): t for n, t in _portable(method.solo).items()},
    }
    described = _merged(_describe(method, generation), args or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path.with_name("args.json")) as temporary:
        temporary.write_text(json.dumps(described, indent=2, default=str), encoding="utf-8")
    with _replacing(path) as temporary:
        torch.save(checkpoint, temporary)
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
    _refuse_suffix(path, (".pt", ".pth", ".safetensors"))
    state = _portable(model.backbone if isinstance(model, SoloMethod) else model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as temporary:
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(state, temporary, metadata={"format": "pt"})
        else:
            torch.save(state, temporary)
    return path


def _readings(found: Mapping[str, Tensor], part: str) -> list[dict[str, str]]:
    """Return the ways in which a file's names can be meant, as name in the model → in the file.

    :param found: the file's tensors.
    :param part: name of the backbone in the model, or ``""`` if it is the model.
    """
    if part:
        whole = {_renamed(k, part): k for k in found if not _is_classifier(k)}
        return [whole, {f"{part}.{k}": k for k in found}]
    prefixes = [f"{name}." for name in BACKBONE_KEYS.values()]
    parts = [{k.removeprefix(p): k for k in found if k.startswith(p)} for p in prefixes]
    return [{k: k for k in found}, *parts]


def _renamed(name: str, part: str) -> str:
    """Call the backbone, online or momentum, by another generation's name."""
    head, dot, rest = name.partition(".")
    online = head.removeprefix("momentum_")
    if online not in BACKBONE_KEYS.values():
        return name
    return head.removesuffix(online) + part + dot + rest


def _is_classifier(name: str) -> bool:
    return name.startswith(_CLASSIFIERS)


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


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {n: t for n, t in module.state_dict().items() if isinstance(t, Tensor)}


def _portable(module: nn.Module) -> dict[str, Tensor]:
    """Return a state_dict on the CPU whose tensors share no memory."""
    return {
        n: t.detach().cpu().clone(memory_format=torch.contiguous_format)
        for n, t in _tensors(module).items()
    }


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path whose file replaces the given one if all goes well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _describe(method: SoloMethod, generation: str) -> dict[str, Any]:
    """Return what solo-learn writes into ``args.json``, as far as it describes the method."""
    shared = {"name": method.name, "method": method.name, "max_epochs": method.trainer.max_epochs}
    settings, backbone = method.settings, method.settings.backbone
    first, last = settings.tau
    data = {
        "num_classes": settings.num_classes,
        "num_large_crops": settings.large_views,
        "num_small_crops": settings.small_views,
    }
    rates = {"lr": method.lr, "weight_decay": method.weight_decay, "classifier_lr": 0.0}
    rates["batch_size"] = 256
    if generation == "1.0.2":
        lars = method.optimizer == "lars"
        return {
            **shared,
            **data,
            **rates,
            "encoder": backbone,
            "backbone_args": {**settings.backbone_kwargs, "cifar": settings.cifar_stem},
            "base_tau_momentum": first,
            "final_tau_momentum": last,
            "optimizer": "sgd" if lars else method.optimizer,
            "lars": lars,
            **settings.method_kwargs,
        }
    # A data set's name is all that tells solo-learn of the CIFAR stem.
    cifar = "cifar100" if settings.num_classes == 100 else "cifar10"
    return {
        **shared,
        "data": {"dataset": cifar if settings.cifar_stem else "custom", **data},
        "backbone": {"name": backbone, "kwargs": dict(settings.backbone_kwargs)},
        "momentum": {"base_tau": first, "final_tau": last},
        "optimizer": {"name": method.optimizer, **rates},
        "scheduler": {"name": "warmup_cosine"},
        "method_kwargs": dict(settings.method_kwargs),
    }


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings with the entries of another one over them."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(below, value) if nested else value  # type: ignore[arg-type]
    return merged


def _refuse_suffix(path: Path, known: tuple[str, ...]) -> None:
    if path.suffix not in known:
        raise CheckpointError(f"{path}: expected a name ending in {' or '.join(known)}")


def _refuse_expanded(model: nn.Module, what: str) -> None:
    if is_expanded(model):
        raise CheckpointError(
            f"{what}: the model is expanded, and its branches have no place in a checkpoint: "
            "compress it first (avalanche_branchtune.compress)"
        )
