"""What a job's processes tell one another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import BatchSizeError, OtherProcessError
from avalanche_branchtune.loading import ExperienceLoader
from tests.jobs import in_job

ROWS = torch.arange(24, dtype=torch.float64).view(6, 2, 2).sin()  # of a whole minibatch


def told() -> dict[str, Any]:
    """Everything that ranks can say to each other, once."""
    ranks.join(torch.device("cpu"), minutes=1)
    rank, size = ranks.rank(), ranks.size()
    share = ranks.own(ROWS)
    assert isinstance(share, Tensor)
    found: dict[str, Any] = {"rank": rank, "share": share, "whole": ranks.whole(share)}
    found["unshared"] = ranks.own(range(size + 1))
    found["rows"] = ranks.rows_of(share, [4, 0, 5])
    found["none"] = ranks.rows_of(share, [])
    found["count"] = ranks.mean_count(torch.tensor(rank * 3))
    before = ranks.BUCKET
    ranks.BUCKET = 64  # several buckets, one of a tensor that is larger
    mixed = [torch.full((3,), rank + 1.0), torch.full((4, 5), 10.0 * rank), torch.zeros(())]
    mixed += [torch.full((2, 2), rank + 1, dtype=torch.float64)]
    ranks.average(mixed)
    firsts = [torch.tensor([rank, 7]), torch.full((30,), 0.5 + rank), torch.tensor([rank > 0])]
    firsts.append(torch.arange(6.0).view(2, 3).t().add(rank))  # not contiguous
    ranks.as_first(firsts)
    ranks.BUCKET = before
    found |= {"average": mixed, "first": firsts, "all": ranks.of_all({"r": rank})}
    found["of first"] = ranks.of_first(lambda: [rank, "made"])
    try:
        ranks.of_first(lambda: 1 / 0)
    except (OtherProcessError, ZeroDivisionError) as error:
        found["failed"] = type(error), str(error)
    found["gradient"] = [gradient(dtype) for dtype in (torch.float64, torch.bfloat16)]
    found["loader"] = loaded(24, 4 * size), loaded(24, 4 * size + 1)
    with ranks.unseen():
        found["unseen"] = torch.distributed.is_initialized()
    found["seen"] = torch.distributed.is_initialized()
    return found


def gradient(dtype: torch.dtype) -> Tensor:
    """Of a loss that each rank computes of the whole minibatch in another way."""
    share = ranks.own(ROWS)
    assert isinstance(share, Tensor)
    rows = share.detach().clone().to(dtype).requires_grad_()
    whole = ranks.Gathered.apply(rows)
    ((ranks.rank() + 1) * whole.square() * whole.sum()).sum().backward()
    assert rows.grad is not None
    return rows.grad


def loaded(samples: int, size: int) -> Any:
    """Sample numbers of the first minibatch, or why there is none."""
    data = torch.utils.data.TensorDataset(torch.arange(samples))
    loader = torch.utils.data.DataLoader(data, batch_size=size, shuffle=True)
    try:
        return next(iter(ExperienceLoader(loader, seed=0, name="these")))[0]
    except BatchSizeError as error:
        return str(error)


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_what_ranks_tell_each_other(size: int) -> None:
    by_rank = in_job(size, told)
    expected = gradient(torch.float64)
    weights = sum(range(1, size + 1))
    alone, several = loaded(24, 4 * size), [found["loader"][0] for found in by_rank]
    assert torch.equal(torch.stack(several, dim=1).flatten(), alone)
    for rank, found in enumerate(by_rank):
        assert found["rank"] == rank
        assert torch.equal(found["share"], ROWS[rank::size])
        assert torch.equal(found["whole"], ROWS)
        assert list(found["unshared"]) == list(range(size + 1))
        assert torch.equal(found["rows"], ROWS[[4, 0, 5]])
        assert found["none"].shape == (0, 2, 2)
        assert found["count"] == 3 * (size - 1) / 2
        mean, ten, zero, double = found["average"]
        assert torch.allclose(mean, torch.tensor((size + 1) / 2))
        assert torch.allclose(ten, torch.tensor(5.0 * (size - 1))) and zero == 0
        assert torch.allclose(double, torch.tensor((size + 1) / 2).double())
        for first, of_rank_0 in zip(found["first"], by_rank[0]["first"], strict=True):
            assert torch.equal(first, of_rank_0)
        assert found["first"][0].tolist() == [0, 7]
        assert torch.equal(found["first"][3], torch.arange(6.0).view(2, 3).t())
        assert found["all"] == [{"r": r} for r in range(size)]
        assert found["of first"] == [0, "made"]
        kind, why = found["failed"]
        assert kind is (OtherProcessError if rank else ZeroDivisionError)
        assert "division by zero" in why
        exact, half = found["gradient"]
        assert torch.allclose(exact, weights * expected[rank::size], rtol=1e-12, atol=0)
        assert half.dtype == torch.bfloat16
        assert torch.allclose(half.double(), exact, rtol=0.05, atol=0.3)
        assert found["loader"][1] == (
            f"these: {size} processes cannot share a minibatch of {4 * size + 1} samples equally: "
            "choose a train_mb_size (and batch_size_mem, or batch_size) that is a multiple of "
            f"{size} and not above the number of samples"
        )
        assert not found["unseen"] and found["seen"]


def test_alone_nothing_is_told() -> None:
    assert (ranks.rank(), ranks.size(), ranks.joined(), ranks.leads()) == (0, 1, False, True)
    assert ranks.own([1, 2, 3]) == [1, 2, 3]
    assert ranks.whole(ROWS) is ROWS
    assert ranks.of_all(1) == [1] and ranks.of_first(lambda: 2) == 2
    tensor = torch.ones(2)
    ranks.average([tensor])
    ranks.as_first([tensor])
    assert tensor.tolist() == [1, 1]


def test_a_job_rests_before_it_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(ranks, "time", SimpleNamespace(sleep=slept.append))
    ranks.rest(2)
    monkeypatch.setattr(ranks, "_joined", True)
    ranks.rest(0)
    assert not slept
    ranks.rest(2)
    assert slept == [ranks.REST]
