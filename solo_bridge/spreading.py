"""A minibatch that is spread over several processes, and its loss as if it were in one.

Each rank computes backbone and projector on its own samples, with normalisation layers that see all
of them; from there on, where a loss compares samples with each other, every rank has the whole
minibatch's embeddings.  So any loss is the one of a single process, and its gradient is the mean
over the ranks of theirs.  Nothing is left in the networks: hooks and functions are in place only
while they are used.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import BatchSizeError
from solo_bridge.draws import draws_of_the_whole

NORMS = ("synchronised", "local")

_of_a_share = F.batch_norm
_norms: str | None = None  # how, while a minibatch is spread
_spread: set[int] = set()  # networks that know of it already, by id


@contextmanager
def spread(norms: str | None) -> Iterator[None]:
    """Take minibatches inside as shares of a whole one.

    :param norms: ``"synchronised"``, or ``"local"``: a share's own statistics; None for minibatches
        that are whole.
    """
    global _norms
    before, _norms = _norms, norms
    try:
        yield
    finally:
        _norms = before


@contextmanager
def sharing(samples: int) -> Iterator[None]:
    """Take another minibatch as :func:`~avalanche_branchtune.ranks.own` gives it: a share if the
    current one is a share, but whole where the ranks cannot share it equally.

    :param samples: of the whole minibatch.
    """
    with spread(None if samples % shares() else _norms):
        yield


def shares() -> int:
    """Return over how many processes the current minibatch is spread, 1 if it is not."""
    return 1 if _norms is None else ranks.size()


@contextmanager
def over(networks: Iterable[nn.Module], projectors: Iterable[nn.Module]) -> Iterator[None]:
    """Let networks work on shares, and projectors give the whole minibatch's embeddings.

    It may be entered again inside, as by a plugin that asks for a loss in ``before_backward``:
    embeddings are brought together once.

    A projector with a layer that whitens (VIbCReg's IterNorm) has the whole minibatch from there
    on.

    :param networks: images ``(N / W, C, H, W)`` to features ``(N / W, D)``.
    :param projectors: features ``(N / W, D)`` to embeddings ``(N, P)``.
    """
    if shares() == 1:
        yield
        return
    with ExitStack() as stack:
        for network in _new(networks, stack):
            stack.enter_context(_in_step(network))
        for projector in _new(projectors, stack):
            stack.enter_context(_in_step(projector))
            whitening = whitening_layer(projector)
            if whitening is None:
                hook = projector.register_forward_hook(_gather, prepend=True)
            else:
                hook = whitening.register_forward_pre_hook(_gather_input, prepend=True)
            stack.callback(hook.remove)
        yield


def _new(networks: Iterable[nn.Module], stack: ExitStack) -> list[nn.Module]:
    found = [network for network in networks if id(network) not in _spread]
    _spread.update(map(id, found))
    stack.callback(_spread.difference_update, [id(network) for network in found])
    return found


@contextmanager
def norms_in_step() -> Iterator[None]:
    """Let normalisation layers that see a share have the statistics of the whole minibatch.

    They are those that call ``torch.nn.functional.batch_norm``, as torch's own and timm's do.
    """
    if shares() == 1 or _norms == "local":
        yield
        return
    with mock.patch.object(F, "batch_norm", batch_norm):
        yield


def draws_in_step(args: Sequence[Any]) -> AbstractContextManager[None]:
    """Let what a network draws for each sample of its share be of the whole minibatch's draws.

    :param args: of the network; the first one ``(N / W, …)``.
    """
    known = shares() > 1 and args and isinstance(args[0], Tensor) and args[0].dim() > 0
    return draws_of_the_whole(len(args[0])) if known else nullcontext()


def _gather(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    found: Tensor = ranks.Gathered.apply(output)
    return found


def _gather_input(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return ranks.Gathered.apply(args[0]), *args[1:]


def whitening_layer(projector: nn.Module) -> nn.Module | None:
    """Return the projector's first layer that whitens a minibatch, None if it has none.

    :param projector: features ``(N, D)`` to embeddings ``(N, P)``.
    """
    for module in projector.modules():
        known = isinstance(module, nn.modules.batchnorm._NormBase)
        if not known and any(name.startswith("running_") for name in module._buffers):
            return module
    return None


@contextmanager
def _in_step(network: nn.Module) -> Iterator[None]:
    """Let a network's normalisation layers and draws work together, as long as it is called here.

    :param network: its own forward method is another one meanwhile.
    """
    if "forward" in vars(network):
        before: Callable[..., Any] | None = vars(network)["forward"]
    else:
        before = None
    plain = before or types.MethodType(type(network).forward, network)

    def forward(*args: Any, **kwargs: Any) -> Any:
        with draws_in_step(args), norms_in_step():
            return plain(*args, **kwargs)

    vars(network)["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del vars(network)["forward"]
        else:
            vars(network)["forward"] = before


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch normalisation with the statistics of all ranks' samples, as torch's otherwise.

    Source: Ioffe and Szegedy 2015, Algorithm 1; torch's ``SyncBatchNorm`` does the same on GPUs.

    :param x: of this rank's share, ``(N / W, C, …)``; all ranks, of the same shape.
    :param running_mean: ``(C,)``, moved in place.
    :param running_var: ``(C,)``, the same.
    :param weight: ``(C,)``.
    :param bias: ``(C,)``.
    :param training: whether the minibatch's statistics are used.
    :param momentum: of the running ones.
    :param eps: added to the variance.
    """
    if not training:
        return _of_a_share(x, running_mean, running_var, weight, bias, False, momentum, eps)
    count = x.numel() // x.shape[1] * ranks.size()
    if count < 2:
        raise BatchSizeError(f"expected more than one value per channel, got {tuple(x.shape)}")
    normed, mean, variance = _Normalised.apply(x, weight, bias, eps, count)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            unbiased = variance * (count / (count - 1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    result: Tensor = normed
    return result


class _Normalised(torch.autograd.Function):
    """Normalised with the mean and variance over all ranks: one message each way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        local_mean, local_variance = torch.batch_norm_update_stats(_exact(x), None, None, 0.0)
        moments = torch.stack([local_mean, local_variance]).double()  # in which nothing cancels
        moments[1] += moments[0].square()
        moments = ranks.summed(moments, "norms") / ranks.size()  # (2, C); shares are equal
        mean = moments[0].to(local_mean.dtype)
        variance = (moments[1] - moments[0].square()).clamp(min=0).to(local_mean.dtype)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.count = eps, count
        ctx.mark_non_differentiable(mean, variance)
        return _of_a_share(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, mean, variance = ctx.saved_tensors
        exact, scale = _exact(x), torch.rsqrt(variance + ctx.eps)
        factor = scale if weight is None else scale * weight
        # of a norm that stands still: factor · gradient, Σ gradient · unit, Σ gradient
        of_x, *sums = torch.ops.aten.native_batch_norm_backward(
            _exact(gradients[0]),
            exact,
            weight,
            mean,
            variance,
            None,
            None,
            False,
            ctx.eps,
            [True] * 3,
        )
        by_unit, plain = ranks.summed(torch.stack(sums), "norms, back") / ctx.count
        slope = -factor * scale * by_unit
        shape = [1, -1, *[1] * (x.dim() - 2)]
        of_x.addcmul_(exact, slope.view(shape)).add_((-factor * plain - slope * mean).view(shape))
        needs_weight, needs_bias = ctx.needs_input_grad[1:3]
        of_weight = sums[0].to(weight.dtype) if needs_weight else None
        return (
            of_x.to(x.dtype),
            of_weight,
            sums[1].to(mean.dtype) if needs_bias else None,
            None,
            None,
        )


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
