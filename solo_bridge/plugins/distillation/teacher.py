"""What the distilling plugins share: a frozen teacher, and the outputs of the forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune import is_expanded
from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.lifecycle import ExperiencePlugin
from avalanche_branchtune.optimizers import join_as_group, leave_group
from avalanche_branchtune.options import not_negative, one_of
from avalanche_branchtune.parts import needed_backbone
from solo_bridge.compat.memories import detach_normed_weights
from solo_bridge.interface import SelfSupervisedMethod
from solo_bridge.plugins.terms import WithTerms
from solo_bridge.spreading import over, shares

TEACHER_BN = ("train", "eval")


@dataclass(frozen=True)
class Outputs:
    """What a network gives for the full-size views of a minibatch, in their order.

    :param features: the backbone's, ``(N, D)`` each.
    :param embeddings: the projector's, ``(N, P)`` each; none if there is no
        projector, and of the first views only if the method projects no more
        (ReSSL).  In several processes they are the whole minibatch's, features are of this rank's
        share, see :mod:`solo_bridge.spreading`.
    """

    features: list[Tensor]
    embeddings: list[Tensor]


class Kept:
    """A forward hook that keeps a module's next outputs in training, in the order of the calls.

    It keeps no more than it was asked for, so that a network that is used
    after an interruption does not gather graphs.
    """

    def __init__(self) -> None:
        """See the class."""
        self.outputs: list[Tensor] = []
        self.wanted = 0

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        """Keep the output, unless it is an evaluation's."""
        if len(self.outputs) < self.wanted and module.training and torch.is_grad_enabled():
            self.outputs.append(output)

    def __deepcopy__(self, memo: Any) -> Kept:
        """Return one that keeps nothing: outputs belong to one network's graph."""
        return Kept()

    def __reduce__(self) -> Any:
        """Pickle as one that keeps nothing."""
        return Kept, ()


class Watch:
    """The outputs that a method's own loss makes on the way, without another forward pass.

    :param model: the method that is trained; nothing is watched before :meth:`begin`.
    """

    def __init__(self, model: SelfSupervisedMethod) -> None:
        """See the class."""
        self.large_views = model.large_views
        parts = {"features": model.part("backbone"), "embeddings": model.part("projector")}
        self._parts = {n: module for n, module in parts.items() if module is not None}
        self._kept = {name: Kept() for name in self._parts}

    def begin(self) -> None:
        """Watch the modules until :meth:`remove`."""
        for name, module in self._parts.items():
            module.register_forward_hook(self._kept[name])

    def expect(self, views: int) -> None:
        """Forget the last minibatch, and keep the outputs of the next one.

        :param views: how many it has; outputs of its full-size ones are kept.
        """
        for kept in self._kept.values():
            kept.outputs.clear()
            kept.wanted = min(views, self.large_views or views)

    def outputs(self, samples: int) -> Outputs:
        """Return the outputs of the full-size views of the last forward pass.

        :param samples: N, of which each view has one.
        :raises IncompatiblePluginError: if the loss does not call the backbone
            once for each view, or a module gives something else than ``(N, …)``.
        """
        for name, kept in self._kept.items():
            count = samples * (shares() if name == "embeddings" else 1)
            whole = all(isinstance(o, Tensor) and len(o) == count for o in kept.outputs)
            missing = len(kept.outputs) < (kept.wanted if name == "features" else 1)
            if missing or not whole:
                raise IncompatiblePluginError(
                    f"the loss does not compute {name} (N, D) of each whole view, which a "
                    "distilling plugin compares with its teacher's (masked images, as MAE's, and "
                    "views joined into one minibatch cannot be distilled)"
                )
        found = {name: list(kept.outputs) for name, kept in self._kept.items()}
        return Outputs(found["features"], found.get("embeddings", []))

    def remove(self) -> None:
        """Leave the modules as they were."""
        for name, module in self._parts.items():
            for key, hook in list(module._forward_hooks.items()):
                if hook is self._kept[name]:
                    del module._forward_hooks[key]
        self.expect(0)


def frozen_copy(module: nn.Module) -> nn.Module:
    """Return a copy that does not learn, in eval mode, and that nothing watches.

    :param module: any module.
    """
    copied = copy.deepcopy(module)
    for m in copied.modules():
        for key, hook in list(m._forward_hooks.items()):
            if isinstance(hook, Kept):
                del m._forward_hooks[key]
    return copied.requires_grad_(False).eval()


