"""Fixing and restoring normalisation layers: the only place that sets their modes."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from avalanche_branchtune.errors import ExpansionError, expected_one_of
from avalanche_branchtune.options import one_of
from avalanche_branchtune.surgery import Scope, in_scope

NORMS: dict[str, type[nn.Module]] = {
    "BatchNorm1d": nn.BatchNorm1d,
    "BatchNorm2d": nn.BatchNorm2d,
    "BatchNorm3d": nn.BatchNorm3d,
    "SyncBatchNorm": nn.SyncBatchNorm,
    "GroupNorm": nn.GroupNorm,
    "LayerNorm": nn.LayerNorm,
}
"""Normalisation layers by name; subclasses count as their base."""

NORM_LAYERS = tuple(NORMS.values())
"""What counts as a normalisation layer."""

PAPER_NORMS = ("BatchNorm2d", "SyncBatchNorm")
"""What the paper fixes: the BatchNorm2d of the network (SyncBatchNorm is its distributed form)."""

MODES = ("affine", "eval", "none")

Norms: TypeAlias = Sequence[str | type[nn.Module]]

_RECORD = "_fixed_norm_record"


def check_norms(mode: str, norms: Norms) -> tuple[type[nn.Module], ...]:
    """Refuse unknown norm options and resolve the layers' names.

    :param mode: see :func:`fix_norms`.
    :param norms: names of :data:`NORMS`, or classes of normalisation layers, your own too.
    :return: the classes.
    :raises UnknownOptionError: for an unknown mode or norm, and for classes
        that are torch's layers of another kind, or derived from one.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.norms import check_norms
        >>> [kind.__name__ for kind in check_norms("eval", ["GroupNorm", nn.BatchNorm2d])]
        ['GroupNorm', 'BatchNorm2d']
        >>> check_norms("frozen", ["GroupNorm"])
        Traceback (most recent call last):
            ...
        avalanche_branchtune.errors.UnknownOptionError: norm mode: expected one of ...; got 'frozen'
    """
    one_of("norm mode", mode, MODES)
    kinds = []
    for norm in (norms,) if isinstance(norms, str | type) else norms:
        kind = NORMS.get(norm) if isinstance(norm, str) else norm
        if not (isinstance(kind, type) and _may_normalise(kind)):
            raise expected_one_of("norms", norm, [*NORMS, "a class of normalisation layers"])
        kinds.append(kind)
    return tuple(kinds)


def _may_normalise(kind: type) -> bool:
    """Tell by the first of torch's own classes among its bases; of a user's own layer nothing."""
    torchs = (c for c in kind.__mro__ if c.__module__.startswith("torch."))
    base = next(torchs, None)
    if base is nn.Module:
        return kind is not nn.Module
    return base is not None and base.__module__ in _NORM_MODULES


_NORM_MODULES = tuple(
    f"torch.nn.modules.{name}" for name in ("batchnorm", "instancenorm", "normalization")
)


def fix_norms(
    model: nn.Module,
    mode: str = "affine",
    *,
    norms: Norms = PAPER_NORMS,
    scope: Scope = None,
) -> tuple[str, ...]:
    """Fix normalisation layers until :func:`restore_norms`, in place: all of them, or none.

    Authors' code: SmallPigPeppa/ISSL 37827a5, main_pretrain_new_fixbn.py, for ``"affine"``.
    Differs: for ``"eval"`` their main_pretrain_new_fixbneval.py sets a flag that nothing reads, and
    set_bn_eval (cassle/methods/simclr.py) is not called; ours fixes the statistics.

    :param model: any module.
    :param mode: ``"affine"`` (weight and bias do not learn, running
        statistics keep updating: Liu et al., arXiv 2403.18266), ``"eval"``
        (statistics are fixed too; holds in every forward pass, whatever calls
        ``model.train()``) or ``"none"``.
    :param norms: which layers: names of :data:`NORMS` or module classes.
    :param scope: which modules, see :func:`avalanche_branchtune.surgery.in_scope`.
    :return: qualified names of the fixed layers.
    :raises UnknownOptionError: for an unknown mode or norm.
    :raises ExpansionError: if a layer is fixed already.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune import fix_norms
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8))
        >>> fix_norms(model)
        ('1',)
        >>> [name for name, p in model.named_parameters() if p.requires_grad]
        ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    kinds = check_norms(mode, norms)
    if mode == "none":
        return ()
    chosen = {n: m for n, m in in_scope(model, scope) if isinstance(m, kinds)}
    for name, module in chosen.items():
        if _RECORD in vars(module):
            raise ExpansionError(
                f"fix_norms: {name} is fixed already: call restore_norms(model) first"
            )
    gradients = [(p, p.grad) for m in chosen.values() for p in m.parameters(recurse=False)]
    try:
        for module in chosen.values():
            _fix(module, mode)
        if mode == "eval":
            _compile_anew()
        return tuple(chosen)
    except BaseException:
        _restore(chosen.values(), model)
        for p, gradient in gradients:
            p.grad = gradient
        raise


