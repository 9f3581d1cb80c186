"""Penalties on weights: Avalanche's EWC, MAS and SI for self-supervised methods, and L2.

Penalties, modes and bookkeeping are Avalanche's; only what importance is
measured by is put in place of class outputs.  The classes have names of their
own: beside branch-tuning or in an error message it must be plain which of two
``EWCPlugin`` is meant.  All see folded kernels while a network is branched,
being subclasses (:mod:`avalanche_branchtune.plain_view`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EWCPlugin, MASPlugin, SynapticIntelligencePlugin
from avalanche.training.utils import ParamData, zerolike_params_dict
from torch import Tensor, nn
from tqdm.auto import tqdm

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.experiences import begins, ends, experience_key
from avalanche_branchtune.keeping import buffers_kept, modes_kept, random_state_kept
from avalanche_branchtune.options import not_negative, one_of
from avalanche_branchtune.parts import needed_backbone
from avalanche_branchtune.plain_view import PlainView
from solo_bridge.compat.memories import detach_normed_weights
from solo_bridge.interface import SelfSupervisedMethod
from solo_bridge.minibatch import Minibatch
from solo_bridge.registry import register


class _Taken:
    """Takes each experience up once, also one that is trained again, and counts them by itself.

    Avalanche's clock misses an experience after which a plugin raised an error;
    the next one would take its place.  Of an online stream, whose data come once,
    each part is one.
    """

    _key: tuple[str, int] | None = None
    _count = 0

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty for the experiences that were taken up."""
        with self._counting(strategy):
            super().before_backward(strategy, **kwargs)  # type: ignore[misc]

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Take the experience up."""
        key = experience_key(strategy, part=True)
        if key != self._key:
            with self._counting(strategy):
                super().after_training_exp(strategy, **kwargs)  # type: ignore[misc]
            self._key, self._count = key, self._count + 1

    @contextmanager
    def _counting(self, strategy: Any) -> Iterator[None]:
        clock = strategy.clock
        kept, clock.train_exp_counter = clock.train_exp_counter, self._count
        try:
            yield
        finally:
            clock.train_exp_counter = kept


@register("ewc", "EWC", ewc_lambda=1.0, mode="online", decay_factor=1.0)
class SelfSupervisedEWCPlugin(_Taken, EWCPlugin):
    """Avalanche's EWC (Kirkpatrick et al., arXiv 1612.00796) on the method's own loss.

    The importance of a parameter is its squared gradient of the method's loss, in training mode
    as in training, mean over the minibatches of views of the experience.  Parameters that the
    loss does not reach (momentum networks, the online classifier) have importance zero.  Takes
    the arguments of Avalanche's plugin; ``mode="online"`` keeps memory and time constant, and is
    what the name ``ewc`` stands for (importances added up, near the latest weights).  Of an online
    stream each part is an experience here, and in :class:`SelfSupervisedMASPlugin` and
    :class:`SelfSupervisedSIPlugin`: its data come once.

    Avalanche's code: ContinualAI/avalanche eb075be, avalanche/training/plugins/ewc.py, EWCPlugin.
    Differs: Avalanche's takes the gradient in eval mode, ours in training mode.
    """

    self_supervised: ClassVar[bool] = True

    _strategy: Any = None

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Compute importances of parameters after each experience."""
        self._strategy = strategy
        try:
            super().after_training_exp(strategy, **kwargs)
        finally:
            self._strategy = None

    def compute_importances(
        self,
        model: Any,
        criterion: Any,
        optimizer: Any,
        dataset: Any,
        device: Any,
        batch_size: int,
        num_workers: int = 0,
    ) -> dict[str, ParamData]:
        """Return the mean squared gradient of each parameter.

        :param model: the method.
        :param criterion: not used, the method has its own.
        :param optimizer: not used.
        :param dataset: not used, the strategy knows how to read it.
        :param device: not used.
        :param batch_size: not used, minibatches are those of training.
        :param num_workers: of the data loader.
        :return: name → importance, of the parameter's shape.
        """
        strategy = self._strategy
        with _measuring(model, training=True):
            losses = (
                strategy.loss_of(batch, full_precision=True)
                for batch in _minibatches(strategy, num_workers)
            )
            return _importances(model, losses, Tensor.square)


