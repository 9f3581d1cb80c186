"""A memory that is updated in every minibatch: images, and what was computed of them then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.experiences import experience_key
from avalanche_branchtune.options import at_least
from solo_bridge.plugins.rehearsal import reservoir
from solo_bridge.plugins.rehearsal.plain_images import plain_image


@dataclass(frozen=True)
class Remembered:
    """What is kept of an image.

    :param image: as the data set gave it.
    :param kept: what belongs to it, on the CPU.
    """

    image: Any
    kept: tuple[Tensor, ...]


@dataclass(frozen=True)
class Held:
    """The content of a memory; another one takes its place, it does not change.

    :param seen: how many images were presented to it; one counts each time.
    :param items: what it holds.
    """

    seen: int = 0
    items: tuple[Remembered, ...] = field(default=())


class MinibatchMemory:
    """A uniform sample of all presentations of images so far, see :func:`.reservoir.candidates`.

    :meth:`with_minibatch` says what it would hold after a minibatch,
    :meth:`take` lets it: an iteration that fails in between leaves no trace.
    An experience that is trained again begins from what was held before its
    first time.

    :param size: number of images.
    :param plugin: whose it is, for messages.
    :param least: the smallest size.
    :raises UnknownOptionError: for a smaller size.
    """

    def __init__(self, size: int, plugin: str, least: int = 1) -> None:
        """See the class."""
        self.size = at_least(least, f"{plugin}(memory=…)", size)
        self.plugin = plugin
        self.held = Held()
        """What is remembered."""
        self._begun: tuple[tuple[str, int], Held] | None = None

    def begin(self, strategy: Any) -> None:
        """Begin an experience, or a part of an online one; again if it was begun last.

        :param strategy: in training.
        :raises ViewsError: if its data yields views by itself.
        """
        strategy.plain_data(self.plugin)
        key = experience_key(strategy, part=True)
        if self._begun is not None and self._begun[0] == key:
            self.held = self._begun[1]
        else:
            self._begun = (key, self.held)

    def some(self, count: int) -> list[Remembered]:
        """Return this rank's share of random items: no one again before all were drawn.

        :param count: number of items in all.
        """
        chosen = reservoir.some_of(len(self.held.items), count)
        return [self.held.items[i] for i in ranks.own(chosen)]

    def with_minibatch(
        self, strategy: Any, remember: Callable[[list[int], list[Any]], Sequence[Remembered]]
    ) -> Held:
        """Return what the memory would hold with the current minibatch; draws, and changes nothing.

        Only the images that enter are loaded, by this process: few, after the
        first epoch.

        :param strategy: in training.
        :param remember: from places in the minibatch (the whole one, if it is shared among several
            processes), and the images that stand there, as the data set gives them, to what is to
            be kept of them.
        :raises IncompatiblePluginError: for a minibatch without numbers.
        """
        minibatch = strategy.minibatch
        if minibatch.index is None:
            raise IncompatiblePluginError(
                f"{self.plugin} needs the samples' numbers, and something put a loader without them"
                " in place of the strategy's: leave it out, or let its data be training_data()"
            )
        index = ranks.whole(minibatch.index)
        count, places = len(index), {}
        candidates = reservoir.candidates(self.held.seen, count, self.size)
        for number, place in enumerate(candidates):
            if place < self.size:
                places[place] = number
        entering = list(places.values())
        data = strategy.plain_data(self.plugin)
        images = [plain_image(data, int(index[number])) for number in entering]
        new = dict(zip(places, remember(entering, images), strict=True)) if entering else {}
        old = dict(enumerate(self.held.items))
        items = {**old, **new}
        return Held(self.held.seen + count, tuple(items[place] for place in sorted(items)))

    def take(self, held: Held) -> None:
        """Hold something else from now on.

        :param held: see :meth:`with_minibatch`.
        """
        self.held = held


def copied(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU, without a graph, that holds no memory of a larger tensor.

    :param tensor: for example a row of a minibatch.
    """
    return tensor.detach().to("cpu", copy=True).contiguous()
