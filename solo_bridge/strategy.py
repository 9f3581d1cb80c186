"""SelfSupervised: the Avalanche strategy that trains a method on streams of views."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial, wraps
from typing import Any

import torch
from avalanche.core import BasePlugin
from avalanche.logging import InteractiveLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates.base_sgd import BaseSGDTemplate
from avalanche.training.templates.update_type import SGDUpdate
from torch import Tensor
from torch.optim import Optimizer

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.errors import (
    BatchSizeError,
    UnknownOptionError,
    ViewsError,
    expected_one_of,
)
from avalanche_branchtune.experiences import mark_finished
from avalanche_branchtune.folding import folded_once
from avalanche_branchtune.keeping import buffers_kept, random_state_kept
from avalanche_branchtune.loading import ExperienceLoader
from avalanche_branchtune.options import at_least_one, not_negative, one_of, true_or_false
from solo_bridge.compiling import Compiled
from solo_bridge.conflicts import check_plugins
from solo_bridge.feeding import Feeding, chosen_views
from solo_bridge.finite import FiniteCheck
from solo_bridge.interface import Plan, SelfSupervisedMethod
from solo_bridge.lasting import Lasting
from solo_bridge.mean_loss import EpochLossOnDevice, ExperienceLossOnDevice
from solo_bridge.minibatch import Minibatch
from solo_bridge.optim import MakeOptimizer, OptimizerSettings
from solo_bridge.processes import Processes, chosen
from solo_bridge.views import (
    BatchedViews,
    Views,
)

logger = logging.getLogger(__name__)

PRECISIONS: dict[str, torch.dtype | None] = {
    "32": None,
    "bf16": torch.bfloat16,
    "16": torch.float16,
}

BAD_IMAGE = ("stop", "skip")


def loss_evaluator() -> EvaluationPlugin:
    """Return the default evaluator: the loss of each epoch, with a progress bar.

    :return: a new plugin (Avalanche's default one needs class outputs).
    """
    return EvaluationPlugin(
        EpochLossOnDevice(), ExperienceLossOnDevice(), loggers=[InteractiveLogger()]
    )


class SelfSupervised(Feeding, SGDUpdate, BaseSGDTemplate):
    """Train a self-supervised method over the experiences of an Avalanche stream.

    Labels never enter the loss; unlabelled and partly labelled data (label −1)
    work like labelled data.  Each experience has a fresh optimizer and
    schedule, unless ``optimizer_per="stream"``.  The last, incomplete minibatch of
    an epoch is dropped, unless it is the only one (as solo-learn does).

    :param model: the method, for example a :class:`solo_bridge.SoloMethod`.
    :param optimizer: ``"lars"``, ``"sgd"``, ``"adam"``, ``"adamw"``, or a
        function from parameter groups to an optimizer; by default the method's.
    :param lr: learning rate for a batch of 256; it is scaled by
        ``train_mb_size / 256`` as solo-learn's command does, unless
        ``scale_lr`` is False.  By default the method's.
    :param weight_decay: weight decay; by default the method's.
    :param scale_lr: whether to scale ``lr``.
    :param optimizer_settings: further fields of
        :class:`solo_bridge.optim.OptimizerSettings`: ``momentum``,
        ``scheduler``, ``warmup_epochs`` …
    :param optimizer_per: ``"experience"``: each has an optimizer and schedule of its own, and the
        method's own schedules (the rate of its momentum network) begin anew.  ``"stream"``: all of
        these go on over the stream, as if it were one long experience of ``train_epochs`` epochs:
        for online streams, whose experiences of one step know neither momentum nor a schedule
        otherwise.  What plugins add for an experience joins
        and leaves as ever, with its state.  The stream must say how long it is, see
        :func:`avalanche_branchtune.streams.online`, unless the scheduler is ``"none"``: then
        the momentum network keeps its first rate.
    :param views: how views are made of images, for data whose training transform does not return a
        list.  ``"solo_learn"``: by solo-learn's own pipelines, image by image, in the loader's
        workers.  ``"batched"``: of a whole minibatch on the device, many times as fast, see
        :class:`~solo_bridge.views.BatchedViews`; equal but for how random numbers are drawn and at
        most one grey level in each operation.  Or a function from an image to its views, or
        ``BatchedViews`` of other pipelines than the method's.  By default the method's own
        function, for solo-learn's methods ``"solo_learn"``.
    :param in_memory: for batched views, whether an experience's images are decoded once and kept
        in memory, on the device if they fit there; no workers are needed then.  By default if they
        fit and are the same each time that they are loaded.
    :param compile: whether the method's networks, and batched views, run compiled by torch in
        training, see :class:`~solo_bridge.compiling.Compiled`: faster after the first steps, which
        take some ten seconds each time that a network has a new form; equal but for rounding.
    :param precision: ``"32"``, ``"bf16"`` or ``"16"`` (automatic mixed
        precision; with loss scaling for ``"16"`` on a GPU).  By default the
        method's; one that says ``"16"`` has bfloat16 on a CPU, as in Lightning.
    :param channels_last: whether kernels and views lie in memory with their
        channels last, as in solo-learn's scripts: often faster on a GPU, and equal
        but for rounding.  By default the method's.
    :param reproducible_views: whether the order of an epoch depends on seed, experience and epoch
        alone, and a view on these and its sample, see
        :class:`avalanche_branchtune.loading.ExperienceLoader`; the seed is torch's initial one
        (``torch.manual_seed``) when the strategy is made.  Weights are then the same with any
        number of loader workers.  By default only beside
        :class:`avalanche_branchtune.checkpoints.Checkpoints`: without it order and views are
        drawn as solo-learn draws them, and training is bit-identical to solo-learn's own.
    :param on_bad_image: what is done with an image that cannot be read: ``"stop"`` ends the
        training with its file's name; ``"skip"`` takes another sample of the same minibatch, drawn
        anew, in its place, says so when the experience ends, and keeps count in
        ``replaced_images``.
    :param on_non_finite: what becomes of a step whose loss or gradient is NaN or infinite.
        ``"stop"``: training ends with :class:`~avalanche_branchtune.errors.NonFiniteLossError`,
        and the model keeps the weights and buffers from before it.  ``"skip"``: the step is
        left out, but schedule and momentum network go on; :attr:`skipped_steps` counts
        them, and a hundred in a row stop.  ``"lower_scale"``: the same, and
        the loss scale of ``precision="16"`` is halved; at less than 1 every policy stops.
        Gradients that are infinite because of the scale are left out as always.
    :param check_finite_every: after how many steps it is read whether all of them were finite.
        Above 1 the model goes back to the last reading, and all steps since are left out.  By
        default 1 on a CPU and with loss scaling, else 50, since a reading waits for the GPU.
    :param train_mb_size: images in a minibatch, of which each has its views; by
        default the method's, 256 unless its configuration says otherwise.
    :param train_epochs: epochs of each experience; by default the method's, 1
        unless its configuration says otherwise.
    :param eval_mb_size: images in a minibatch of :meth:`eval`.
    :param device: where to train.
    :param plugins: Avalanche plugins.  One with a method ``wrap_views``, from views
        to views, is asked to put something around the strategy's; one that says
        ``needs = frozenset({"index"})`` finds the samples' numbers, by which it can look
        into :meth:`plain_data`, in ``strategy.minibatch.index``.
    :param evaluator: evaluation plugin, or a function that makes one; None for
        no metrics.  :func:`loss_evaluator` by default.
    :param eval_every: see Avalanche's templates.
    :param peval_mode: see Avalanche's templates.
    :param processes: how the processes of a job that was started by ``torchrun`` train the model
        together, see :class:`~solo_bridge.processes.Processes`; False for a process that is to be
        alone in such a job, as all its strategies then are.
    :param checkpoints: folder of the run's checkpoints, which holds none yet, or
        ``Checkpoints(folder, resume=True)`` to go on with a run that is there: see
        :class:`~avalanche_branchtune.checkpoints.Checkpoints`.
    :raises UnknownOptionError: for an unknown option.
    :raises IncompatiblePluginError: for plugins that cannot work here, see
        :func:`solo_bridge.conflicts.check_plugins`.
    """

    model: SelfSupervisedMethod
    loss: Tensor
    mb_output: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let a subclass, too, be made with the method first."""
        super().__init_subclass__(**kwargs)  # Avalanche wraps each class's constructor anew
        cls.__init__ = _model_may_come_first(cls.__init__)  # type: ignore[method-assign]

    def __init__(
        self,
        model: SelfSupervisedMethod,
        *,
        optimizer: str | MakeOptimizer | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        scale_lr: bool = True,
        optimizer_settings: dict[str, Any] | None = None,
        optimizer_per: str = "experience",
        views: Views | BatchedViews | str | None = None,
        in_memory: bool | None = None,
        compile: bool = False,
        precision: str | None = None,
        channels_last: bool | None = None,
        reproducible_views: bool | None = None,
        on_bad_image: str = "stop",
        on_non_finite: str = "stop",
        check_finite_every: int | None = None,
        train_mb_size: int | None = None,
        train_epochs: int | None = None,
        eval_mb_size: int | None = None,
        device: str | torch.device = "cpu",
        plugins: Sequence[BasePlugin] | None = None,
        evaluator: EvaluationPlugin | Callable[[], EvaluationPlugin] | None = loss_evaluator,
        eval_every: int = -1,
        peval_mode: str = "epoch",
        processes: Processes | bool | None = None,
        checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
    ) -> None:
        """See the class."""
        if checkpoints is not None:
            if not isinstance(checkpoints, Checkpoints):
                checkpoints = Checkpoints(checkpoints)
            plugins = [*(plugins or []), checkpoints]
        _check_arguments(model, optimizer, optimizer_settings or {})
        self.lasting = Lasting(optimizer_per)
        device = torch.device(device)
        self.processes = chosen(processes)
        device = self.processes.join(device)
        train_mb_size = model.train_mb_size if train_mb_size is None else train_mb_size
        train_epochs = model.train_epochs if train_epochs is None else train_epochs
        if precision is None:
            precision = precision_on(
                device, model.precision, getattr(model, "name", type(model).__name__)
            )
        _check_are_objects(plugins or [])
        one_of("SelfSupervised(precision=…)", precision, PRECISIONS)
        if train_mb_size < 1:
            raise BatchSizeError(
                f"SelfSupervised(train_mb_size={train_mb_size}): expected at least 1 (2 for BN)"
            )
        check_plugins(plugins or [], model)
        self.processes.refuse(model, train_mb_size, compile)
        optimizer = model.optimizer if optimizer is None else optimizer
        base_lr = not_negative("SelfSupervised(lr=…)", model.lr if lr is None else lr)
        at_least_one("SelfSupervised(train_epochs=…)", train_epochs)
        at_least_one("SelfSupervised(eval_mb_size=…)", eval_mb_size or train_mb_size)
        self.lr_scale = train_mb_size / 256 if scale_lr else 1.0
        """By which learning rates for a batch of 256 are multiplied."""
        self.optimizer_settings = OptimizerSettings(
            name=optimizer if isinstance(optimizer, str) else "sgd",
            lr=base_lr * self.lr_scale,
            weight_decay=model.weight_decay if weight_decay is None else weight_decay,
            **{**model.optimizer_settings, **(optimizer_settings or {})},
        )
        self._make_optimizer: MakeOptimizer = (
            self.optimizer_settings.optimizer if isinstance(optimizer, str) else optimizer
        )
        if scale_lr:
            logger.info(
                "learning rate %g for a batch of 256, scaled to %g for %d",
                base_lr,
                self.optimizer_settings.lr,
                train_mb_size,
            )
        self.views, self.batched_views, self.augmentations = chosen_views(views, model)
        self.in_memory = in_memory
        if in_memory and self.batched_views is None:
            raise UnknownOptionError(
                "SelfSupervised(in_memory=True): images are kept for views that are made by the "
                "minibatch: pass views='batched' too"
            )
        self.compiled = Compiled(true_or_false("SelfSupervised(compile=…)", compile))
        self.precision = precision
        self.channels_last = model.channels_last if channels_last is None else channels_last
        one_of("SelfSupervised(on_bad_image=…)", on_bad_image, BAD_IMAGE)
        if reproducible_views is None:
            checkpointed = any(isinstance(p, Checkpoints) for p in plugins or [])
            reproducible_views = checkpointed or ranks.joined()
        elif ranks.joined() and not reproducible_views:
            raise UnknownOptionError(
                "SelfSupervised(reproducible_views=False) in several processes: each of them knows "
                "its share of a minibatch by the seed: leave it out"
            )
        self.views_seed = ranks.of_first(torch.initial_seed) if reproducible_views else None
        self.on_bad_image = on_bad_image
        self.replaced_images, self._replaced_here = {}, {}
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=precision == "16" and device.type == "cuda"
        )
        self.scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
        self.finite = FiniteCheck(
            on_non_finite, check_finite_every, device, scaled=self.scaler.is_enabled()
        )
        self._last_good: list[tuple[Any, Any, Any]] = []
        self._evaluates_loss = True
        if evaluator is None:
            with warnings.catch_warnings():  # having no logger is what was asked for
                warnings.simplefilter("ignore")
                evaluator = EvaluationPlugin()
        for plugin in plugins or []:
            if hasattr(plugin, "wrap_views"):
                self.views = plugin.wrap_views(self.views)
        with ranks.unseen():  # else loggers refuse to be made on all ranks but the first
            super().__init__(
                model=model,
                optimizer=self._make_optimizer(model.parameter_groups()),
                criterion=_no_criterion,
                train_mb_size=train_mb_size,
                train_epochs=train_epochs,
                eval_mb_size=eval_mb_size or train_mb_size,
                device=device,
                plugins=list(plugins or []),
                evaluator=evaluator,
                eval_every=eval_every,
                peval_mode=peval_mode,
            )
        self.processes.begin(self)
        for plugin in plugins or []:
            if hasattr(plugin, "attach"):
                plugin.attach(self)

    # ---- data

    def train(self, experiences: Any, eval_streams: Any = None, **kwargs: Any) -> Any:
        """Train on one experience or on several, see Avalanche's templates.

        :param experiences: an experience or an iterable of them.
        :param eval_streams: see Avalanche's templates.
        :param kwargs: arguments of the data loader, for example ``num_workers``.
        :return: the last metrics.
        :raises EmptyExperienceError: for an experience without samples.
        :raises BranchTuneError: its other subclasses, for data that does not fit.
        """
        several = isinstance(experiences, Iterable)
        ready = [self._with_views(e) for e in (experiences if several else [experiences])]
        self.processes.begin_call()
        try:
            with ranks.unseen():
                results = super().train(ready if several else ready[0], eval_streams, **kwargs)
        finally:  # an interrupted step leaves its graph, which could not be copied
            self.loss = self.loss.detach()
            self.mb_output = None
        return self._of_first(lambda: results)

    def _of_first(self, make: Callable[[], Any]) -> Any:
        """Return metrics, in several processes on all of them what the first one's are."""
        return self.processes.told(self, make)

    def loss_of(self, batch: Any, *, full_precision: bool = False) -> Tensor:
        """Return the method's loss on a minibatch, for plugins that take losses of their own.

        :param batch: a :class:`~solo_bridge.minibatch.Minibatch`, or what a data
            loader yields; the strategy is left as it is.  In a job of several processes, the
            share of a minibatch, or a whole one of which each takes its share.
        :param full_precision: whether to compute it without autocasting.
        :return: scalar.
        """
        minibatch = batch if isinstance(batch, Minibatch) else self.share_of(batch)
        how = contextlib.nullcontext() if full_precision else self.autocast()
        with folded_once(), how, self.compiled.networks_of(self.model), self._step():
            return self.model.loss(minibatch.views, **minibatch.needed)

    def share_of(self, batch: Any) -> Minibatch:
        """Return this rank's share of what a data loader yields; in evaluation all of it.

        :param batch: a whole minibatch, the same on all ranks.
        """
        minibatch = self.unpacked(batch)
        return minibatch.share() if self.is_training else minibatch

    def _step(self) -> contextlib.AbstractContextManager[None]:
        """Take minibatches as shares, if they are."""
        return self.processes.step(self)

    # ---- model and optimizer

    def model_adaptation(self, model: SelfSupervisedMethod | None = None) -> SelfSupervisedMethod:
        """Return the model on the device; methods do not grow."""
        return (self.model if model is None else model).to(self.device)

    def make_optimizer(self, **kwargs: Any) -> None:
        """Make a fresh optimizer of the method's groups."""
        self.optimizer: Optimizer = self._make_optimizer(self.model.parameter_groups())

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Begin an experience: its optimizer, and fresh method counters."""
        self.model = self.model_adaptation()
        if self.channels_last is not None:
            self.model.use_channels_last(self.channels_last)
        self.lasting.begin(self)
        steps, samples = len(self.dataloader), len(self.adapted_dataset)
        place = self.lasting.place(self.train_epochs)
        plan = Plan(steps, self.train_epochs, samples, self.train_mb_size, place)
        self.model.start_experience(plan)

    def _before_training_exp(self, **kwargs: Any) -> None:
        self.processes.same_random_states()
        super()._before_training_exp(**kwargs)
        self.own_loader()  # only now is it final: replay puts a longer one in its place
        steps = len(self.dataloader)
        self.scheduler = self.optimizer_settings.schedule(
            self.optimizer, steps, self.train_epochs, self.lasting.place(self.train_epochs)
        )
        self.model.set_steps(steps)
        self._last_good = []
        self.finite.begin(self.device)
        self.processes.check(self)

    def _after_training_exp(self, **kwargs: Any) -> None:
        mark_finished(self)  # first: what is learnt is learnt, whatever plugins do now
        self.warn_of_replaced_images()
        self.finite.end()
        self.processes.same_random_states()  # memories are about to draw what they keep
        super()._after_training_exp(**kwargs)

    # ---- loss and update

    def _before_training_epoch(self, **kwargs: Any) -> None:
        self.model.start_epoch(self.clock.train_exp_epochs)
        if isinstance(self.dataloader, ExperienceLoader):
            self.dataloader.set_epoch(self.clock.train_exp_epochs)
        super()._before_training_epoch(**kwargs)
        self.processes.agree_to_stop(self)

    def _after_training_epoch(self, **kwargs: Any) -> None:
        self.check_finite()
        super()._after_training_epoch(**kwargs)

    def _before_forward(self, **kwargs: Any) -> None:
        self.finite.before_forward(self)
        super()._before_forward(**kwargs)

    def forward(self) -> Tensor:
        """Return the method's loss on the current views."""
        return self.loss_of(self.minibatch)

    def autocast(self) -> torch.autocast:
        """Return the context in which losses are computed, plugins' losses as well.

        It keeps no copies of cast weights, whose gradients would be summed in half precision:
        so Lightning opens it (lightning/pytorch/plugins/precision/amp.py).
        """
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype, dtype is not None, cache_enabled=False)

    def criterion(self) -> Tensor:
        """Return the loss that :meth:`forward` computed."""
        return self.mb_output

    def _before_backward(self, **kwargs: Any) -> None:
        with self._step():  # plugins' terms are taken on shares, too
            super()._before_backward(**kwargs)

    def stop_training(self) -> None:
        """Let training stop after this step, of several processes in all of them, or the next."""
        if ranks.joined():
            self.processes.ask_to_stop()
        else:
            super().stop_training()

    def backward(self) -> None:
        """Run the backward pass, and see whether loss and gradients are finite.

        Of several processes all have the mean of their gradients and losses then.

        :raises NonFiniteLossError: naming experience, epoch and step.
        """
        self.scaler.scale(self.loss).backward(  # type: ignore[no-untyped-call]
            retain_graph=self.retain_graph
        )
        self.processes.average(self)
        self.model.after_backward()
        self.finite.after_backward(self)

    def optimizer_step(self) -> None:
        """Step optimizer, schedule and the method's momentum network."""
        if not self.finite.left_out:
            if self.scaler.is_enabled():
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                self.optimizer.step()
        elif self.finite.policy == "lower_scale":
            self.scaler.update(self.scaler.get_scale() * self.scaler.get_backoff_factor())
        if self.scheduler is not None:
            with self.finite.no_update_is_meant():
                self.scheduler.step()
        self.model.after_step()

    def _after_update(self, **kwargs: Any) -> None:
        if not self.finite.left_out:  # else there was none: plugins remember nothing of the step
            super()._after_update(**kwargs)

    def check_finite(self) -> None:
        """See now whether all steps were finite, for who saves or evaluates the model.

        :raises NonFiniteLossError: see :meth:`backward`.
        """
        self.finite.read(self)

    @property
    def skipped_steps(self) -> int:
        """Steps that were left out because a loss or gradient was not finite."""
        return self.finite.skipped

    def record_settings(self) -> dict[str, Any]:
        """Return what :class:`~avalanche_branchtune.metrics.RunRecorder` notes besides."""
        found = {"on non-finite": self.finite.policy} if self.finite.skips else {}
        found |= {"optimizer per": "stream"} if self.lasting.per == "stream" else {}
        return found | self.processes.record_settings()

    # ---- evaluation

    def eval(self, exp_list: Any, *, loss: bool | None = None, **kwargs: Any) -> Any:
        """Evaluate a stream: the loss on its views, and the evaluator's other metrics.

        The method's buffers (statistics, queues) and the random state are left
        as they were: training does not depend on whether it is evaluated.  Of several processes the
        first one evaluates, and tells the others.

        :param exp_list: an experience or a stream.
        :param loss: whether to evaluate the loss; by default if it is defined
            outside training.  False saves its time where probes are enough.
        :param kwargs: arguments of the data loader.
        :return: the last metrics.
        :raises ViewsError: for ``loss=True`` if the method's loss is defined in
            training only.
        """
        if loss and not self.model.evaluates:
            raise ViewsError(
                "the loss of this method is defined in training only, on its own samples: "
                "evaluate with a probe, and pass loss=False"
            )
        self.check_finite()
        self._evaluates_loss = self.model.evaluates if loss is None else loss
        return self._of_first(partial(self._evaluated, exp_list, **kwargs))

    def _evaluated(self, exp_list: Any, **kwargs: Any) -> Any:
        with ranks.unseen(), random_state_kept(), buffers_kept(self.model):
            return super().eval(exp_list, **kwargs)

    def eval_epoch(self, **kwargs: Any) -> None:
        """Go through the minibatches of an experience, if the loss is evaluated."""
        if self._evaluates_loss:
            super().eval_epoch(**kwargs)
        else:  # without an iteration Avalanche's loss metric would say 0.0
            self.mbatch, self.loss = [[], torch.full((1,), -1)], torch.tensor(float("nan"))
            self._after_eval_iteration(**kwargs)


