"""Branches: small zero-initialised kernels beside a frozen one, computed as one.

The only file that knows kernel arithmetic.  A branched layer is the *same
module object* as before with another class: a static subclass whose forward
folds the branches into the kernel, ``y = (W + Σ pad(B)) ∗ x``.  Because the
class is put on and taken off again, names, order, identity, hooks, pickling
and independent deep copies survive.

Source: Liu, Zhu, Liu, "Branch-Tuning", arXiv 2403.18266, Section 4 (expansion
and compression).  The folded form is the same mathematics as their parallel
convolutions, with one convolution instead of three.

Authors' code: SmallPigPeppa/ISSL 37827a5 (the paper names no repository), models/conv*_reparam*.py.
Differs: theirs adds the outputs of parallel convolutions, ours the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from avalanche_branchtune.errors import UnknownOptionError, expected_one_of
from avalanche_branchtune.folding import folded

_RECORD = "_branch_record"

Shape: TypeAlias = tuple[int, int]
Branch: TypeAlias = str | Callable[[Shape], Sequence[Shape]]
LinearBranch: TypeAlias = str | int

BRANCHES: Mapping[str, Callable[[Shape], tuple[Shape, ...]]] = {
    "1x1": lambda k: ((1, 1),),
    "1x3+3x1": lambda k: ((1, k[1]), (k[0], 1)),
    "3x3": lambda k: (k,),
}
"""Branch shapes by name, from a kernel's ``(height, width)``; 3 stands for its own side.

