"""The life cycle of plugins that change a network for the length of an experience.

``refuse`` before anything is trained; ``open`` when an experience begins;
``close`` when it has ended; and if it never ended, because training was
interrupted, ``close`` when the next one begins, before any plugin opens it.
State is kept in plain attributes: a strategy can be pickled in the middle of
an experience.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

from avalanche.training.plugins import SupervisedPlugin

from avalanche_branchtune import ranks
from avalanche_branchtune.experiences import (
    begins,
    ends,
    experience_index,
    experience_key,
    mark_finished,
    position,
    stream_length,
    trained_before,
)

logger = logging.getLogger(__name__)


class ExperiencePlugin(SupervisedPlugin):
    """A plugin that changes a network when an experience begins, and puts it back at its end.

    Subclasses say what to do in :meth:`refuse`, :meth:`open`, :meth:`rejoin`,
    :meth:`close` and :meth:`clean`; the events of Avalanche are this class's.
    """

    pretrained: bool = True
    """Whether the network that comes counts as trained: False to leave the first experience out."""

    verbose: bool = False
    """Whether summaries are printed; they are logged in any case."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.under_way: int | None = None
        """Place of the experience that the network is changed for, None if it is as it was."""
        self.summary: Any = None
        """What :meth:`open` said of the latest experience."""
        self.again = False
        """Whether the experience under way was finished already, and is trained again."""
        self._key: tuple[str, int] | None = None  # of the experience that was opened last
        self._finished = False  # whether that one was closed as finished
        self._paused = False  # the last part of an online experience ended as it should

    # ---- what a plugin says

    def refuse(self, strategy: Any) -> None:
        """Raise what cannot work, before anything is trained or changed.

        :param strategy: the strategy, about to train.
        """

    def open(self, strategy: Any, experience: int) -> Any:
        """Change the network; the optimizer of the experience is there.

        :param strategy: the strategy.
        :param experience: its place among those that were trained, see
            :func:`~avalanche_branchtune.experiences.position`.
        :return: a summary, which ``str`` turns into one line, or None.
        """

    def rejoin(self, strategy: Any) -> None:
        """Go on in a later part of an online experience, whose optimizer may be a fresh one.

        :param strategy: the strategy.
        """

    def close(self, strategy: Any, *, finished: bool) -> None:
        """Put the network back, whatever part of :meth:`open` was done; can be called again.

        :param strategy: the strategy.
        :param finished: False if the experience was interrupted, or could not be opened.
        """

    def clean(self, strategy: Any) -> None:
        """Clear away, when an experience begins, what others left on the network.

        :param strategy: the strategy.
        """

    def go_first(self, strategy: Any) -> None:
        """Go to the front of a strategy's plugins, so that others find the network as it was.

        :param strategy: about to train.
        """
        # A new list: the loop that calls this event is still walking over the old one.
        strategy.plugins = [self, *(p for p in strategy.plugins if p is not self)]

    # ---- events

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what cannot work."""
        self.refuse(strategy)

    def before_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Close what was never closed, before the optimizer is made and a plugin opens."""
        self._settle(strategy)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Open the experience."""
        self._settle(strategy)  # a template may have no data to adapt
        if self.under_way is not None:  # a later part
            self._paused = False
            self.rejoin(strategy)
            return
        self.clean(strategy)
        if not begins(strategy):
            return
        if not self.pretrained and trained_before(strategy) == 0:
            self._leave_out(strategy)
            return
        key = experience_key(strategy)
        self.again = self._finished and key == self._key
        self._key, self._finished = key, self.again
        self._paused = False
        self.under_way = position(strategy)  # from here on there may be something to close
        try:
            summary = self.open(strategy, self.under_way)
        except Exception:
            self._close(strategy, finished=False)
            raise
        if summary is not None:
            self.summary = summary
            self._say(str(summary))

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Close the experience."""
        mark_finished(strategy)
        if self.under_way is not None:
            self._paused = True
            if ends(strategy):
                self._close(strategy, finished=True)

    def _leave_out(self, strategy: Any) -> None:
        """Say that the first experience is trained as usual; warn if others seem to be before it.

        A strategy that is made anew for each experience knows of none, and would leave out all.
        """
        name, index = type(self).__name__, experience_index(strategy)
        self._say(f"{name}: experience {index}, the first of this strategy, is trained as usual")
        if index > 0 and stream_length(strategy) != 1:
            warnings.warn(
                f"{name} leaves out experience {index} of the stream, since it is the first that "
                "this strategy trains: pass pretrained=True if the network has learnt already, and "
                "train all experiences with one strategy",
                stacklevel=2,
            )

    def _say(self, line: str) -> None:
        logging.getLogger(type(self).__module__).info("%s", line)
        if self.verbose and ranks.leads():
            print(line)

    def _settle(self, strategy: Any) -> None:
        if self.under_way is not None and begins(strategy):
            if not self._paused:
                logger.warning(
                    "%s: experience %d was not finished", type(self).__name__, self.under_way
                )
            self._close(strategy, finished=self._paused)

    def _close(self, strategy: Any, *, finished: bool) -> None:
        self.close(strategy, finished=finished)
        self._finished = self._finished or finished
        self.under_way = None  # last: what is interrupted here is closed once more
