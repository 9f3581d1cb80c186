"""Expand and compress: pure functions over ``nn.Module``, no strategy needed."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from avalanche_branchtune.branches import (
    Branch,
    Branched,
    LinearBranch,
    add_branches,
    branch_shapes,
    carries_branches,
    check_branch,
    check_linear,
    fold,
    take_off,
    why_unbranchable,
)
from avalanche_branchtune.errors import (
    ExpansionError,
    NothingToBranchError,
    UnbranchableLayerError,
    UnknownOptionError,
    did_you_mean,
)
from avalanche_branchtune.options import one_of

Scope: TypeAlias = str | Sequence[str] | Callable[[str, nn.Module], bool] | None

HEADS = frozenset({"head", "heads", "fc", "classifier", "projector", "predictor"})
"""Names of output layers: their linear layers get no branch unless the scope names them."""


@dataclass(frozen=True)
class Expansion:
    """What :func:`expand` did.

    :param branched: qualified name → names of the branch parameters it received.
    :param skipped: qualified name → why this layer received none.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune import expand
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv1d(8, 8, 3))
        >>> expansion = expand(model, unbranchable="skip")
        >>> expansion.branched
        {'0': ('branch_1x3', 'branch_3x1')}
        >>> expansion.skipped
        {'1': 'Conv1d is neither nn.Conv2d nor nn.Linear'}
    """

    branched: dict[str, tuple[str, ...]]
    skipped: dict[str, str]


def in_scope(model: nn.Module, scope: Scope) -> Iterator[tuple[str, nn.Module]]:
    """Iterate over the modules that a scope selects, each object once.

    :param model: the model.
    :param scope: None for all modules; one or more qualified names or
        ``fnmatch`` patterns, each selecting what it matches and everything
        below; or a predicate of ``(name, module)``.
    :return: iterator over ``(qualified name, module)``.
    :raises UnknownOptionError: if a name or pattern matches nothing.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.surgery import in_scope
        >>> model = nn.ModuleDict({"stem": nn.Sequential(nn.ReLU()), "fc": nn.Linear(8, 2)})
        >>> [name for name, _ in in_scope(model, "stem")]
        ['stem', 'stem.0']
        >>> [name for name, _ in in_scope(model, lambda name, m: isinstance(m, nn.Linear))]
        ['fc']
    """
    _check_scope(scope)
    if scope is None or callable(scope):
        for name, module in model.named_modules():
            if scope is None or scope(name, module):
                yield name, module
        return
    patterns = (scope,) if isinstance(scope, str) else tuple(scope)
    unused = set(patterns)
    for name, module in model.named_modules():
        parts = name.split(".")
        prefixes = {"", *(".".join(parts[:i]) for i in range(1, len(parts) + 1))}
        matching = {p for p in patterns if any(fnmatchcase(prefix, p) for prefix in prefixes)}
        unused -= matching
        if matching:
            yield name, module
    if unused:
        children = ", ".join(n for n, _ in model.named_children())
        meant = did_you_mean(min(unused), [n for n, _ in model.named_modules()])
        raise UnknownOptionError(
            f"scope {sorted(unused)}: no module of {type(model).__name__} has such a name; "
            f"its children are: {children or 'none'}{meant}"
        )


def _check_scope(scope: Scope) -> None:
    """Refuse what is neither names nor a predicate, before it fails in words of its own."""
    if callable(scope) and not isinstance(scope, nn.Module):
        try:
            inspect.signature(scope).bind("name", nn.Module())
        except TypeError as error:
            raise UnknownOptionError(
                f"scope: expected a predicate of (name, module): {error}"
            ) from error
        except ValueError:
            return  # of C, without a signature
    elif scope is not None and not all(isinstance(s, str) for s in _listed(scope)):
        raise UnknownOptionError(
            f"scope: expected names or patterns of modules, or a predicate of (name, module); got "
            f"{type(scope).__name__}: name the modules instead"
        )


def _listed(scope: object) -> Iterable[object]:
    is_list = isinstance(scope, Iterable) and not isinstance(scope, nn.Module)
    return scope if is_list else (scope,)  # type: ignore[return-value]


def is_expanded(model: nn.Module) -> bool:
    """Tell whether any layer of a model carries branches.

    :param model: any module.
    :return: True between :func:`expand` and :func:`compress`.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune import compress, expand, is_expanded
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> expansion = expand(model)
        >>> is_expanded(model), compress(model), is_expanded(model)
        (True, ('0',), False)
    """
    return any(carries_branches(m) for m in model.modules())


def _candidates(model: nn.Module, linear: LinearBranch, scope: Scope) -> dict[str, nn.Module]:
    chosen: dict[str, nn.Module] = {}
    for name, module in in_scope(model, scope):
        if isinstance(module, nn.Linear):
            if linear != "none" and not (is_head(name) and not _names_layer(scope, name)):
                chosen[name] = module
        elif isinstance(module, _ConvNd):
            chosen[name] = module
    return chosen


def is_head(name: str) -> bool:
    """Tell whether a layer is an output layer, which only a scope that names it can branch.

    :param name: qualified; parts of :data:`HEADS` mark one.

    Example::

        >>> from avalanche_branchtune.surgery import is_head
        >>> is_head("momentum_projector.0"), is_head("blocks.0.mlp.fc1")
        (True, False)
    """
    return any(part.removeprefix("momentum_") in HEADS for part in name.split("."))


def has_head(model: nn.Module) -> bool:
    """Tell whether a network seems to end with an output layer: by its name, or a last linear one.

    :param model: any module.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.surgery import has_head
        >>> backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
        >>> has_head(backbone), has_head(nn.Sequential(backbone, nn.Linear(8, 2)))
        (False, True)
    """
    layers = {
        n: m
        for n, m in model.named_modules()
        if next(m.parameters(recurse=False), None) is not None
    }
    last = next(reversed(layers.values()), None)
    return isinstance(last, nn.Linear) or any(is_head(name) for name in layers)


def _names_layer(scope: Scope, name: str) -> bool:
    if scope is None or callable(scope):
        return scope is not None
    patterns = (scope,) if isinstance(scope, str) else scope
    return any(fnmatchcase(name, p) for p in patterns)


def expand(
    model: nn.Module,
    branch: Branch = "1x3+3x1",
    *,
    linear: LinearBranch = "none",
    scope: Scope = None,
    unbranchable: str = "error",
) -> Expansion:
    """Give every convolution in scope zero-initialised branches, in place.

    The model computes exactly the same function (bit-equal: branches are
    zero).  The layers' own parameters are frozen; a branch requires gradients
    if the kernel did.  Liu et al., arXiv 2403.18266, Section 4.

    Authors' code: SmallPigPeppa/ISSL 37827a5, models/resnet18_cifar_reparam_1x3.py,
    ResNet.set_branchs and ResNet.fix_convs.

    :param model: any module; nothing is changed if an error is raised, or if this is interrupted.
    :param branch: ``"1x1"``, ``"1x3+3x1"``, ``"3x3"`` or a callable, see
        :func:`avalanche_branchtune.branches.branch_shapes`.
    :param linear: ``"none"``, ``"full"`` or a rank: the branch of linear
        layers, for transformers.  Output layers (:data:`HEADS`) get none
        unless the scope names them.
    :param scope: which modules, see :func:`in_scope`; all by default.
    :param unbranchable: ``"error"`` to refuse a model in which a layer in
        scope cannot be branched; ``"skip"`` to list it in the result and let
        it train as usual.
    :return: what was branched and what was not.
    :raises ExpansionError: if the model is expanded already.
    :raises NothingToBranchError: if no layer in scope can be branched.
    :raises UnbranchableLayerError: see ``unbranchable``.
    :raises UnknownOptionError: for an unknown option.

    Example::

        >>> import torch
        >>> from avalanche_branchtune import expand
        >>> model, x = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3)), torch.ones(1, 1, 5, 5)
        >>> before = model(x)
        >>> expand(model).branched
        {'0': ('branch_1x3', 'branch_3x1')}
        >>> torch.equal(model(x), before)
        True
    """
    chosen, skipped = plan_expansion(
        model, branch, linear=linear, scope=scope, unbranchable=unbranchable
    )
    gradients = [(p, p.grad) for m in chosen.values() for p in m.parameters(recurse=False)]
    try:
        branched = {n: tuple(add_branches(m, branch, linear).branches) for n, m in chosen.items()}
        return Expansion(branched=branched, skipped=skipped)
    except BaseException:
        for layer in reversed(chosen.values()):
            if carries_branches(layer):
                take_off(layer)
        for p, gradient in gradients:
            p.grad = gradient
        raise


def plan_expansion(
    model: nn.Module,
    branch: Branch,
    *,
    linear: LinearBranch,
    scope: Scope,
    unbranchable: str,
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Find out what :func:`expand` would do, and change nothing.

    :param model: see :func:`expand`, whose arguments and errors these are.
    :param branch: see there.
    :param linear: see there.
    :param scope: see there.
    :param unbranchable: see there.
    :return: the layers that would be branched, and those that would not, with
        the reason.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.surgery import is_expanded, plan_expansion
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 8))
        >>> options = {"linear": "full", "scope": None, "unbranchable": "error"}
        >>> layers, skipped = plan_expansion(model, "1x1", **options)
        >>> list(layers), skipped, is_expanded(model)
        (['0', '2'], {}, False)
    """
    check_branch(branch)
    check_linear(linear)
    one_of("unbranchable", unbranchable, ("error", "skip"))
    if is_expanded(model):
        raise ExpansionError(
            "expand: the model is expanded already; nested expansion is not possible: "
            "call compress(model) first"
        )
    candidates = _candidates(model, linear, scope)
    users = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    modules = dict(model.named_modules())
    skipped = {
        name: reason
        for name, layer in candidates.items()
        if (reason := _refusal(layer, modules[name.rpartition(".")[0]], users))
    }
    if skipped and unbranchable == "error":
        listing = "; ".join(f"{name} ({reason})" for name, reason in skipped.items())
        raise UnbranchableLayerError(
            f"expand: {len(skipped)} layer(s) in scope cannot be branched: {listing}. "
            'Leave them out of scope, or pass unbranchable="skip" to let them train as usual.'
        )
    chosen = {name: m for name, m in candidates.items() if name not in skipped}
    if not chosen:
        refused = "; ".join(f"{n} ({r})" for n, r in skipped.items())
        hint = " (for linear layers pass linear='full' or a rank)" if linear == "none" else ""
        raise NothingToBranchError(
            f"expand: no layer of {type(model).__name__} in scope {scope!r} can be branched: "
            + (f"all were refused: {refused}" if refused else "expected at least one nn.Conv2d")
            + hint
        )
    for m in chosen.values():  # a callable may refuse a kernel: find out before any change
        if isinstance(m, nn.Conv2d):
            branch_shapes((m.kernel_size[0], m.kernel_size[1]), branch)
    return chosen, skipped