Authors' code: SmallPigPeppa/ISSL 37827a5, models/conv3x3_reparam.py (1x1),
models/conv3x3_reparam_1x3.py, models/conv3x3_reparam_3x3.py and models/conv1x1_reparam.py.
"""


def branch_shapes(kernel_size: Shape, branch: Branch) -> tuple[Shape, ...]:
    """List the kernel sizes of the branches that a convolution receives.

    :param kernel_size: ``(height, width)`` of the convolution's kernel.
    :param branch: ``"1x1"``, ``"1x3+3x1"`` (a 1×k and a k×1 branch, the
        paper's default), ``"3x3"`` (k×k), or a callable from ``(height,
        width)`` to a sequence of sizes.  Of the named ones, a shape that lies
        inside another is left out: a 1×1 convolution gets one 1×1 branch.
    :return: sizes, each at most the kernel's.
    :raises UnknownOptionError: for an unknown name, or for sizes that are
        empty, not positive or larger than the kernel.

    Example::

        >>> from avalanche_branchtune.branches import branch_shapes
        >>> branch_shapes((5, 3), "1x3+3x1")
        ((1, 3), (5, 1))
        >>> branch_shapes((1, 1), "1x3+3x1")
        ((1, 1),)
        >>> branch_shapes((3, 3), lambda kernel: [(1, 1), (kernel[0], 2)])
        ((1, 1), (3, 2))
    """
    if isinstance(branch, str):
        if branch not in BRANCHES:
            raise expected_one_of("branch", branch, [*BRANCHES, "a callable"])
        shapes = dict.fromkeys(BRANCHES[branch](kernel_size))
        return tuple(s for s in shapes if not any(_inside(s, o) for o in shapes if o != s))
    if not callable(branch):
        raise expected_one_of("branch", branch, [*BRANCHES, "a callable"])
    try:
        chosen = tuple(dict.fromkeys((int(h), int(w)) for h, w in branch(kernel_size)))
    except (TypeError, ValueError) as error:
        raise UnknownOptionError(
            "branch: expected a callable of one tuple, the kernel's (height, width), that returns "
            f"a list of such tuples: {error}"
        ) from error
    if not chosen or not all(min(s) >= 1 and _inside(s, kernel_size) for s in chosen):
        raise UnknownOptionError(
            f"branch callable returned {chosen} for a kernel of {kernel_size}: expected one or "
            "more (height, width), each between (1, 1) and the kernel's size"
        )
    return chosen


def check_branch(branch: Branch) -> None:
    """Refuse a branch option before any layer is touched.

    :param branch: see :func:`branch_shapes`.
    :raises UnknownOptionError: for an unknown name.

    Example::

        >>> from avalanche_branchtune.branches import check_branch
        >>> check_branch("3x3")
        >>> check_branch("2x2")
        Traceback (most recent call last):
            ...
        avalanche_branchtune.errors.UnknownOptionError: branch: expected one of 1x1, ...; got '2x2'
    """
    if isinstance(branch, str) or not callable(branch):
        branch_shapes((3, 3), branch)


def check_linear(linear: LinearBranch) -> None:
    """Refuse an option for linear layers before any layer is touched.

    :param linear: ``"none"``, ``"full"`` or a rank of at least 1.
    :raises UnknownOptionError: for anything else.

    Example::

        >>> from avalanche_branchtune.branches import check_linear
        >>> check_linear(4)
        >>> check_linear(0)
        Traceback (most recent call last):
            ...
        avalanche_branchtune.errors.UnknownOptionError: linear: expected one of none, ...; got 0
    """
    is_rank = isinstance(linear, int) and not isinstance(linear, bool) and linear >= 1
    if not is_rank and linear not in ("none", "full"):
        raise expected_one_of("linear", linear, ["none", "full", "a rank ≥ 1"])


def _inside(inner: Shape, outer: Shape) -> bool:
    return inner[0] <= outer[0] and inner[1] <= outer[1]


def _offset(kernel: int, branch: int) -> int:
    # Centred; for an odd remainder the tap before the middle, where padding="same" aligns too.
    return (kernel - branch) // 2


class Branched(nn.Module):
    """What branched layers have in common; mixed into a layer that has a ``weight``.

    While a layer is branched its ``weight`` and ``bias`` keep their names,
    objects and values and do not require gradients; the branches are extra
    parameters named ``branch_…``, whose attribute ``kernel`` is the parameter
    that they are added to (for optimizers that scale by its norm).

    Example::

        >>> import torch
        >>> from avalanche_branchtune.branches import Branched, add_branches
        >>> layer = add_branches(torch.nn.Conv2d(2, 4, 3, bias=False), "1x1", "none")
        >>> isinstance(layer, Branched), {n: tuple(b.shape) for n, b in layer.branches.items()}
        (True, {'branch_1x1': (4, 2, 1, 1)})
        >>> layer.weight.requires_grad, layer.original_requires_grad
        (False, {'weight': True})
    """

    weight: Tensor
    _branch_record: dict[str, Any]

    @property
    def branches(self) -> dict[str, nn.Parameter]:
        """The branch parameters of this layer by name."""
        return {
            n: p for n, p in self._parameters.items() if n.startswith("branch_") and p is not None
        }

    @property
    def original_requires_grad(self) -> dict[str, bool]:
        """``requires_grad`` of the layer's own parameters before expansion, by name."""
        return dict(self._branch_record["requires_grad"])

    def folded_weight(self) -> Tensor:
        """Return the kernel with its branches added, ``W + Σ pad(B)``, with gradients to them.

        :return: tensor of the shape of ``weight``.
        """
        if "merged" in self._branch_record:
            return self._branch_record["merged"]
        return fold(self.weight, self.branches)

    def folded_gradient(self) -> Tensor | None:
        """Return the loss's gradient for the folded kernel where branches reach, else zero.

        :return: tensor of the shape of ``weight``, or None where the branches'
            gradients do not determine it (low-rank branches).
        """
        raise NotImplementedError

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy, whose branches know the copied kernel."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _link(self)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Put a parameter in place (``load_state_dict(assign=True)`` does), see the class."""
        super().register_parameter(name, param)
        _link(self)

    def merge(self) -> None:
        """Add the branches to the kernel and become the original class again.

        The merged kernel is kept in the layer's record before anything changes,
        so that a second call after an interruption does not add them twice.

        Authors' code: SmallPigPeppa/ISSL 37827a5, models/conv3x3_reparam_1x3.py, re_param.
        """
        merged = self._branch_record.setdefault("merged", self.folded_weight().detach())
        self.weight.detach().copy_(merged)
        take_off(self)