def precision_on(device: str | torch.device, precision: str, name: str) -> str:
    """Return the precision that a configuration asks for, as Lightning understands it.

    :param device: where to train.
    :param precision: what is asked for.
    :param name: whose settings they are, for the message.
    """
    if precision == "16" and torch.device(device).type == "cpu":
        logger.warning("precision 16 of %s is bf16 on a CPU, as in Lightning", name)
        return "bf16"
    return precision


def _check_arguments(model: Any, optimizer: Any, settings: dict[str, Any]) -> None:
    """Refuse what users of supervised strategies bring along."""
    if not isinstance(model, SelfSupervisedMethod):
        raise UnknownOptionError(
            f"SelfSupervised({type(model).__name__}): expected a SoloMethod or another "
            "SelfSupervisedMethod, which has a loss; a bare network has none"
        )
    if isinstance(optimizer, Optimizer):
        raise UnknownOptionError(
            f"SelfSupervised(optimizer={type(optimizer).__name__} object): each experience has a "
            "fresh optimizer: pass its name, or a function from parameter groups to an optimizer"
        )
    known = {f.name for f in fields(OptimizerSettings)} - {"name", "lr", "weight_decay"}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise expected_one_of("SelfSupervised(optimizer_settings=…)", unknown[0], sorted(known))