def _refusal(layer: nn.Module, parent: nn.Module, users: Counter[int]) -> str | None:
    weight = layer._parameters.get("weight")
    if weight is not None and users[id(weight)] > 1:
        return "its weight is shared with another layer"
    return why_unbranchable(layer, parent)


def folded_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the ``state_dict`` that the model would have after :func:`compress`.

    For what follows a model that is expanded without being expanded itself, as
    averages of weights (EMA) do.  With ``plain``, a copy made before the
    expansion: ``plain.load_state_dict(folded_state_dict(model))``, and then
    ``average.update_parameters(plain)``.

    :param model: any module, expanded or not; it is left as it is.
    :return: the plain network's names in its order, with ``W + Σ pad(B)`` for
        branched kernels; other tensors are the model's own, as in ``state_dict()``.

    Example::

        >>> import torch
        >>> from avalanche_branchtune import expand, folded_state_dict
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1, bias=False))
        >>> expansion, layer = expand(model), model[0]
        >>> layer.weight.data, layer.branch_1x1.data = torch.full((2, 1, 1, 1, 1), 2.5)
        >>> {name: value.item() for name, value in folded_state_dict(model).items()}
        {'0.weight': 5.0}
    """
    state = model.state_dict()
    for name, layer in model.named_modules(remove_duplicate=False):
        if isinstance(layer, Branched):
            prefix = f"{name}." if name else ""
            state[f"{prefix}weight"] = layer.folded_weight().detach()
            for branch in layer.branches:
                del state[f"{prefix}{branch}"]
    return state


def without_branches(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a compressed network from those of the expanded one.

    :param state: name → tensor, as :func:`folded_state_dict` does without the network; without
        branches it comes back as it is.
    :return: names of the plain network, in their order, with ``W + Σ pad(B)`` for branched kernels.
    :raises ExpansionError: for branches without their kernel, or of shapes that cannot be its.

    Example::

        >>> import torch
        >>> from avalanche_branchtune import compress, expand
        >>> from avalanche_branchtune.surgery import without_branches
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1, bias=False))
        >>> expansion, layer = expand(model), model[0]
        >>> layer.weight.data, layer.branch_1x1.data = torch.full((2, 1, 1, 1, 1), 2.5)
        >>> {name: value.item() for name, value in without_branches(model.state_dict()).items()}
        {'0.weight': 5.0}
    """
    branches: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer, _, last = name.rpartition(".")
        if last.startswith("branch_"):
            branches.setdefault(f"{layer}.weight" if layer else "weight", {})[last] = tensor
    found = {n: t for n, t in state.items() if not n.rpartition(".")[2].startswith("branch_")}
    for kernel, added in branches.items():
        try:
            merged = fold(found[kernel], added)
            if merged.shape != found[kernel].shape:
                raise RuntimeError(f"shapes {[tuple(b.shape) for b in added.values()]}")
        except (LookupError, RuntimeError) as error:
            raise ExpansionError(
                f"{kernel}: {', '.join(added)} cannot be merged: {error!r}"
            ) from error
        found[kernel] = merged
    return found