@register("mas", "MAS")
class SelfSupervisedMASPlugin(_Taken, MASPlugin):
    """Avalanche's MAS (Aljundi et al., arXiv 1711.09601) on the backbone's features.

    The importance of a parameter is the absolute gradient of the squared L2 norm of the features
    ``(N, D)``, mean over samples and views, mean over minibatches; in eval mode, as BatchNorm
    with a minibatch's own statistics holds the norm still.  Takes the arguments of Avalanche's
    plugin.

    Authors' code: rahafaljundi/MAS-Memory-Aware-Synapses c3e6a85,
    MAS_to_be_published/MAS_utils/MAS_based_Training.py, compute_importance_l2.
    Avalanche's code: ContinualAI/avalanche eb075be, avalanche/training/plugins/mas.py, MASPlugin.
    Differs: Avalanche's takes the gradient in training mode, ours and the authors' in eval mode.
    Differs: theirs measure the network's output, ours the backbone's features of each view.
    """

    self_supervised: ClassVar[bool] = True

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse a method without features before anything is trained."""
        if type(strategy.model).forward is SelfSupervisedMethod.forward:
            raise IncompatiblePluginError(
                f"SelfSupervisedMASPlugin: {type(strategy.model).__name__} has no forward, whose "
                "features the importances are measured by"
            )

    def _get_importance(self, strategy: Any) -> dict[str, ParamData]:
        model = strategy.model
        with _measuring(model, training=False):
            minibatches: Iterable[Minibatch] = _minibatches(strategy)
            if self.verbose:
                minibatches = tqdm(minibatches, "importances")
            norms = (squared_norm([model(v) for v in batch.views]) for batch in minibatches)
            return _importances(model, norms, Tensor.abs)


@register("si", "SI", si_lambda=1.0)
class SelfSupervisedSIPlugin(_Taken, SynapticIntelligencePlugin):
    """Avalanche's SI (Zenke et al., arXiv 1703.04200) that keeps values instead of references.

    On a CPU Avalanche 0.6 stores the parameters themselves where it means their values before a
    step or an experience: no way is ever measured and nothing is penalised.  It also fails for
    parameters that a method holds still for a while (prototypes of SwAV and DINO).  Takes the
    arguments of Avalanche's plugin.

    Authors' code: ganguli-lab/pathint 86c5e07, pathint/protocols.py, PATH_INT_PROTOCOL.
    Avalanche's code: ContinualAI/avalanche eb075be,
    avalanche/training/plugins/synaptic_intelligence.py, SynapticIntelligencePlugin, whose form this
    is.
    """

    self_supervised: ClassVar[bool] = True

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Keep the values at the start of the experience."""
        super().before_training_exp(strategy, **kwargs)
        _copy(self.ewc_data[0])
        for gradient in self.syn_data["grad"].values():  # of what stands still, an earlier one
            gradient.data = torch.zeros_like(gradient.data)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Keep the values before the step."""
        super().before_training_iteration(strategy, **kwargs)
        _copy(self.syn_data["old_theta"])

    @torch.no_grad()
    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Add what this step contributed.

        A parameter without gradient contributes nothing, nor does a step that was left out, as a
        loss scaler or ``on_non_finite="skip"`` does where a gradient is not finite.
        """
        learning = [p for p in strategy.model.parameters() if p.requires_grad]
        finite = [torch.isfinite(p.grad).all() for p in learning if p.grad is not None]
        if finite and not torch.stack(finite).all():  # read once; the copies to the CPU wait too
            return
        still = [p for p in learning if p.grad is None]
        for p in still:
            p.grad = torch.zeros_like(p)
        super().after_training_iteration(strategy, **kwargs)
        for p in still:
            p.grad = None