def _check_are_objects(plugins: Any) -> None:
    for plugin in [plugins] if isinstance(plugins, str) else plugins:
        if isinstance(plugin, str):
            raise UnknownOptionError(
                f"SelfSupervised(plugins=…): expected plugin objects; got the name {plugin!r}, of "
                f"which solo_bridge.build makes one: build({plugin!r}, method, …)"
            )
        if isinstance(plugin, type):
            raise UnknownOptionError(
                f"SelfSupervised(plugins=…): expected plugin objects; got the class "
                f"{plugin.__name__}: write {plugin.__name__}(…)"
            )


def _model_may_come_first(init: Callable[..., None]) -> Callable[..., None]:
    """Let ``SelfSupervised(method, …)`` be written without Avalanche's warning.

    Avalanche wraps every strategy's constructor to warn of positional
    arguments; here the first one is meant to be one.
    """
    named = list(inspect.signature(init).parameters)[1:2] == ["model"]

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if len(args) == 1 and named:
            kwargs["model"], args = args[0], ()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Avalanche is transitioning")
            init(self, *args, **kwargs)

    return wrapped


SelfSupervised.__init__ = _model_may_come_first(  # type: ignore[method-assign]
    SelfSupervised.__init__
)


def _no_criterion(*args: Any) -> Tensor:
    raise TypeError("a self-supervised method brings its own loss: there is no criterion to call")