def compress(model: nn.Module) -> tuple[str, ...]:
    """Merge all branches into their kernels, in place: ``W ← W + Σ pad(B)``.

    Afterwards the model computes the same function and has its original
    classes, parameter objects, names, order and ``requires_grad``.  A model
    without branches is left as it is, so this is safe in an exception handler;
    interrupted, it leaves a model that computes the same, and can be called again.

    Authors' code: SmallPigPeppa/ISSL 37827a5, models/resnet18_cifar_reparam_1x3.py,
    ResNet.re_params.

    :param model: any module.
    :return: qualified names of the layers that were merged.

    Example::

        >>> import torch
        >>> from avalanche_branchtune import compress, expand
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
        >>> expansion, layer = expand(model), model[0]
        >>> layer.weight.data, layer.branch_1x1.data = torch.full((2, 1, 1, 1, 1), 2.5)
        >>> compress(model), layer.weight.item(), list(model.state_dict())
        (('0',), 5.0, ['0.weight', '0.bias'])
    """
    carrying = {n: m for n, m in model.named_modules() if carries_branches(m)}
    for layer in reversed(carrying.values()):  # layers may share a bias: the first knows how it was
        if isinstance(layer, Branched):
            layer.merge()
        else:  # its expansion, or its compression, was interrupted
            take_off(layer)
    return tuple(carrying)