@register("l2", "L2 to previous weights")
class L2Plugin(SupervisedPlugin):
    """The L2 penalty of Smith et al., arXiv 2203.17269, on the way from the previous weights.

    From the second experience on ``strategy.loss`` gets λ / 2 · ‖θ − θ'‖²: θ the parameters that
    learn and θ' one copy of them from the end of the experience before (so memory does not grow).
    While the network is branched θ holds the folded kernels, W + Σ pad(B), and the penalty
    reaches the branches through them.

    Authors' code: shaunak27/data-free-continual-learning 8d34b78, learners/kd.py, EWC_MC_L1L2 (a
    repository of the first author's that does not name the paper).
    Differs: their penalty is λ · ‖θ − θ'‖², ours has half of it.
    Differs: theirs begins with the first experience, on the way from the initial weights, ours with
    the second, as their EWC_MC_L1L2_b.
    Differs: theirs has BatchNorm in eval mode, ours as training has it.
    Differs: the λ of their script (experiments/cifar100-continual.sh) is 0.05, ours 1 by default.

    :param weight: λ.
    :param scope: ``"backbone"``, or ``"method"`` for all parameters that learn.
    :raises UnknownOptionError: for another scope.
    """

    def __init__(self, weight: float = 1.0, *, scope: str = "backbone") -> None:
        """See the class."""
        super().__init__()
        self.weight = not_negative("L2Plugin(weight=…)", weight)
        self.scope = one_of("L2Plugin(scope=…)", scope, ("backbone", "method"))
        self.anchor: dict[str, Tensor] = {}
        """θ' by name; empty in the first experience."""
        self._left: dict[str, Tensor] = {}  # by a part of an online experience

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse a method without a backbone before anything is trained."""
        if self.scope == "backbone" and strategy.model.part("backbone") is None:
            raise IncompatiblePluginError(
                f"L2Plugin: {type(strategy.model).__name__} has no module called backbone: "
                'pass scope="method"'
            )

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take the copy of an experience of which Avalanche marked no part as the last."""
        if begins(strategy) and self._left:
            self.anchor, self._left = self._left, {}

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add the penalty to the loss."""
        if self.anchor:
            strategy.loss = strategy.loss + self.weight * self.penalty(strategy.model)

    def penalty(self, model: Any) -> Tensor:
        """Return ``½ Σ (θ − θ')²``, with a graph.

        :param model: the method, branched or not.
        :return: scalar.
        """
        squares = [
            (p - self.anchor[name].to(p.device)).square().sum()
            for name, p in self._parameters(model)
            if name in self.anchor
        ]
        return torch.stack(squares).sum() / 2

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Copy the parameters in the place of the copy before."""
        copy = {
            name: p.detach().clone()
            for name, p in self._parameters(strategy.model)
            if p.requires_grad
        }
        if ends(strategy):
            self.anchor, self._left = copy, {}
        else:
            self._left = copy

    def _parameters(self, model: Any) -> Iterator[tuple[str, Tensor]]:
        held = needed_backbone(model, "L2Plugin") if self.scope == "backbone" else model
        return PlainView(held).named_parameters()


def squared_norm(features: list[Tensor]) -> Tensor:
    """``‖f‖²``, mean over samples and views.

    :param features: one ``(N, D)`` for each view.
    :return: scalar.
    """
    return torch.stack([f.square().sum(dim=1).mean() for f in features]).mean()


@contextmanager
def _measuring(model: nn.Module, training: bool) -> Iterator[None]:
    """Set the method's mode, and put everything back afterwards: it is only looked at."""
    try:
        with random_state_kept(), modes_kept(model), buffers_kept(model), torch.enable_grad():
            model.train(training)
            yield
    finally:
        detach_normed_weights(model)


def _minibatches(strategy: Any, num_workers: int = 0) -> Iterator[Minibatch]:
    """Yield the minibatches of the experience's own data, as training has them."""
    data, size = strategy.training_data(), strategy.train_mb_size
    loader = strategy.loader_of(
        data,
        size,
        drop_last=len(data) >= size,
        collate_fn=getattr(data, "collate_fn", None),
        num_workers=num_workers,
    )
    return map(strategy.share_of, loader)


def _importances(model: nn.Module, scalars: Iterable[Tensor], measure: Any) -> dict[str, ParamData]:
    """Return the mean over minibatches of a measure of each parameter's gradient."""
    importances: dict[str, ParamData] = zerolike_params_dict(model)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    count = 0
    for scalar in scalars:
        count += 1
        # Not backward(): the gradients that training left stay as they are.
        gradients = torch.autograd.grad(scalar, list(learning.values()), allow_unused=True)
        gradients = tuple(None if g is None else g.contiguous() for g in gradients)
        ranks.average([g for g in gradients if g is not None])
        for name, gradient in zip(learning, gradients, strict=True):
            if gradient is not None:
                importances[name].data += measure(gradient)
    for name in learning:
        importances[name].data /= count
    return importances


def _copy(values: dict[str, ParamData]) -> None:
    for value in values.values():
        value.data = value.data.clone()
