"""NaP: keep the norm of scale-invariant kernels, hence the effective learning rate."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.lifecycle import ExperiencePlugin
from avalanche_branchtune.norms import NORM_LAYERS
from avalanche_branchtune.options import between
from avalanche_branchtune.plugin import BranchTuningPlugin
from avalanche_branchtune.surgery import Scope, in_scope
from solo_bridge.conflicts import Conflicts
from solo_bridge.registry import register

WEIGHTED = (_ConvNd, nn.Linear)
NORMALISING = (*NORM_LAYERS, _NormBase)


class Followed:
    """Watches which layers hand all their outputs straight to a normalisation layer.

    Outputs are recognised as objects: what happens to them elsewhere (a sum, a
    concatenation) is not seen, and an activation in between makes another object.
    A layer with a bias counts only in front of BatchNorm or InstanceNorm, which
    cancel it: in front of others kernel and bias are invariant together only.

    :param layers: what is watched, by name.
    :param model: the model that is going to be called.
    """

    def __init__(self, layers: dict[str, nn.Module], model: nn.Module) -> None:
        """See the class."""
        self._names = {m: n for n, m in layers.items()}
        self._open: list[tuple[str, bool, Tensor, int]] = []
        self._calls: dict[str, int] = dict.fromkeys(layers, 0)
        self._met: dict[str, int] = dict.fromkeys(layers, 0)
        self._handles: list[RemovableHandle] = [
            layer.register_forward_hook(self._keep) for layer in layers.values()
        ]
        self._handles += [
            m.register_forward_pre_hook(self._meet)
            for m in model.modules()
            if isinstance(m, NORMALISING)
        ]

    def _keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        name = self._names.get(module)
        if name is not None:
            self._calls[name] += 1
            biased = module._parameters.get("bias") is not None
            self._open.append((name, biased, output, output._version))

    def _meet(self, module: nn.Module, args: Any) -> None:
        for entry in [e for e in self._open if args and e[2] is args[0]]:
            name, biased, output, version = entry
            if output._version == version and (not biased or isinstance(module, _NormBase)):
                self._met[name] += 1
            self._open = [e for e in self._open if e is not entry]

    def __reduce__(self) -> Any:
        """Copy and pickle as one that watches nothing: outputs belong to one network's graph."""
        return Followed, ({}, nn.Identity())

    def close(self) -> set[str]:
        """Stop watching.

        :return: the layers that were called, and each time followed.
        """
        for handle in self._handles:
            handle.remove()
        self._open = []
        return {n for n, calls in self._calls.items() if 0 < calls == self._met[n]}


