"""What is allowed in an expansion, and yet is probably not what was meant."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from torch import nn

from avalanche_branchtune.branches import Branched, LinearBranch
from avalanche_branchtune.norms import NORM_LAYERS
from avalanche_branchtune.surgery import HEADS, Scope, in_scope, is_head


def doubts(
    model: nn.Module,
    *,
    linear: LinearBranch,
    scope: Scope,
    norm_mode: str,
    fixed: Sequence[str],
) -> Iterator[str]:
    """Yield a sentence for each thing that a user should know of before training.

    :param model: expanded, its norms fixed.
    :param linear: as it was expanded.
    :param scope: the same; ``("",)`` for a whole model that names no backbone.
    :param norm_mode: as its norms were fixed.
    :param fixed: names of the fixed norms.

    Example::

        >>> from torch import nn
        >>> from avalanche_branchtune import expand
        >>> from avalanche_branchtune.doubts import doubts
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4))
        >>> expansion = expand(model)
        >>> list(doubts(model, linear="none", scope=("",), norm_mode="affine", fixed=()))
        ['no norm is fixed, but the network has GroupNorm: pass norms=["GroupNorm"], ...]
    """
    norms = sorted({type(m).__name__ for m in model.modules() if isinstance(m, NORM_LAYERS)})
    if norm_mode != "none" and not fixed and norms:
        names = ", ".join(f'"{n}"' for n in norms)
        yield (
            f"no norm is fixed, but the network has {', '.join(norms)}: pass norms=[{names}], or "
            'norm_mode="none" if they are to learn'
        )
    chosen = dict(in_scope(model, scope))
    if linear == "none":
        yield from _learn_as_usual(chosen)
    elif scope == ("",) and not any(is_head(n) for n, _ in model.named_modules()):
        last = [n for n, m in chosen.items() if isinstance(m, nn.Linear)][-1:]
        yield from (
            f"all linear layers have branches, {name} too, so their weight and bias stand still: "
            f"an output layer is known by its name ({', '.join(sorted(HEADS))}); leave it out by "
            "scope if it is one"
            for name in last
        )


def _learn_as_usual(chosen: dict[str, nn.Module]) -> Iterator[str]:
    branched = sum(m.weight.numel() for m in chosen.values() if isinstance(m, Branched))
    usual = {n: m for n, m in chosen.items() if isinstance(m, nn.Linear) and not is_head(n)}
    left_out = sum(m.weight.numel() for m in usual.values())
    if left_out > branched:
        yield (
            f"{_some(usual)} learn as usual, {left_out:,} weights, and have no branches, as "
            f"convolutions have, {branched:,} weights: pass linear='full' or a rank for them"
        )


def _some(names: Collection[str]) -> str:
    first = list(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
