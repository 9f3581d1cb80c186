"""A minibatch that is spread over several processes: its norms, draws, embeddings and gradients."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.transforms.functional import to_tensor

from avalanche_branchtune import ranks
from solo_bridge import Processes, SelfSupervised, SelfSupervisedMethod, spreading
from tests.jobs import in_job
from tests.selfsupervised import backbone, stream

SHAPES = ((12, 3), (12, 3, 5), (12, 3, 4, 2))
CASES = list(product(SHAPES, (True, False), (True, False)))  # affine, running statistics


def whole_minibatch(shape: tuple[int, ...], far: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return what is normalised, and the gradient of what comes out."""
    generator = torch.Generator().manual_seed(len(shape))
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    x = x * torch.tensor([1.0, 3.0, 0.1]).view(1, 3, *[1] * (len(shape) - 2)) + far
    return x, torch.randn(*shape, generator=generator, dtype=torch.float64)


def normed(batch_norm: Any, x: Tensor, given: Tensor, affine: bool, running: bool) -> list[Tensor]:
    """Output, running statistics, gradients of the input, weight and bias, two steps long."""
    kind = {"dtype": x.dtype}
    x = x.clone().requires_grad_()
    weight = torch.tensor([0.5, -2, 1], **kind).requires_grad_() if affine else None
    bias = torch.tensor([1.0, 2, 3], **kind).requires_grad_() if affine else None
    mean = torch.full((3,), 0.3, **kind) if running else None
    var = torch.full((3,), 1.7, **kind) if running else None
    for _ in range(2):
        out = batch_norm(x, mean, var, weight, bias, True, 0.2, 1e-4)
        out.backward(given)
    found = [out, x.grad, mean, var, *(p.grad for p in (weight, bias) if p is not None)]
    return [t.detach() for t in found if t is not None]


def all_normed(batch_norm: Any = spreading.batch_norm) -> dict[str, list[list[Tensor]]]:
    """Every case on this rank's share: in double precision, and in single far from zero."""
    ranks.join(torch.device("cpu"), minutes=1)
    rank, size = ranks.rank(), ranks.size()
    found: dict[str, list[list[Tensor]]] = {"double": [], "far": [], "evaluating": []}
    for shape, affine, running in CASES:
        x, given = (t[rank::size] for t in whole_minibatch(shape))
        found["double"].append(normed(batch_norm, x, given, affine, running))
        x, given = (t[rank::size].float() for t in whole_minibatch(shape, far=100))
        found["far"].append(normed(batch_norm, x, given, affine, running))
    still = batch_norm(x, torch.zeros(3), torch.ones(3), None, None, False, 0.5, 1e-5)
    found["evaluating"].append([still])
    return found


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_norms_are_those_of_the_whole_minibatch(size: int) -> None:
    by_rank = in_job(size, all_normed)
    alone = all_normed(F.batch_norm)
    # Single precision: as far from the truth as torch's own is, or a little more.
    for kind, within in (("double", 1e-11), ("far", 2e-3), ("evaluating", 0)):
        for case, expected in enumerate(alone[kind]):
            several = [found[kind][case] for found in by_rank]
            for number, one in enumerate(expected):
                parts = [tensors[number] for tensors in several]
                if one.dim() > 1:  # rows
                    together = torch.stack(parts, dim=1).flatten(0, 1)
                elif number < 4 and len(expected) - number > (2 if CASES[case][1] else 0):
                    assert all(torch.equal(part, parts[0]) for part in parts)  # running statistics
                    together = parts[0]
                else:  # each rank's part of the sum
                    together = torch.stack(parts).sum(0)
                assert (together - one).abs().max() <= within * one.abs().max(), (kind, case)


class Pair(SelfSupervisedMethod):
    """A loss that is a mean over samples: what DistributedDataParallel computes, too."""

    mean_over_samples = True

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone()
        self.projector = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
        self.double()

    def loss(self, views: Any) -> Tensor:
        a, b = (self.projector(self.backbone(view)) for view in views)
        return (a - b).square().mean() + F.cosine_similarity(a, b).mean()

    forward = loss


class Keep(SupervisedPlugin, supports_distributed=True):
    """Keeps the first step's share and gradients."""

    def wrap_views(self, views: Any) -> Any:
        return lambda image: [view.double() for view in views(image)]

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_iterations == 0:
            self.views = strategy.minibatch.views
            self.gradients = [p.grad.clone() for p in strategy.model.parameters()]


def beside_ddp() -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of one step, ours and those of torch's own wrapper around the same network."""
    torch.manual_seed(0)
    model, theirs, keep = Pair(), Pair(), Keep()
    theirs.load_state_dict(model.state_dict())
    strategy = SelfSupervised(
        model,
        optimizer="sgd",
        train_mb_size=20,
        plugins=[keep],
        views=small_views,
        processes=Processes(norms="local", wait_minutes=1),
        evaluator=None,
    )
    strategy.train(next(iter(stream().train_stream)))

    wrapper = DistributedDataParallel(theirs)
    wrapper(keep.views).backward()
    return keep.gradients, [p.grad for p in theirs.parameters() if p.grad is not None]


def small_views(image: Any) -> list[Tensor]:
    pixels = to_tensor(image)
    return [pixels, pixels.flip(-1) + 0.1 * torch.randn(pixels.shape)]


def test_gradients_are_those_of_torchs_own_wrapper() -> None:
    by_rank = in_job(2, beside_ddp)
    for ours, theirs in by_rank:
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)
    first, second = (torch.cat([g.flatten() for g in ours]) for ours, _ in by_rank)
    assert torch.equal(first, second) and first.abs().max() > 1e-4


class Drawing(nn.Module):
    """Draws for each sample as masked autoencoders, dropout and stochastic depth do."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.rand(len(x), 3) + torch.rand((len(x), 3), dtype=x.dtype)
        depth = x.new_empty(len(x), 1).bernoulli_(0.5)
        of_all = torch.rand(1)  # one for the whole minibatch
        return torch.cat([mask, depth, F.dropout(x, 0.5), F.dropout(x.t(), 0.5).t() * of_all], 1)


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    ranks.join(torch.device("cpu"), minutes=1)
    x = torch.arange(1.0, 25).view(8, 3).double()[ranks.rank() :: ranks.size()]
    network = Drawing()
    torch.manual_seed(3)
    with spreading.spread("local"), spreading.over([network], []):
        here = network(x)
    after = torch.rand(4)
    assert "forward" not in vars(network)
    return here, F.dropout(torch.ones(4), 0.5), after


def test_what_networks_draw_is_of_the_whole_minibatch() -> None:
    expected, _, after = drawn()
    by_rank = in_job(2, drawn)
    together = torch.stack([here for here, _, _ in by_rank], dim=1).flatten(0, 1)
    # The last columns' dropout has no row for each sample: each rank draws as for itself.
    assert torch.equal(together[:, :7], expected[:, :7])
    assert torch.equal(by_rank[0][1], by_rank[1][1])
    assert torch.equal(by_rank[0][2], by_rank[1][2])
    assert not torch.equal(by_rank[0][0][:, :4], by_rank[1][0][:, :4])
    assert after.shape == (4,)