def carries_branches(module: nn.Module) -> bool:
    """Tell whether a layer has branches, or what an interruption left of them.

    :param module: any module.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.branches import add_branches, carries_branches
        >>> layer = nn.Conv2d(2, 4, 3)
        >>> carries_branches(layer), carries_branches(add_branches(layer, "1x1", "none"))
        (False, True)
    """
    return _RECORD in vars(module)


def take_off(layer: nn.Module) -> None:
    """Make a layer what it was before its branches, with the kernel that it has now.

    :param layer: one that :func:`carries_branches`, also in part.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.branches import add_branches, take_off
        >>> layer = add_branches(nn.Conv2d(2, 4, 3), "1x1", "none")
        >>> take_off(layer)
        >>> layer, [name for name, p in layer.named_parameters() if p.requires_grad]
        (Conv2d(2, 4, kernel_size=(3, 3), stride=(1, 1)), ['weight', 'bias'])
    """
    record = vars(layer)[_RECORD]
    layer.__class__ = record["cls"]
    for name in [n for n in layer._parameters if n.startswith("branch_")]:
        del layer._parameters[name]
    for name, requires_grad in record["requires_grad"].items():
        layer._parameters[name].requires_grad_(requires_grad)  # type: ignore[union-attr]
    del vars(layer)[_RECORD]  # last: what is interrupted here is done once more


def _put_on(
    layer: nn.Module, kind: type[Branched], cls: type[nn.Module], branches: Mapping[str, Tensor]
) -> None:
    own = {n: p for n, p in layer._parameters.items() if p is not None}
    learns = own["weight"].requires_grad
    added = {name: nn.Parameter(value, learns) for name, value in branches.items()}
    # The record first: from it an interrupted expansion can be taken back.
    vars(layer)[_RECORD] = {
        "cls": cls,
        "requires_grad": {n: p.requires_grad for n, p in own.items()},
    }
    layer._parameters.update(added)
    layer.__class__ = kind
    _link(layer)
    for p in own.values():
        p.requires_grad_(False)
        p.grad = None  # a stale gradient would let weight decay move the frozen kernel


def _link(layer: nn.Module) -> None:
    # Copies lose the attributes of parameters; factors are not of the kernel's scale.
    for name, branch in layer._parameters.items():
        if name.startswith("branch_") and name not in ("branch_up", "branch_down"):
            branch.kernel = layer._parameters["weight"]  # type: ignore[union-attr]


class BranchConv2d(Branched, nn.Conv2d):
    """``nn.Conv2d`` with branches folded into its kernel.

    Input ``(N, C_in, H, W)`` or ``(C_in, H, W)``, output as of ``nn.Conv2d``
    with the same arguments; every kernel size, stride, padding, padding mode,
    dilation and number of groups.  :func:`avalanche_branchtune.expand` turns
    existing convolutions into this class in place; :meth:`merge` turns them
    back.

    Authors' code: SmallPigPeppa/ISSL 37827a5, models/conv3x3_reparam_1x3.py, Conv3x3_Reparam.
    Differs: their branches have no dilation, also in the stem, whose kernel has dilation 2 and
    where merging changes the output; ours have the kernel's.

    :param branch: see :func:`branch_shapes`.
    :param args: positional arguments of ``nn.Conv2d``.
    :param kwargs: keyword arguments of ``nn.Conv2d``.

    Example::

        >>> import torch
        >>> from avalanche_branchtune import BranchConv2d
        >>> layer = BranchConv2d(1, 1, 3, branch="1x1")
        >>> layer.weight.data = torch.ones(1, 1, 3, 3)
        >>> layer.branch_1x1.data = torch.ones(1, 1, 1, 1)
        >>> layer.merge()
        >>> type(layer).__name__, layer.weight.tolist()
        ('Conv2d', [[[[1.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 1.0]]]])
    """

    def __init__(self, *args: Any, branch: Branch = "1x3+3x1", **kwargs: Any) -> None:
        """Build a convolution that already has branches; see the class."""
        super().__init__(*args, **kwargs)
        _branch_conv(self, nn.Conv2d, branch)

    def folded_gradient(self) -> Tensor:
        """Return the gradient for the folded kernel inside the branches' support, else zero."""
        gradient = torch.zeros_like(self.weight)
        for b in self.branches.values():
            if b.grad is not None:
                _window(gradient, b.shape).copy_(b.grad)
        return gradient

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, folded(self, self.folded_weight), bias)


