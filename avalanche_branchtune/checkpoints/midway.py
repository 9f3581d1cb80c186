"""In the middle of an experience: the way back to the step at which a run was saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class GoingOn:
    """A data loader whose first epoch goes on where it was left.

    Minibatches that were trained on are left out by a reproducible loader; another one loads them
    once more, to be dropped, so that it is where it was, with workers or without.  Then the state
    is put back, and the rest is given.

    :param loader: of the experience.
    :param done: minibatches of the epoch that were trained on.
    :param put_back: called once, before the first minibatch that is given.
    """

    def __init__(self, loader: Any, done: int, put_back: Callable[[], None]) -> None:
        """See the class."""
        self.loader = loader
        self._done = done
        self._put_back = put_back

    def __len__(self) -> int:
        """Return the minibatches of a whole epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """Go on with the epoch."""
        if getattr(self.loader, "reproducible", False):
            minibatches = self.loader.going_on(self._done)
        else:
            minibatches = iter(self.loader)
            for _ in range(self._done):
                next(minibatches)
        self._put_back()
        yield from minibatches

    def __getattr__(self, name: str) -> Any:
        """Return what the loader has."""
        return getattr(self.loader, name)
