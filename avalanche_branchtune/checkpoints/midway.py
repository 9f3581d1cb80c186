"""In the middle of an experience: the way back to the step at which a run was saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class GoingOn:
    """A data loader whose first epoch goes on where it was left.

    Minibatches that were trained on are loaded once more and dropped, so that every loader, with
    workers or without, is where it was; then the state is put back, and the rest is given.

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
        minibatches = iter(self.loader)
        for _ in range(self._done):
            next(minibatches)
        self._put_back()
        yield from minibatches

    def __getattr__(self, name: str) -> Any:
        """Return what the loader has."""
        return getattr(self.loader, name)