class BranchLinear(Branched, nn.Linear):
    """``nn.Linear`` with a full or a low-rank branch folded into its weight.

    Input ``(…, in_features)``, output ``(…, out_features)``.  A full branch is
    a zero matrix of the weight's shape; a low-rank one is ``up @ down`` with
    ``up`` zero, shape ``(out, r)``, and ``down`` random, shape ``(r, in)``.
    ``down`` comes from a generator of its own: the global random state does
    not move, and an online and a momentum network receive the same one.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.branches import add_branches
        >>> layer = add_branches(torch.nn.Linear(4, 3), "1x1", 2)  # of rank 2
        >>> type(layer).__name__, {n: tuple(b.shape) for n, b in layer.branches.items()}
        ('BranchLinear', {'branch_up': (3, 2), 'branch_down': (2, 4)})
        >>> torch.equal(layer.folded_weight(), layer.weight)
        True
    """

    def folded_gradient(self) -> Tensor | None:
        """Return the full branch's gradient; None for a low-rank branch."""
        full = self.branches.get("branch_full")
        if full is None:
            return None
        return torch.zeros_like(full) if full.grad is None else full.grad

    def forward(self, input: Tensor) -> Tensor:
        """Apply the folded layer."""
        return F.linear(input, folded(self, self.folded_weight), self.bias)


def _window(kernel: Tensor, shape: torch.Size) -> Tensor:
    """Return the view of a kernel that a centred branch of this shape covers."""
    top, left = _offset(kernel.shape[2], shape[2]), _offset(kernel.shape[3], shape[3])
    return kernel[:, :, top : top + shape[2], left : left + shape[3]]


class _Fold(torch.autograd.Function):
    """Kernel plus centred branches, touching only the taps that branches reach.

    The result has the kernel's strides: with others a backend may choose
    another algorithm, and expansion would no longer be bit-equal.
    """

    @staticmethod
    def forward(kernel: Tensor, *branches: Tensor) -> Tensor:
        folded = kernel.clone(memory_format=torch.preserve_format)
        for b in branches:
            _window(folded, b.shape).add_(b)
        return folded

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.shapes = [b.shape for b in inputs[1:]]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return (gradient, *(_window(gradient, shape) for shape in ctx.shapes))


def fold(kernel: Tensor, branches: Mapping[str, Tensor]) -> Tensor:
    """Return a kernel with its branches added.

    :param kernel: of a convolution ``(C_out, C_in / groups, kH, kW)``, or of a linear layer
        ``(out, in)``.
    :param branches: by the names that they have beside it.
    :return: ``W + Σ pad(B)``, of the kernel's shape.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.branches import fold
        >>> fold(torch.ones(1, 1, 1, 3), {"branch_1x1": torch.ones(1, 1, 1, 1)}).tolist()
        [[[[1.0, 2.0, 1.0]]]]
    """
    if kernel.dim() == 4:
        return _Fold.apply(kernel, *branches.values())
    full = branches.get("branch_full")
    return kernel + (branches["branch_up"] @ branches["branch_down"] if full is None else full)


def _branch_conv(conv: nn.Conv2d, cls: type[nn.Module], branch: Branch) -> None:
    shapes = branch_shapes((conv.kernel_size[0], conv.kernel_size[1]), branch)
    kernel = conv.weight.detach()
    like_last = kernel.dim() == 4 and kernel.is_contiguous(memory_format=torch.channels_last)
    memory = (
        torch.channels_last if like_last and not kernel.is_contiguous() else torch.contiguous_format
    )
    branches = {
        f"branch_{h}x{w}": kernel.new_zeros((*kernel.shape[:2], h, w)).to(memory_format=memory)
        for h, w in shapes
    }
    _put_on(conv, BranchConv2d, cls, branches)


