"""CLR: a light linear map on each convolution's output channels, one set for each experience."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from avalanche.training.plugins import EWCPlugin
from torch import Tensor, nn

from avalanche_branchtune.errors import (
    ExpansionError,
    IncompatiblePluginError,
    UnknownOptionError,
    expected_one_of,
)
from avalanche_branchtune.fixed_norms import FixedNormsPlugin
from avalanche_branchtune.lifecycle import ExperiencePlugin
from avalanche_branchtune.norms import NORM_LAYERS, restore_norms
from avalanche_branchtune.optimizers import leave_optimizer
from avalanche_branchtune.options import not_negative, one_of, true_or_false
from avalanche_branchtune.parts import online_and_momentum
from avalanche_branchtune.plugin import BranchTuningPlugin
from avalanche_branchtune.surgery import Scope, in_scope
from solo_bridge.conflicts import Conflicts
from solo_bridge.plugins.partial.freezing import Freezer, hold_statistics, outside
from solo_bridge.plugins.partial.kappatune import KappaTunePlugin
from solo_bridge.plugins.partial.nap import NaPPlugin
from solo_bridge.plugins.partial.periodic import PeriodicFineTuningPlugin
from solo_bridge.registry import register

MAP = "clr_map"
"""Name of the parameter that a reprogrammed convolution has beside its own."""

KEPT_NORMS = ("task", "shared", "frozen")


def identity_maps(conv: nn.Conv2d, size: int) -> Tensor:
    """Return the maps of a convolution's output channels that change nothing.

    Authors' code: gyhandy/Channel-wise-Lightweight-Reprogramming c1c374a, network/ReGhos_Block.py.

    :param conv: the convolution.
    :param size: k, odd.
    :return: ``(C_out, 1, k, k)``: 1 in the middle, else 0.
    """
    maps = conv.weight.new_zeros((conv.out_channels, 1, size, size))
    maps[:, :, size // 2, size // 2] = 1
    return maps


def reprogram(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Map each output channel of a convolution by its own kernel: a forward hook.

    ``y'_c = M_c ∗ y_c`` with y the convolution's output, its bias included, and
    zeros beyond its border.

    Authors' code: gyhandy/Channel-wise-Lightweight-Reprogramming c1c374a, network/ReGhos_Block.py.

    :param module: a convolution with maps.
    :param args: its arguments.
    :param output: ``(N, C, H, W)`` or ``(C, H, W)``.
    :return: of the same shape.
    """
    maps: Tensor = getattr(module, MAP)
    return F.conv2d(output, maps, padding=maps.shape[-1] // 2, groups=maps.shape[0])


def put_maps(module: nn.Module, maps: nn.Parameter | None) -> None:
    """Put maps in place, of others or of none; in place of None the layer is plain again.

    :param module: a convolution.
    :param maps: ``(C_out, 1, k, k)``, or None.
    """
    hooks = [key for key, hook in module._forward_hooks.items() if hook is reprogram]
    if maps is not None:  # the maps first and last: a layer that has some is always known
        module.register_parameter(MAP, maps)
        if not hooks:
            module.register_forward_hook(reprogram, prepend=True)
        return
    for key in hooks:
        del module._forward_hooks[key]
    module._parameters.pop(MAP, None)


def reprogrammed(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a model that have maps now, by name.

    :param model: any module.
    """
    return {n: m for n, m in model.named_modules() if MAP in m._parameters}


@dataclass
class Task:
    """What one experience has for itself.

    :param maps: layer → maps ``(C_out, 1, k, k)``; none for the anchor.
    :param norms: layer → name → parameter or statistic; none unless kept by task.
    """

    maps: dict[str, Tensor]
    norms: dict[str, dict[str, Tensor]]


@register("clr", "CLR")
class CLRPlugin(ExperiencePlugin):
    """Ge et al., "Channel-wise Lightweight Reprogramming …", arXiv 2307.11386.

    The first experience trains the network as usual: it is the anchor.  From
    the second on (the first, if ``pretrained``) the backbone's parameters stand
    still, and a k×k depthwise linear map on the output channels of each of its
    2-D convolutions learns, see :func:`reprogram`, from the identity at the
    start.  Each experience has its own maps, and with ``norms="task"`` its own
    normalisation layers, both started from the anchor's: no earlier one changes.

    **Memory grows** with each experience, see :meth:`extra_parameters`, and a
    test needs the task's identity: :meth:`select` puts a task's maps in place,
    :meth:`selected` does for the length of a ``with`` block.  After training the
    latest task's maps stay in place: evaluated as it stands, the model answers
    as that task's network for images of every task.  While maps are in place,
    reprogrammed layers have one more parameter, ``clr_map``, also in the
    ``state_dict``; all others keep their names and order.  ``select(model, None)``
    gives the anchor, a plain network (for checkpoints, for example).

    Momentum backbones get maps too, which follow the online ones; they are kept
    with the tasks, but a test does not need them: they are not counted.

    An interrupted experience is discarded when the next one begins.  Copies of
    the model, also those made while training, are independent of it, and
    :meth:`select` works on them.

    Authors' code: gyhandy/Channel-wise-Lightweight-Reprogramming c1c374a, network/utils.py,
    add_ghostnet, and train_BN for ``norms="task"``.
    Differs: theirs (main.py, Ghost_reduced_v1, the paper's method by their README) has no maps on
    1×1 convolutions, ours has them unless ``pointwise=False``.
    Differs: their anchor comes pretrained, ours is trained in the first experience unless
    ``pretrained``.
    Differs: theirs learns by Adam at 1e-3 in steps, with 1e-5 times the weights' norms in the loss,
    ours by the strategy's optimizer and rate, without decay by default.

    :param size: k, odd.
    :param scope: which convolutions, by name inside the backbone, see
        :func:`avalanche_branchtune.surgery.in_scope`; all by default.
    :param pointwise: whether 1×1 convolutions get maps too; False is the paper's method.
    :param norms: the backbone's normalisation layers: ``"task"``: they learn,
        and each task has its own parameters and statistics; ``"shared"``: they
        learn on, so what earlier tasks' maps give changes; ``"frozen"``: they
        stand still from the second experience on, statistics too.
    :param heads: whether all outside the backbone (projector, predictor)
        learns on; no test uses it, so it is not kept by task.
    :param lr: learning rate of the maps for a batch of 256, scaled as the
        strategy's; that of the strategy by default.
    :param weight_decay: of the maps (towards zero, not towards the identity).
    :param pretrained: True to take the network as it comes for the anchor.
    :param verbose: print a line for each experience; it is logged in any case.
    :raises UnknownOptionError: for an unknown option.
    """

    conflicts: ClassVar[Conflicts] = {
        BranchTuningPlugin: "it trains and merges kernels, which are the fixed anchor here",
        EWCPlugin: "it tells parameters by their places, between which maps come and go",
        FixedNormsPlugin: "this says which norms learn: choose CLRPlugin(norms=…)",
        KappaTunePlugin: "it trains some of the kernels, which are the fixed anchor here",
        NaPPlugin: "it projects kernels, which stand still here",
        PeriodicFineTuningPlugin: "it tunes shared layers after a task's own were stored",
    }
    """Plugins that cannot do their work beside this one, with the reason."""

    def __init__(
        self,
        size: int = 3,
        *,
        scope: Scope = None,
        pointwise: bool = True,
        norms: str = "task",
        heads: bool = True,
        lr: float | None = None,
        weight_decay: float = 0.0,
        pretrained: bool = False,
        verbose: bool = True,
    ) -> None:
        """See the class."""
        super().__init__()
        if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise UnknownOptionError(f"CLRPlugin(size={size!r}): expected an odd number, 1, 3, 5 …")
        if lr is not None:
            not_negative("CLRPlugin(lr=…)", lr)
        self.size = size
        self.scope = scope
        self.pointwise = true_or_false("CLRPlugin(pointwise=…)", pointwise)
        self.norms = one_of("CLRPlugin(norms=…)", norms, KEPT_NORMS)
        self.heads = true_or_false("CLRPlugin(heads=…)", heads)
        self.lr = lr
        self.weight_decay = not_negative("CLRPlugin(weight_decay=…)", weight_decay)
        self.pretrained = true_or_false("CLRPlugin(pretrained=…)", pretrained)
        self.verbose = verbose
        self.tasks: dict[int, Task] = {}
        """The tasks that were trained with maps, by the index of their experience."""
        self._anchor: Task | None = None
        self._online: set[str] = set()
        self._joined: list[nn.Parameter] = []
        self._frozen = Freezer()

    # ---- tasks

    def select(self, model: nn.Module, task: int | None) -> None:
        """Put the maps (and norms) of a task in place, to be evaluated.

        :param model: the model that was trained, or a copy of it.
        :param task: index of the experience; None for the anchor, which is also
            the first experience's unless the network came ``pretrained``.
        :raises UnknownOptionError: for a task that was not trained, or a model
            that lacks its layers.
        :raises ExpansionError: while an experience is trained, of the trained
            model: see :meth:`selected`.
        """
        joined = {id(p) for p in self._joined}
        if any(id(getattr(m, MAP)) in joined for m in reprogrammed(model).values()):
            raise ExpansionError(
                "CLRPlugin.select: these maps are being trained, and would be lost: use "
                "`with plugin.selected(model, task)`, or a copy of the model"
            )
        self._put(model, self._task(task))

    @contextmanager
    def selected(self, model: nn.Module, task: int | None) -> Iterator[nn.Module]:
        """Put the maps of a task in place for a while, also during training.

        :param model: see :meth:`select`.
        :param task: see :meth:`select`.
        :return: context that gives the model; afterwards it is as before.
        """
        state = self._task(task)
        maps = {m: m._parameters[MAP] for m in reprogrammed(model).values()}
        norms = {n: _state(model.get_submodule(n)) for n in state.norms}
        try:
            self._put(model, state)
            yield model
        finally:
            for module in reprogrammed(model).values():
                if module not in maps:
                    put_maps(module, None)
            for module, parameter in maps.items():
                put_maps(module, parameter)
            _load(model, norms)

    def extra_parameters(self, task: int | None = None, *, statistics: bool = False) -> int:
        """Count the parameters that tests need beside the anchor's.

        Maps, ``k² · C_out`` for each convolution; with ``norms="task"`` the
        parameters of the normalisation layers, 2 for each channel.

        :param task: index of the experience; None for the sum of all tasks.
        :param statistics: count running statistics too.
        :raises UnknownOptionError: for a task that was not trained.
        """
        tasks = self.tasks.values() if task is None else [self._task(task)]
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        return sum(
            sum(m.numel() for n, m in t.maps.items() if n in self._online)
            + sum(
                tensor.numel()
                for n, state in (t.norms.items() if t.maps else ())
                if n in self._online
                for key, tensor in state.items()
                if statistics or key not in buffers
            )
            for t in tasks
        )

    def lasting_parameters(self) -> int:
        """Return how many parameters the tasks that are not in the network have."""
        return self.extra_parameters() - (
            self.extra_parameters(max(self.tasks)) if self.tasks else 0
        )

    # ---- events

    def refuse(self, strategy: Any) -> None:
        """Refuse a network without convolutions."""
        self._layers(strategy.model)

    def open(self, strategy: Any, experience: int) -> str:
        """Freeze the backbone, and put identity maps in place."""
        model = strategy.model
        found = online_and_momentum(model, type(self).__name__)
        prefix, backbone = next(iter(found.items()))
        if self._anchor is None:
            self._anchor = Task({}, self._norms(model))
        self._put(model, self._anchor)
        self._online = {n for n, _ in model.named_modules() if f"{n}.".startswith(f"{prefix}.")}
        learning = {
            id(p)
            for m in backbone.modules()
            if isinstance(m, NORM_LAYERS) and self.norms != "frozen"
            for p in m.parameters(recurse=False)
        }
        layers = self._layers(model)
        learners = {n for n, m in layers.items() if n in self._online and m.weight.requires_grad}
        self._frozen.freeze((p for p in backbone.parameters() if id(p) not in learning), strategy)
        if not self.heads:
            self._frozen.freeze(outside(model, backbone), strategy)
        if self.norms == "frozen":
            hold_statistics(model, found)
        for name, layer in layers.items():
            maps = nn.Parameter(identity_maps(layer, self.size), name in learners)
            if name in learners:
                self._joined.append(maps)
            put_maps(layer, maps)
        self._join(strategy)
        return self._summary(experience, model)

    def rejoin(self, strategy: Any) -> None:
        """Let the maps learn as a group of their own, what is frozen not at all."""
        leave_optimizer(strategy.optimizer, [*self._joined, *self._frozen.parameters])
        self._join(strategy)

    def close(self, strategy: Any, *, finished: bool) -> None:
        """Keep the maps of a finished experience, leave them in place, and put all else back."""
        model = strategy.model
        if finished:
            maps = {n: getattr(m, MAP).detach().clone() for n, m in reprogrammed(model).items()}
            self.tasks[self.under_way or 0] = Task(maps, self._norms(model))
        leave_optimizer(strategy.optimizer, self._joined)
        restore_norms(model)
        self._frozen.release()
        for m in reprogrammed(model).values() if finished else ():
            getattr(m, MAP).requires_grad_(False)
        self._joined = []

    def clean(self, strategy: Any) -> None:
        """Take the last task's maps, which do not learn any more, from the fresh optimizer."""
        old = [getattr(m, MAP) for m in reprogrammed(strategy.model).values()]
        leave_optimizer(strategy.optimizer, old)

    # ---- helpers

    def _layers(self, model: nn.Module) -> dict[str, nn.Conv2d]:
        found = {}
        for prefix, backbone in online_and_momentum(model, type(self).__name__).items():
            for name, module in in_scope(backbone, self.scope):
                if not isinstance(module, nn.Conv2d):
                    continue
                if self.pointwise or module.kernel_size != (1, 1):
                    found[".".join(filter(None, (prefix, name)))] = module
        if not found:
            raise IncompatiblePluginError(
                f"CLRPlugin: the backbone of {type(model).__name__} has no 2-D convolution in "
                f"scope {self.scope!r}, on whose channels maps could work"
            )
        return found

    def _norms(self, model: nn.Module) -> dict[str, dict[str, Tensor]]:
        if self.norms != "task":
            return {}
        found = online_and_momentum(model, type(self).__name__).values()
        inside = {id(m) for backbone in found for m in backbone.modules()}
        return {
            n: _state(m)
            for n, m in model.named_modules()
            if id(m) in inside and isinstance(m, NORM_LAYERS)
        }

    def _task(self, task: int | None) -> Task:
        if task in self.tasks:
            return self.tasks[task]
        anchors = (None,) if self.pretrained else (None, 0)
        if task in anchors and self._anchor is not None:
            return self._anchor
        if task in anchors:
            return Task({}, {})  # before the second experience the network is its own anchor
        known = [str(a) for a in anchors] + [str(t) for t in self.tasks]
        raise expected_one_of("CLRPlugin: task", task, known)

    def _put(self, model: nn.Module, task: Task) -> None:
        modules = dict(model.named_modules())
        missing = [n for n in (*task.maps, *task.norms) if n not in modules]
        if missing:
            raise UnknownOptionError(
                f"CLRPlugin: {type(model).__name__} has no layer {missing[0]!r}: tasks are "
                "selected in the method that was trained, or in a copy of it"
            )
        for module in reprogrammed(model).values():
            put_maps(module, None)
        for name, maps in task.maps.items():
            own = maps.to(modules[name].weight, copy=True)
            put_maps(modules[name], nn.Parameter(own, requires_grad=False))
        _load(model, task.norms)

    def _join(self, strategy: Any) -> None:
        group = {"params": list(self._joined), "name": type(self).__name__}
        if self.lr is not None:
            group["lr"] = self.lr * strategy.lr_scale
        groups = strategy.optimizer.param_groups
        groups[:] = [g for g in groups if g.get("name") != type(self).__name__]
        strategy.optimizer.add_param_group({**group, "weight_decay": self.weight_decay})

    def _summary(self, experience: int, model: nn.Module) -> str:
        learning = sum(p.numel() for p in self._joined)
        return (
            f"CLR, experience {experience}: {len(self._joined)} convolutions reprogrammed, "
            f"{learning:,} scalars in maps and "
            f"{sum(p.numel() for p in model.parameters() if p.requires_grad) - learning:,} others "
            f"learn; earlier tasks keep {self.extra_parameters():,} of their own"
        )


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Copy a layer's own parameters and buffers."""
    own = {**module._parameters, **module._buffers}
    return {name: t.detach().clone() for name, t in own.items() if t is not None}


@torch.no_grad()
def _load(model: nn.Module, norms: dict[str, dict[str, Tensor]]) -> None:
    for name, state in norms.items():
        module = model.get_submodule(name)
        for key, value in state.items():
            getattr(module, key).copy_(value)
