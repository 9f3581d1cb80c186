"""A strategy as it was made: by that its state is written, and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avalanche_branchtune.checkpoints.data import NamedData, within
from avalanche_branchtune.checkpoints.state import restore, shapes, snapshot
from avalanche_branchtune.errors import CheckpointError


class Watched:
    """Takes the state of a strategy, and gives it one.

    :param strategy: before its first call.
    :param plugin: that asks; it is no part of the state.
    :param folder: of the checkpoints, for messages.
    :param pickles: whether to pickle what cannot be plain data, and to read pickles.
    """

    def __init__(self, strategy: Any, plugin: Any, folder: Path, *, pickles: bool) -> None:
        """See the class."""
        self.strategy = strategy
        self.shapes = shapes(strategy.model)
        self._plugin = plugin
        self._folder = folder
        self._pickles = pickles
        self._known = within([vars(strategy), *strategy.plugins])
        self._data = NamedData()

    def check_shapes(self, there: dict[str, list[int]]) -> None:
        """Refuse a model of another shape.

        :param there: shapes in the run, see :func:`.state.shapes`.
        :raises CheckpointError: naming the first weight that differs.
        """
        for name in sorted(there.keys() | self.shapes.keys()):
            old, new = there.get(name), self.shapes.get(name)
            if old != new:
                raise CheckpointError(
                    f"{self._folder}: {name} of the model is {new or 'not there'}, in the run "
                    f"it was {old or 'not'}: go on with the script that made it"
                )

    def state(self, experiences: list[Any]) -> dict[str, Any]:
        """Return its state as plain data.

        :param experiences: that it was trained on.
        :raises CheckpointError: naming what cannot be written.
        """
        data = self._data.of(experiences)
        return snapshot(self.strategy, data, self._known, self._plugin, pickles=self._pickles)

    def put_back(self, state: dict[str, Any], experiences: list[Any], *, more: bool) -> None:
        """Give it a state.

        :param state: see :meth:`state`.
        :param experiences: that it was trained on, as they are found here.
        :param more: whether a later state will follow.
        :raises CheckpointError: for a strategy that is made otherwise, or a damaged state.
        """
        data = self._data.of(experiences)
        try:
            restore(self.strategy, state, data, self._plugin, more=more, pickles=self._pickles)
        except CheckpointError as error:
            raise CheckpointError(f"{self._folder}: {error}") from error
        except Exception as error:  # whatever a damaged or hostile file can cause
            raise CheckpointError(
                f"{self._folder}: the checkpoint cannot be put back: {error!r}"
            ) from error
