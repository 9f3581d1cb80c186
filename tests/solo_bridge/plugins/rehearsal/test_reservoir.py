"""Reservoirs: every image, or every presentation of one, is equally likely to be held."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from solo_bridge.plugins.rehearsal.reservoir import Reservoir, candidates, some_of


def test_the_memory_is_a_uniform_sample_of_the_stream() -> None:
    torch.manual_seed(0)
    counts, rounds = torch.zeros(100), 4000
    for _ in range(rounds):
        reservoir, held, start = Reservoir(10), [], 0
        for samples in (4, 26, 50, 20):
            draw = reservoir.draw(samples)
            held = [held[i] for i in draw.stay] + [start + i for i in draw.enter]
            reservoir.take(draw)
            start += samples
            assert len(held) == len(set(held)) == min(10, start)
        counts[held] += 1
    z = (counts - rounds * 0.1) / (rounds * 0.1 * 0.9) ** 0.5
    assert z.abs().max() < 4.5
    assert stats.chi2(99).sf(float(z.square().sum())) > 1e-3
    for part in (z[:4], z[4:30], z[30:80], z[80:]):
        assert abs(float(part.sum()) / len(part) ** 0.5) < 4


@pytest.mark.parametrize("minibatches", [[7] * 12, [3, 40, 1, 20, 20]])
def test_every_presentation_is_equally_likely_to_be_held(minibatches: list[int]) -> None:
    torch.manual_seed(0)
    size, rounds, total = 10, 4000, sum(minibatches)
    counts = torch.zeros(total)
    for _ in range(rounds):
        held: dict[int, int] = {}
        seen = 0
        for count in minibatches:
            for number, place in enumerate(candidates(seen, count, size)):
                assert place <= seen + number
                if place < size:
                    held[place] = seen + number
            seen += count
            assert sorted(held) == list(range(min(size, seen)))
        counts[list(held.values())] += 1
    share = size / total
    z = (counts - rounds * share) / (rounds * share * (1 - share)) ** 0.5
    assert z.abs().max() < 4.5
    assert stats.chi2(total - 1).sf(float(z.square().sum())) > 1e-3
    for part in (z[:size], z[size : total // 2], z[total // 2 :]):
        assert abs(float(part.sum()) / len(part) ** 0.5) < 4


def test_places_after_the_last_one_are_as_likely_as_chance_has_it() -> None:
    torch.manual_seed(0)
    found = torch.tensor([candidates(19, 1, 5)[0] for _ in range(20000)])
    counts = torch.bincount(found, minlength=20).double()
    assert len(counts) == 20
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert candidates(0, 5, 5) == [0, 1, 2, 3, 4], "free places are filled in order"


def test_items_are_drawn_again_only_when_all_were() -> None:
    torch.manual_seed(0)
    for total, count in ((5, 3), (5, 5), (5, 13), (1, 4)):
        found = some_of(total, count)
        assert len(found) == count
        for start in range(0, count, total):
            part = found[start : start + total]
            assert len(set(part)) == len(part) and set(part) <= set(range(total))
    counts = torch.zeros(6)
    for _ in range(6000):
        counts[some_of(6, 2)] += 1
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