@register("nap", "NaP")
class NaPPlugin(ExperiencePlugin):
    """Normalize-and-Project: Lyle et al., arXiv 2407.01800; from the first experience on.

    A kernel W that is followed by normalisation gives the same output for cW,
    and its gradient is ``1 / c`` of W's: as its norm grows, it learns more
    slowly.  After each optimizer step ``W ← W · ‖W₀‖ / ‖W‖`` (Frobenius norms,
    W₀ at the start of training, kept by tensor) puts the norm back; the output
    is the same but for the normalisation's ε.

    The projection follows ``optimizer.step()`` immediately: a momentum network,
    which is updated after that, averages projected weights; it is not projected
    itself.  Running statistics of BatchNorm are left alone: they were taken with
    kernels of this very norm.  Momentum buffers of the optimizer are left alone
    too.  Parameters that another plugin freezes are not projected.

    This plugin **adds no normalisation layers** (the paper puts one in front of
    each non-linearity): in a network with few it does little.  Which kernels
    are followed by one is observed in the first minibatch, see
    :class:`Followed`; a layer that is not called in it is left alone.

    No code of the authors is known.

    :param scope: which modules, see
        :func:`avalanche_branchtune.surgery.in_scope`; the whole method
        (backbone, projector, predictor) by default.
    :param only_followed: False to project all convolutions and linear layers
        in scope, also those whose scale matters: their function changes.
    :param affine_decay: d, by which parameters of normalisation layers in
        scope return towards their start after each step:
        ``p ← p + d · (p₀ − p)``.  0: they move freely.
    :raises UnknownOptionError: for a decay outside [0, 1].
    :raises IncompatiblePluginError: while training, if no kernel in scope is
        followed by normalisation.
    """

    conflicts: ClassVar[Conflicts] = {
        BranchTuningPlugin: "the kernels stand still while branches learn, and merging them "
        "changes the norm by what was learnt",
    }
    """Plugins that cannot do their work beside this one, with the reason."""

    def __init__(
        self,
        *,
        scope: Scope = None,
        only_followed: bool = True,
        affine_decay: float = 0.0,
    ) -> None:
        """See the class."""
        super().__init__()
        self.scope = scope
        self.only_followed = only_followed
        self.affine_decay = between(0, 1, "NaPPlugin(affine_decay=…)", affine_decay)
        self.norms: dict[str, float] = {}
        """Initial norm of each kernel that is projected, by the layer's name."""
        self._candidates: dict[str, float] | None = None
        self._start: dict[str, Tensor] = {}
        self._watch: Followed | None = None
        self._hook: RemovableHandle | None = None
        self._kernels: list[tuple[nn.Parameter, float]] = []
        self._affine: list[tuple[nn.Parameter, Tensor]] = []

    def refuse(self, strategy: Any) -> None:
        """Refuse a network without normalisation."""
        modules = [m for _, m in in_scope(strategy.model, self.scope)]
        if not any(isinstance(m, NORMALISING) for m in strategy.model.modules()):
            raise IncompatiblePluginError(
                f"NaPPlugin: {type(strategy.model).__name__} has no normalisation layer: no kernel "
                "is scale-invariant, and projecting would change what the network computes; this "
                "plugin adds none"
            )
        if not any(isinstance(m, WEIGHTED) for m in modules):
            raise IncompatiblePluginError(
                f"NaPPlugin: no convolution or linear layer in scope {self.scope!r}"
            )

    def open(self, strategy: Any, experience: int) -> None:
        """Keep the initial norms, once, and let the projection follow the optimizer's steps."""
        model = strategy.model
        if self._candidates is None:
            layers = self._layers(model)
            self._candidates = {n: float(_norm(_kernel(m))) for n, m in layers.items()}
            self._start = {n: p.detach().clone() for n, p in self._scales(model).items()}
            if not self.only_followed:
                self.norms = self._candidates
        self.rejoin(strategy)
        if self.norms:
            self._begin(model)

    def rejoin(self, strategy: Any) -> None:
        """Follow the steps of this optimizer."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = _inner(strategy.optimizer).register_step_post_hook(self._after_step)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Watch the first minibatch."""
        if self.under_way is not None and self._hook is None:
            self.rejoin(strategy)  # unpickled: an optimizer is pickled without its hooks
        if self._candidates is not None and not self.norms and self._watch is None:
            self._watch = Followed(self._layers(strategy.model), strategy.model)

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take the kernels that were followed by normalisation."""
        if self._watch is None:
            return
        followed = self._watch.close()
        self._watch = None
        assert self._candidates is not None
        self.norms = {n: norm for n, norm in self._candidates.items() if n in followed and norm > 0}
        if not self.norms:
            raise IncompatiblePluginError(
                f"NaPPlugin: no convolution or linear layer in scope {self.scope!r} hands its "
                "output straight to a normalisation layer; this plugin adds none"
            )
        self._begin(strategy.model)

    def close(self, strategy: Any, *, finished: bool) -> None:
        """Leave the optimizer, after a last projection: others may have taken steps too."""
        if finished:
            self.project()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self._kernels, self._affine = [], []

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the hook, which the optimizer does not pickle either."""
        return {**vars(self), "_hook": None}

    @torch.no_grad()
    def project(self) -> None:
        """Put the norms of the kernels that learn back to their initial values."""
        for p, norm in self._kernels:
            if p.requires_grad:
                now = _norm(p)
                p.mul_(torch.where(now > 0, norm / now, torch.ones_like(now)))

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.project()
        if self.affine_decay:
            with torch.no_grad():
                for p, start in self._affine:
                    if p.requires_grad:
                        p.lerp_(start, self.affine_decay)

    def _layers(self, model: nn.Module) -> dict[str, nn.Module]:
        return {
            n: m
            for n, m in in_scope(model, self.scope)
            if isinstance(m, WEIGHTED) and "weight" in m._parameters and _kernel(m).requires_grad
        }

    def _scales(self, model: nn.Module) -> dict[str, nn.Parameter]:
        if not self.affine_decay:
            return {}
        return {
            f"{n}.{name}": p
            for n, m in in_scope(model, self.scope)
            if isinstance(m, NORMALISING)
            for name, p in m._parameters.items()
            if p is not None and p.requires_grad
        }

    def _begin(self, model: nn.Module) -> None:
        layers = {n: m for n, m in model.named_modules() if n in self.norms}
        kernels = [(_kernel(layers[n]), norm) for n, norm in self.norms.items()]
        # What others let stand still for the experience; at its end they may be done before this.
        self._kernels = [(p, norm) for p, norm in kernels if p.requires_grad]
        parameters = dict(model.named_parameters())
        self._affine = [
            (parameters[n], start.to(parameters[n])) for n, start in self._start.items()
        ]


def _kernel(layer: nn.Module) -> nn.Parameter:
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight


def _norm(p: Tensor) -> Tensor:
    return torch.linalg.vector_norm(p.detach())


def _inner(optimizer: Any) -> Optimizer:
    """Return the optimizer that steps: solo-learn 1.0.2's LARS wraps one."""
    if hasattr(optimizer, "register_step_post_hook"):
        return optimizer
    return next(_inner(held) for held in vars(optimizer).values() if isinstance(held, Optimizer))
