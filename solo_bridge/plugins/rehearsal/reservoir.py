"""Uniform samples in constant memory: of all images of a stream, or of all their presentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from avalanche_branchtune.options import at_least_one


@dataclass(frozen=True)
class Draw:
    """What a memory is to become.

    :param stay: positions of the stored items that stay, ascending.
    :param enter: numbers of the new items that enter, ascending.
    :param keys: of those that stay, then of those that enter.
    """

    stay: list[int]
    enter: list[int]
    keys: Tensor


class Reservoir:
    """Reservoir sampling by random keys (Vitter, ACM TOMS 1985; Efraimidis and Spirakis, 2006).

    Every item of the stream gets a key, uniform in [0, 1); the ``size`` items
    with the largest keys are kept.  Hence every set of ``size`` items is
    equally likely, and which new items enter is known before any is loaded.
    Each item counts once, however often it is trained on; for a memory that is
    updated in every minibatch see :func:`candidates`.

    :param size: number of items that are kept.
    :param owner: named in errors.
    :raises UnknownOptionError: for a size below 1.
    """

    def __init__(self, size: int, owner: str = "Reservoir") -> None:
        """See the class."""
        self.size = at_least_one(owner, size)
        self.keys = torch.zeros(0, dtype=torch.float64)

    def draw(self, count: int) -> Draw:
        """Choose among the stored items and ``count`` new ones, with torch's generator.

        Nothing changes until :meth:`take`: new items may turn out unreadable.

        :param count: number of new items.
        """
        old = len(self.keys)
        keys = torch.cat([self.keys, torch.rand(count, dtype=torch.float64)])
        kept = keys.topk(min(self.size, len(keys))).indices.sort().values
        stay, enter = kept[kept < old], kept[kept >= old] - old
        return Draw(stay.tolist(), enter.tolist(), keys[kept])

    def take(self, draw: Draw, without: Sequence[int] = ()) -> None:
        """Make a draw the new state.

        :param draw: of this reservoir.
        :param without: places in it of items that could not be had.
        """
        self.keys = draw.keys[[i for i in range(len(draw.keys)) if i not in without]]


def candidates(seen: int, count: int, size: int) -> list[int]:
    """Return where each of some new items would go, with torch's generator (Vitter's algorithm R).

    Item n of all that were ever presented, from 0, goes to place n while places
    are free, afterwards to a random one of 0 … n: those beyond the last place
    are left out.  Places are filled one item after the other, so a later item
    may take an earlier one's.

    Authors' code: divyam3897/UCL cfaa81d, utils/buffer.py, reservoir, Buffer.add_data;
    aimagelab/mammoth e75a491, utils/buffer.py, ReservoirSampling.

    :param seen: number of items that were presented before.
    :param count: number of new items.
    :param size: number of places.
    """
    draws = torch.rand(count, dtype=torch.float64).tolist()
    return [n if n < size else int(draw * (n + 1)) for n, draw in enumerate(draws, start=seen)]


def some_of(total: int, count: int) -> list[int]:
    """Return random items of a memory, with torch's generator: no item again before all were drawn.

    :param total: number of items in the memory, at least 1.
    :param count: number of items to draw.
    """
    found: list[int] = []
    while len(found) < count:
        found += torch.randperm(total).tolist()
    return found[:count]
