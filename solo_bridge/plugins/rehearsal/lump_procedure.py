"""What LUMP's procedures have in common: when they are asked, and what they do by default."""

from __future__ import annotations

from typing import Any

from solo_bridge.views import Views


class Procedure:
    """One way to mix; the plugin calls it, in training only unless it says otherwise."""

    needs: frozenset[str] = frozenset()
    """Of a minibatch, see :class:`~solo_bridge.SelfSupervised`."""

    @property
    def images(self) -> list[Any]:
        """The images that are remembered."""
        raise NotImplementedError

    def wrap_views(self, views: Views | None) -> Views | None:
        """Return the strategy's views, or something around them.

        :param views: the strategy's; None if it makes none.
        """
        return views

    def refuse(self, strategy: Any) -> None:
        """Raise what cannot work before anything is trained.

        :param strategy: about to train.
        """

    def begin(self, strategy: Any) -> None:
        """Begin an experience, perhaps not for the first time.

        :param strategy: in training.
        """

    def before_step(self, strategy: Any) -> None:
        """See a minibatch before the loss is taken on it.

        :param strategy: in training.
        """

    def after_step(self, strategy: Any) -> None:
        """Follow the optimizer's step.

        :param strategy: in training.
        """

    def end(self, strategy: Any) -> None:
        """End an experience.

        :param strategy: in training.
        """

    def pause(self) -> None:
        """Let an evaluation begin, in training or outside of it."""

    def go_on(self) -> None:
        """Follow an evaluation."""