def _branch_linear(linear: nn.Linear, cls: type[nn.Module], rank: LinearBranch) -> None:
    weight = linear.weight.detach()
    if isinstance(rank, int):
        (out_features, in_features), generator = weight.shape, torch.Generator().manual_seed(0)
        r = min(rank, out_features, in_features)
        down = torch.randn(r, in_features, generator=generator) / in_features**0.5
        branches = {"branch_up": weight.new_zeros(out_features, r), "branch_down": down.to(weight)}
    else:
        branches = {"branch_full": torch.zeros_like(weight)}
    _put_on(linear, BranchLinear, cls, branches)


def add_branches(layer: nn.Module, branch: Branch, linear: LinearBranch) -> Branched:
    """Turn a convolution or linear layer into its branched class, in place.

    :param layer: a layer for which :func:`why_unbranchable` returns None.
    :param branch: branch shapes of a convolution, see :func:`branch_shapes`.
    :param linear: branch of a linear layer, ``"full"`` or a rank.
    :return: the same object.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.branches import add_branches
        >>> layer = nn.Conv2d(2, 4, 3)
        >>> add_branches(layer, "1x3+3x1", "none") is layer
        True
        >>> [name for name, p in layer.named_parameters() if p.requires_grad]
        ['branch_1x3', 'branch_3x1']
    """
    if isinstance(layer, nn.Conv2d):
        _branch_conv(layer, type(layer), branch)
    else:
        assert isinstance(layer, nn.Linear)
        _branch_linear(layer, type(layer), linear)
    assert isinstance(layer, Branched)
    return layer


_HARMLESS = frozenset(
    {"__init__", "__doc__", "__module__", "__qualname__", "__annotations__", "__firstlineno__"}
    | {"__static_attributes__", "__annotate__", "__annotate_func__", "__annotations_cache__"}
    | {"__parameters__", "__constants__", "extra_repr", "reset_parameters"}
)


# These read their children's weights instead of calling the children (in eval mode, the second).
_BYPASSING = (nn.MultiheadAttention, nn.TransformerEncoderLayer, ShiftedWindowAttention)


def why_unbranchable(layer: nn.Module, parent: nn.Module | None = None) -> str | None:
    """Say why a convolution or linear layer cannot receive a branch.

    :param layer: any module.
    :param parent: the module that holds it.
    :return: the reason, or None if the layer can be branched.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune.branches import why_unbranchable
        >>> why_unbranchable(nn.Conv1d(2, 4, 3))
        'Conv1d is neither nn.Conv2d nor nn.Linear'
        >>> why_unbranchable(nn.Linear(4, 4), parent=nn.MultiheadAttention(4, 2))
        'MultiheadAttention reads its weight without calling the layer'
        >>> why_unbranchable(nn.Conv2d(2, 4, 3)) is None
        True
    """
    kind = next((k for k in (nn.Conv2d, nn.Linear) if isinstance(layer, k)), None)
    if kind is None:
        return f"{type(layer).__name__} is neither nn.Conv2d nor nn.Linear"
    if isinstance(parent, _BYPASSING):
        return f"{type(parent).__name__} reads its weight without calling the layer"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
        return "its shape is not known yet: run one forward pass first"
    if not isinstance(layer._parameters.get("weight"), nn.Parameter):
        return "its weight is computed (weight norm, parametrization): remove that first"
    if not layer._parameters["weight"].is_floating_point():  # type: ignore[union-attr]
        return "its weight is not a floating-point tensor"
    if "forward" in vars(layer):
        return "its forward was replaced, which a branch might bypass"
    for cls in type(layer).__mro__:
        if cls is kind:
            return None
        own = sorted(set(vars(cls)) - _HARMLESS)
        if own:
            return f"{cls.__name__} has its own {', '.join(own)}, which a branch might bypass"
    return None
