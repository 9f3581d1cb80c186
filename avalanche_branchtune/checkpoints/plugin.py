"""Checkpoints: a run that was interrupted goes on as if it never was."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
import weakref
from collections.abc import Iterable, Sequence
from functools import partial
from multiprocessing.util import Finalize
from typing import Any
from uuid import uuid4

from avalanche.core import SupervisedPlugin

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints.calls import (
    apart,
    described,
    experiences_first,
    joined,
    known_again,
    marked,
    packed,
    results,
    unpacked,
    without_first,
)
from avalanche_branchtune.checkpoints.files import CheckpointFolder
from avalanche_branchtune.checkpoints.lock import Lock, seen
from avalanche_branchtune.checkpoints.midway import GoingOn
from avalanche_branchtune.checkpoints.saving import Saving
from avalanche_branchtune.checkpoints.sidecar import Sidecar
from avalanche_branchtune.checkpoints.signals import REQUEUE, Requests
from avalanche_branchtune.checkpoints.state import random_states, restore_random_states
from avalanche_branchtune.checkpoints.watched import Watched
from avalanche_branchtune.errors import CheckpointError, FolderInUseError, NonFiniteLossError
from avalanche_branchtune.experiences import (
    experience_index,
    has_persistent_workers,
    is_trained_alone,
    stream_length,
)
from avalanche_branchtune.options import at_least, at_least_one, positive, true_or_false

logger = logging.getLogger(__name__)


SPACING = 20
"""How many times as long as saving takes there is none between the experiences of a call."""


class Checkpoints(SupervisedPlugin):
    """Saves a strategy, and lets a run that was interrupted go on as if it never was.

    It saves after every call of ``train`` and ``eval``; within a call of ``train`` after so many
    minutes or epochs; and when SIGTERM, SIGINT, SIGUSR1 or SIGUSR2 ask the process to end: it
    finishes the step, saves, and exits with status 143, 130 or ``requeue``.  A second signal ends
    it at once.

    To go on, start the script again with ``resume=True``: calls that were finished return at once,
    with the metrics that they gave, and the one that was not goes on, also in the middle of an
    epoch.  Saved is everything that the rest depends on: network, optimizer, schedule, plugins,
    metrics, random states; data sets are not, they are found again.  On a CPU the run ends bit by
    bit as it would have without the interruption.  Views of :class:`solo_bridge.SelfSupervised` are
    drawn from a seed for that (``reproducible_views``); under other strategies minibatches of the
    epoch that were trained on are loaded once more, and what persistent workers drew in earlier
    epochs cannot be repeated, which is warned of.  Before an error of the data loader ends the run,
    it is saved too.

    A plugin, metric or logger with ``state_dict`` and ``load_state_dict`` (torch's words) is saved
    by these, any other by its attributes, which is exact if all of them can be written.  One that
    holds what cannot be (an open connection, a generator, an object of a class of your own that it
    makes in training) is refused before training begins, by the name of what it holds; what it
    comes to hold later can only be refused then.  Three ways out: give it the two methods, leave
    it out, or pass ``trust_plugins=True``.  Options are part of the state: the run goes on with
    those that it was begun with.

    For :class:`solo_bridge.SelfSupervised` it is one of the plugins; other strategies are told::

        checkpoints = Checkpoints("runs/a", resume=True)
        strategy = Naive(…, plugins=[BranchTuningPlugin(), checkpoints])
        checkpoints.attach(strategy)

    The folder is for this process alone, until the strategy is no more or :meth:`finish` is called;
    ``sidecar.json`` in it says what the run does, and when it last said so.

    In a call of ``train`` with several experiences it also saves between them, if that takes less
    than a twentieth of the time since the last saving, or with ``every_epochs``; without it the run
    goes on from where it was saved before.

    :param folder: of one run; its record can be in the same one.
    :param resume: whether to go on with a run that is there; without it such a run is refused.
    :param every_minutes: how often to save in a call of ``train``; None for never.
    :param every_epochs: the same in epochs.
    :param keep: for how many of the last calls checkpoints are kept.
    :param requeue: exit status after SIGUSR1 and SIGUSR2.
    :param trust_plugins: pickle what cannot be written as plain data, and read such pickles.  A
        pickle can run anything when it is read: for files of your own alone.
    :param verbose: print a line where a run goes on.
    :raises CheckpointError: if there is a run and ``resume`` is not set.
    :raises FolderInUseError: if another process writes there; when a strategy takes the plugin.
    :raises UnknownOptionError: for options that are none.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        resume: bool = False,
        every_minutes: float | None = 30.0,
        every_epochs: int | None = None,
        keep: int = 2,
        requeue: int = REQUEUE,
        trust_plugins: bool = False,
        verbose: bool = True,
    ) -> None:
        """See the class."""
        super().__init__()
        self.folder = CheckpointFolder(folder, at_least_one("Checkpoints(keep=…)", keep))
        self.resume = true_or_false("Checkpoints(resume=…)", resume)
        if every_minutes is not None:
            positive("Checkpoints(every_minutes=…)", every_minutes)
        if every_epochs is not None:
            at_least_one("Checkpoints(every_epochs=…)", every_epochs)
        self.every_minutes = every_minutes
        self.every_epochs = every_epochs
        self.trust_plugins = true_or_false("Checkpoints(trust_plugins=…)", trust_plugins)
        self.verbose = true_or_false("Checkpoints(verbose=…)", verbose)
        self.requests = Requests(at_least(0, "Checkpoints(requeue=…)", requeue))
        if not ranks.launched():  # else one of the processes may have begun already
            self._refuse_a_run()
        self._run = uuid4().hex
        self._strategy: Any = None
        self._lock: Lock | None = None
        self._sidecar: Sidecar
        self._saving: Saving
        self._watched: Watched
        self._experiences: list[Any] = []  # that were trained, in this order
        self._before = 0  # of these, in earlier calls
        self._calls: list[Any] = []  # those that are finished, packed
        self._done = 0  # how many of them this process has come by
        self._inside: str | None = None
        self._base: Any = None
        self._midway: Any = None
        self._between: Any = None
        self._in_call = 0  # experiences that the call has begun
        self._within = 0  # of these, which ended before what was saved last but midway
        self._between_steps = False
        self._due = False  # on which a job's processes agreed in this step
        self._epoch_random: Any = None
        self._saved_at = 0.0

    def _refuse_a_run(self) -> None:
        if self.folder.begun() and not self.resume:
            raise CheckpointError(
                f"{self.folder.path} holds a run already: pass resume=True to go on with it, or "
                "choose another folder"
            )

    def attach(self, strategy: Any) -> None:
        """Watch a strategy's calls; before its first one.

        :param strategy: that has this plugin.
        :raises CheckpointError: for a strategy that does not, or a second one.
        :raises FolderInUseError: if another process writes to the folder.
        """
        if not any(p is self for p in strategy.plugins):
            raise CheckpointError("Checkpoints.attach: the strategy does not have this plugin")
        if self._strategy is not None:
            raise CheckpointError("Checkpoints is attached already: make one for each strategy")
        ranks.of_first(self._refuse_a_run)
        self._check_is_shared(ranks.of_first(self._take_lock))
        self._sidecar = Sidecar(self.folder.path, writes=ranks.leads())
        self.requests.together = ranks.joined()
        self._saving = Saving(self.folder, self._sidecar)
        self._watched = Watched(strategy, self, self.folder.path, pickles=self.trust_plugins)
        self._strategy = strategy
        newest = ranks.of_first(self.folder.newest) if self.resume else None
        if newest is not None:
            self._base, self._between, self._midway = newest
            self._run = self._base["run"]
            self._calls = apart(self._base["calls"], str(self.folder.path))
            self._watched.check_shapes(self._base["shapes"])
            if self.verbose and ranks.leads():
                within = ", within the next" if self._between or self._midway else ""
                calls = f"{len(self._calls)} finished calls of train and eval{within}"
                print(f"{self.folder.path}: goes on after {calls}")
        for name in ("train", "eval"):
            vars(strategy)[name] = partial(self._call, name, getattr(strategy, name))
        vars(strategy)["_train_exp"] = partial(self._train_exp, strategy._train_exp)

    def _take_lock(self) -> str:
        self._lock = Lock(self.folder.path, again=True)
        weakref.finalize(self, self._lock.release)
        Finalize(None, self._lock.release, exitpriority=0)  # processes of multiprocessing's
        return self._lock.text

    def _check_is_shared(self, text: str) -> None:
        there = seen(self.folder.path, text)
        lacking = [host for host in ranks.of_all(None if there else socket.gethostname()) if host]
        if lacking:
            raise CheckpointError(
                f"{self.folder.path}: what the first of the job's processes writes there is not "
                f"found on {', '.join(dict.fromkeys(lacking))}: choose a folder that all machines "
                "share"
            )

    def finish(self, *, keep: bool = False) -> None:
        """Say that the run is done, and let other processes to its folder.

        :param keep: whether its checkpoints stay; without them it cannot be gone over again.
        """
        if not keep and ranks.leads():
            self.folder.remove()
            self._sidecar.note(checkpoint=None)
        self._sidecar.say("done")
        if self._lock is not None:
            self._lock.release()

    # ---- calls

    def _call(self, name: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        if self._inside is not None:  # an evaluation in training
            return call(*args, **kwargs)
        if self._lock is not None and self._lock.lost:
            raise FolderInUseError(
                f"{self.folder.path}: a strategy that was made later writes there: go on with that "
                "one, or choose another folder"
            )
        if self._strategy.plugins[-1] is not self:  # it goes last, after Avalanche's clock
            self._strategy.plugins.remove(self)
            self._strategy.plugins.append(self)
        args, kwargs = experiences_first(call, args, kwargs)
        given = args[0] if args else []
        experiences = list(given) if isinstance(given, Iterable) else [given]
        once = isinstance(given, Iterable) and not hasattr(given, "__len__")  # now gone through
        first = 0
        if self._between is not None and self._done == len(self._calls):
            first = self._between["within"]
        if once or first:
            args, kwargs = without_first(first, experiences, args, kwargs)
        this = described(name, experiences)
        if self._done < len(self._calls):
            return self._came_by(this, experiences)
        with self.requests.heard(), self._sidecar.watching(self.requests):
            return self._done_now(this, experiences, partial(call, *args, **kwargs))

    def _done_now(self, this: dict[str, Any], experiences: list[Any], call: Any) -> Any:
        """Do a call, and save what it gave; a request to end waits for that."""
        if self._base is not None:  # of before the first call
            self._go_on_from_base()
        elif not self._calls:
            self._save([])
        inner = self._between or self._midway
        if inner is not None:
            self._check(inner["of"], this, experiences)
        self._in_call = self._within = 0 if self._between is None else self._between["within"]
        self._before = len(self._experiences)
        self._inside, self._saved_at = this["call"], time.monotonic()
        if self._inside == "train":
            self._experiences += experiences
        else:
            self._sidecar.say("evaluating")
        try:
            result = call()
        except BaseException:
            del self._experiences[self._before :]
            raise
        finally:
            self._inside = None
        done = packed(marked(this, experiences), result, str(self.folder.path))
        self._save([*self._calls, done])
        self._done += 1
        asked = ranks.of_all(self.requests.votes())  # also after the last step; the first has saved
        self.requests.take([sum(votes) for votes in zip(*asked, strict=True)])
        all_trained = len(self._experiences) >= (self._sidecar.experiences or math.inf)
        self._sidecar.say("done" if all_trained else "waiting")
        self._end_if_asked()
        return result

    def _came_by(self, this: dict[str, Any], experiences: list[Any]) -> Any:
        """Return what a finished call gave; after the last of them put the state back."""
        saved = unpacked(self._calls[self._done], str(self.folder.path))
        self._check(saved, this, experiences)
        if this["call"] == "train":
            self._experiences += experiences
        self._done += 1
        if self._done == len(self._calls):
            self._go_on_from_base()
        return results(saved.get("result"), self._strategy.device, str(self.folder.path))

    def _go_on_from_base(self) -> None:
        self._restore(self._base, more=self._midway is not None or self._between is not None)
        self._base = None

    def _check(self, saved: Any, this: dict[str, Any], experiences: list[Any]) -> None:
        known_again(saved, this, experiences, f"{self.folder.path}: call {self._done + 1}")

    # ---- events

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse a strategy that is not watched; go on between two experiences of a call."""
        if self._strategy is not strategy:
            raise CheckpointError(
                "Checkpoints: call checkpoints.attach(strategy) before training begins"
            )
        if self._between is not None:
            state, self._between = self._between["state"], None
            self._restore(state, more=self._midway is not None)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Say which epoch comes."""
        self._in_call += 1
        if self._midway is not None:
            strategy.clock.train_exp_epochs = self._midway["epochs"]
        self._say_progress(strategy)

    def _train_exp(self, train: Any, *args: Any, **kwargs: Any) -> None:
        """Leave out the epochs that are over; the schedule was made for all of them."""
        if self._midway is not None:
            self._strategy.train_epochs -= self._midway["epochs"]  # until the state is put back
        self._between_steps = False
        try:
            train(*args, **kwargs)
        except NonFiniteLossError:
            raise  # the weights are those of an earlier step
        except Exception:
            whole = self._between_steps and not self._last_of_epoch(self._strategy)
            if whole and self._in_call == self._within + 1 and ranks.leads():  # by the loader
                self._save_midway(self._strategy, alone=True)
                logger.warning("%s: the run was saved before it ended", self.folder.path)
            raise

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Go on where the run was saved."""
        if self._midway is not None:
            persistent = self._midway["epochs"] and has_persistent_workers(strategy)
            if persistent and not getattr(strategy.dataloader, "reproducible", False):
                logger.warning(
                    "%s: what persistent workers of the data loader drew in earlier epochs cannot "
                    "be repeated: the run goes on, but with other views than it would have had",
                    self.folder.path,
                )
            restore_random_states(self._midway["epoch_random"])
            loader, done = strategy.dataloader, self._midway["iterations"]
            strategy.dataloader = GoingOn(loader, done, self._put_back)
        self._epoch_random = random_states()
        self._between_steps = self._midway is None

    def _put_back(self) -> None:
        midway, self._midway = self._midway, None
        self._restore(midway["state"], more=False)
        self._epoch_random = midway["epoch_random"]
        self._between_steps = True

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Know that a step has begun."""
        self._between_steps = False

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Save if it is time to, and end if that was asked for."""
        self._between_steps = True
        due = self._due if ranks.joined() else self._is_time()
        if self.every_epochs is not None and self._last_of_epoch(strategy):
            due = due or (strategy.clock.train_exp_epochs + 1) % self.every_epochs == 0
        due = due or self.requests.status is not None
        if due and self._in_call == self._within + 1:
            self._save_midway(strategy)
        elif self.requests.status is not None and ranks.leads():
            logger.warning(
                "%s: the run goes on from where it was saved last, %.0f s ago: the experience "
                "before was too short to save after it",
                self.folder.path,
                time.monotonic() - self._saved_at,
            )
        if due or self._sidecar.due:
            self._say_progress(strategy)
        self._end_if_asked()

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Give a sign of life."""
        if self._sidecar.due:
            self._sidecar.say()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Save between two experiences of a call."""
        self._say_progress(strategy)
        under_way = self._now()
        last = self._in_call >= len(under_way)
        if last or not is_trained_alone(strategy, under_way[self._in_call - 1]):
            return
        if ranks.of_first(self._is_worth_it):
            if self._save_within(strategy, "between", {"within": self._in_call}):
                self._within = self._in_call
            self._end_if_asked()

    def _is_worth_it(self) -> bool:
        since = time.monotonic() - self._saved_at
        return self.every_epochs is not None or since >= SPACING * self._saving.took

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put the loader back that went on."""
        if isinstance(strategy.dataloader, GoingOn):
            strategy.dataloader = strategy.dataloader.loader

    def _is_time(self) -> bool:
        minutes = (time.monotonic() - self._saved_at) / 60
        return self.every_minutes is not None and minutes >= self.every_minutes

    def votes(self) -> list[float]:
        """Return what this process wants of all of a job, to be added up in a step: to save, which
        the first one's clock decides, or to end."""
        return [float(ranks.leads() and self._is_time()), *self.requests.votes()]

    def take(self, votes: Sequence[float]) -> None:
        """Do what any process of the job wants, when the step is over.

        :param votes: their sum, or mean, see :meth:`votes`.
        """
        due, *asked = votes
        self._due = bool(due)
        self.requests.take(asked)

    def _last_of_epoch(self, strategy: Any) -> bool:
        return bool(strategy.clock.train_epoch_iterations == len(strategy.dataloader))

    def _say_progress(self, strategy: Any) -> None:
        self._sidecar.say(
            "training",
            experience=experience_index(strategy) + 1,
            experiences=stream_length(strategy),
            epoch=min(strategy.clock.train_exp_epochs + 1, strategy.train_epochs),
            epochs=strategy.train_epochs,
            steps=strategy.clock.train_iterations,
        )

    # ---- saving

    def _save(self, calls: list[Any]) -> None:
        if not ranks.leads():
            self._calls = calls
            return
        state = self._watched.state(self._experiences)
        self._calls = calls
        of_run = {"calls": joined(calls), "run": self._run, "shapes": self._watched.shapes}
        self._saving.write(len(calls), of_run | state)

    def _restore(self, state: dict[str, Any], *, more: bool) -> None:
        self._watched.put_back(state, self._experiences, more=more)
        if not ranks.leads():  # the state is the first one's, which evaluates
            self._strategy.evaluator.active = False

    def _save_midway(self, strategy: Any, *, alone: bool = False) -> None:
        clock = strategy.clock
        where = {
            "within": self._within,
            "epochs": clock.train_exp_epochs,
            "iterations": clock.train_epoch_iterations,
            "epoch_random": self._epoch_random,
        }
        self._save_within(strategy, "midway", where, alone=alone)

    def _save_within(
        self, strategy: Any, kind: str, where: dict[str, Any], *, alone: bool = False
    ) -> bool:
        """Save within a call, unless a plugin holds what can only be written between calls.

        The other processes of a job wait for the first one, unless it is alone in it.
        """
        self._saved_at = time.monotonic()
        if hasattr(strategy, "check_finite"):
            strategy.check_finite()
        write = partial(self._write_within, kind, where)
        if alone:
            return write()
        if hasattr(strategy, "add_up_replaced_images"):
            strategy.add_up_replaced_images()
        return ranks.of_first(write)

    def _write_within(self, kind: str, where: dict[str, Any]) -> bool:
        try:
            state = self._watched.state(self._experiences)
        except CheckpointError as error:
            self._saving.refused(error)
            return False
        this = marked(described("train", self._now()), self._now())
        found = {"run": self._run, "of": this, **where, "state": state}
        return self._saving.write(len(self._calls), found, kind)

    def _now(self) -> list[Any]:
        """Return the experiences of the call under way."""
        return self._experiences[self._before :]

    def _end_if_asked(self) -> None:
        if self.requests.status is not None:
            if ranks.joined():
                ranks.end_in_peace()
            raise SystemExit(self.requests.status)
