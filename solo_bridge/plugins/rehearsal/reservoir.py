"""A uniform sample of everything that a stream has brought, in constant memory."""

from __future__ import annotations

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

    Authors' code: aimagelab/mammoth e75a491, utils/buffer.py, ReservoirSampling (DER);
    divyam3897/UCL cfaa81d, utils/buffer.py, reservoir (LUMP).
    Differs: theirs puts an item in a random place, ours draws keys: the same distribution.
    Differs: theirs counts an image each time it is presented, ours once.

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

    def take(self, draw: Draw) -> None:
        """Make a draw the new state.

        :param draw: of this reservoir.
        """
        self.keys = draw.keys