def _fix(module: nn.Module, mode: str) -> None:
    own = {n: p for n, p in module._parameters.items() if p is not None}
    record: dict[str, Any] = {"requires_grad": {n: p.requires_grad for n, p in own.items()}}
    if mode == "eval":
        record["training"] = module.training
    vars(module)[_RECORD] = record  # first: from it an interrupted call is taken back
    for p in own.values():
        p.requires_grad_(False)
        p.grad = None
    if mode == "eval":
        module.register_forward_pre_hook(hold_eval, prepend=True)
        module.training = False


def restore_norms(model: nn.Module) -> tuple[str, ...]:
    """Undo :func:`fix_norms`; a model without fixed layers is left as it is.

    :param model: any module, also a deep or unpickled copy of the fixed one.
    :return: qualified names of the restored layers.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune import fix_norms, restore_norms
        >>> model = nn.Sequential(nn.BatchNorm2d(8))
        >>> fix_norms(model, "eval"), model[0].training, model[0].weight.requires_grad
        (('0',), False, False)
        >>> restore_norms(model), model[0].training, model[0].weight.requires_grad
        (('0',), True, True)
    """
    fixed = {n: m for n, m in model.named_modules() if _RECORD in vars(m)}
    held = any("training" in vars(m)[_RECORD] for m in fixed.values())
    _restore(fixed.values(), model)
    if held:
        _compile_anew()
    return tuple(fixed)


def _restore(modules: Collection[nn.Module], model: nn.Module) -> None:
    for module in reversed([m for m in modules if _RECORD in vars(m)]):
        record = vars(module)[_RECORD]
        for name, requires_grad in record["requires_grad"].items():
            module._parameters[name].requires_grad_(requires_grad)  # type: ignore[union-attr]
        if "training" in record:
            for key, hook in list(module._forward_pre_hooks.items()):
                if hook is hold_eval:
                    del module._forward_pre_hooks[key]
            module.training = record["training"] and (module is model or model.training)
        del vars(module)[_RECORD]  # last: what is interrupted here is done once more


def _compile_anew() -> None:
    """Have compiled networks compiled anew: torch before 2.15 sees no hooks come and go."""
    if _BLIND_TO_HOOKS and "torch._dynamo" in sys.modules:  # else nothing is compiled yet
        torch.compiler.reset()


_BLIND_TO_HOOKS = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 15)


def requires_grad_before(module: nn.Module) -> dict[str, bool]:
    """Tell which parameters of a layer required gradients before it was fixed.

    :param module: any module.
    :return: parameter name → ``requires_grad``; empty if the layer is not fixed.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.norms import fix_norms, requires_grad_before
        >>> norm = nn.BatchNorm2d(8)
        >>> norm.bias.requires_grad = False
        >>> fixed = fix_norms(norm)
        >>> requires_grad_before(norm), requires_grad_before(nn.BatchNorm2d(8))
        ({'weight': True, 'bias': False}, {})
    """
    return dict(vars(module).get(_RECORD, {}).get("requires_grad", {}))


def hold_eval(module: nn.Module, args: Any = ()) -> None:
    """Hold a layer in eval mode: the hook of ``mode="eval"``, called before each forward pass.

    A hook, not a one-off ``.eval()``: any ``model.train()`` in between would undo that.

    :param module: the layer.
    :param args: of its forward pass.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.norms import hold_eval
        >>> norm = nn.BatchNorm2d(8)
        >>> hold_eval(norm)
        >>> norm.training
        False
    """
    module.training = False