class Teacher(nn.Module):
    """A frozen copy of a network: it neither learns nor changes.

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/distillers/base.py, BaseDistillWrapper;
    dr-bell/kaizen e36ee54, kaizen/distiller_factories/base.py, BaseFrozenModel.
    Differs: their copy's running statistics move (its outputs do not depend on them), ours do not.

    :param model: the method, not expanded.
    :param bn: ``"train"``: BatchNorm, and other layers with running statistics,
        take the statistics of each minibatch, as in CaSSLe's and Kaizen's code;
        ``"eval"``: those that were learnt.
    """

    def __init__(self, model: SelfSupervisedMethod, bn: str) -> None:
        """See the class."""
        super().__init__()
        detach_normed_weights(model)
        projector = model.part("projector")
        self.backbone = frozen_copy(needed_backbone(model, "Teacher"))
        self.projector = None if projector is None else frozen_copy(projector)
        self.prototypes = nn.ModuleList(map(frozen_copy, model.prototype_layers()))
        self.eval()
        self._running: list[nn.Module] = []
        for module in self.modules() if bn == "train" else []:
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.track_running_stats = False
                module.running_mean = module.running_var = None
            elif any(name.startswith("running_") for name in module._buffers):
                self._running.append(module)  # VIbCReg's IterNorm

    def train(self, mode: bool = True) -> Teacher:
        """Stay as it is."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, views: Sequence[Tensor]) -> Outputs:
        """Return the outputs for some views.

        :param views: tensors ``(N, C, H, W)``.
        """
        projectors = [] if self.projector is None else [self.projector]
        with self._statistics_of_the_minibatch(), over([self.backbone], projectors):
            features = [self.backbone(v) for v in views]
            if self.projector is None:
                return Outputs(features, [])
            return Outputs(features, [self.projector(f) for f in features])

    @contextmanager
    def _statistics_of_the_minibatch(self) -> Iterator[None]:
        kept = [b for m in self._running for b in m.buffers(recurse=False)]
        values = [b.clone() for b in kept]
        for module in self._running:
            module.training = True
        try:
            yield
        finally:
            for module in self._running:
                module.training = False
            for buffer, value in zip(kept, values, strict=True):
                buffer.copy_(value)


class TeacherPlugin(WithTerms, ExperiencePlugin):
    """Adds a distance to the network of the experience before to the loss.

    The teacher is copied when an experience ends, after the branches were
    merged, so memory does not grow with the experiences.  In the first
    experience there is none, and the loss is the method's own.

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/distillers/base.py, on_train_start.
    Differs: theirs is copied when the next experience begins, ours when one ends: the same
    weights.

    :param weight: λ, by which the distance is multiplied.
    :param teacher_bn: see :class:`Teacher`.
    :raises UnknownOptionError: for another ``teacher_bn``.
    """

    def __init__(self, weight: float, teacher_bn: str = "train") -> None:
        """See the class."""
        super().__init__()
        self.weight = not_negative(f"{type(self).__name__}(weight=…)", weight)
        self.teacher_bn = one_of(f"{type(self).__name__}(teacher_bn=…)", teacher_bn, TEACHER_BN)
        self.teacher: Teacher | None = None
        self._earlier: Teacher | None = None  # of the last experience, should it come again
        self._watch: Watch | None = None
        self._groups: list[tuple[nn.Module, dict[str, Any]]] = []
        self._before: dict[str, Any] = {}  # what stood where an experience made something

    # ---- what a plugin says

    def begin(self, strategy: Any, example: Outputs | None) -> None:
        """Prepare an experience: make predictors and let them :meth:`join`.

        :param strategy: the strategy.
        :param example: the teacher's outputs for two images, from which sizes
            are known; None in the first experience.
        """

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return the distance between the network and its teacher on a minibatch.

        :param student: the trained network's outputs, with gradients.
        :param teacher: the teacher's, of the same views.
        :return: scalar.
        """
        raise NotImplementedError

    # ---- events

    def refuse(self, strategy: Any) -> None:
        """Refuse a method without a backbone."""
        needed_backbone(strategy.model, type(self).__name__)

    def open(self, strategy: Any, experience: int) -> None:
        """Watch the network, and let what learns along join the optimizer."""
        if self.again:
            self.teacher = self._earlier  # not the network of this experience's first time
        else:
            self._earlier = self.teacher
        self._watch = Watch(strategy.model)  # first: close() knows what is watched
        self._watch.begin()
        example = None
        if self.teacher is not None:
            self.teacher.to(strategy.device)
            example = self.example(strategy, self.teacher)
        self.begin(strategy, example)

    def rejoin(self, strategy: Any) -> None:
        """Let what learns along join another optimizer; watch again, if the run was resumed."""
        if self._watch is not None:
            self._watch.remove()
            self._watch.begin()
        held = {id(p) for group in strategy.optimizer.param_groups for p in group["params"]}
        for module, settings in self._groups:
            if not held.issuperset(map(id, module.parameters())):
                self._join(strategy, module, settings)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Forget the last minibatch."""
        if self._watch is not None:
            self._watch.expect(len(strategy.mb_x))

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add the distance to the loss."""
        self._before.clear()
        if self._watch is not None:
            with strategy.autocast():
                self.add_terms(strategy, self._watch.outputs(len(strategy.mb_y)))

    def add_terms(self, strategy: Any, student: Outputs) -> None:
        """Add this plugin's terms to ``strategy.loss``.

        :param strategy: the strategy.
        :param student: the trained network's outputs.
        """
        if self.teacher is not None:
            teacher = self.teacher(strategy.mb_x[: len(student.features)])
            distance = self.distance(student, teacher)
            self.note("distillation", distance)
            strategy.loss = strategy.loss + self.weight * distance

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Let go of the minibatch."""
        if self._watch is not None:
            self._watch.expect(0)

    def close(self, strategy: Any, *, finished: bool) -> None:
        """Watch no more; copy the network of a finished experience as the next one's teacher."""
        if self._watch is not None:
            self._watch.remove()
            self._watch = None
        while self._groups:
            self._leave(strategy, self._groups[-1][0])
            del self._groups[-1]
        for name, value in self._before.items():
            setattr(self, name, value)
        self._before.clear()
        if finished:
            assert not is_expanded(strategy.model), "BranchTuningPlugin goes first"
            self.teacher = Teacher(strategy.model, self.teacher_bn)

    # ---- helpers

    def make(self, name: str, module: nn.Module) -> None:
        """Keep a module that an experience makes, unless it ends before its first step.

        It is made again then, so that an experience that is begun twice draws the same numbers.

        :param name: of the attribute.
        :param module: that takes the place of what is there.
        """
        self._before[name] = getattr(self, name)
        setattr(self, name, module)

    def join(self, strategy: Any, module: nn.Module, **settings: Any) -> None:
        """Let a module learn with the strategy's optimizer, as a group, until the experience ends.

        :param strategy: the strategy.
        :param module: moved to the strategy's device.
        :param settings: of its parameter group, for example ``lr``.
        """
        module.to(strategy.device).train()
        self._groups.append((module, settings))  # first: close() knows what may have joined
        self._join(strategy, module, settings)

    def _join(self, strategy: Any, module: nn.Module, settings: dict[str, Any]) -> None:
        join_as_group(strategy.optimizer, module, type(self).__name__, **settings)

    def _leave(self, strategy: Any, module: nn.Module) -> None:
        leave_group(strategy.optimizer, module, type(self).__name__)

    @staticmethod
    def example(strategy: Any, teacher: Teacher) -> Outputs:
        """Return a teacher's outputs for two images, from which sizes are known.

        :param strategy: the strategy; its random state is left alone.
        :param teacher: on the strategy's device.
        """
        view = strategy.first_view()
        found: Outputs = teacher([view.expand(2, *view.shape)])
        return found


def float32(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return tensors in float32 at least: distances are not taken in half precision."""
    return [t if t.dtype == torch.float64 else t.float() for t in tensors]


def in_full_precision(
    distance: Callable[[list[Tensor], list[Tensor]], Tensor],
    student: Iterable[Tensor],
    teacher: Iterable[Tensor],
) -> Tensor:
    """Return a distance computed in float32 at least, also where autocasting is on.

    :param distance: from the lists of the student's and the teacher's outputs to a scalar.
    :param student: one tensor for each view.
    :param teacher: as many.
    """
    s, t = float32(student), float32(teacher)
    with torch.autocast(s[0].device.type, enabled=False):
        return distance(s, t)
