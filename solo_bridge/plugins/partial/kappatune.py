"""KappaTune: train only the weight tensors with the smallest condition numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.fixed_norms import FixedNormsPlugin
from avalanche_branchtune.lifecycle import ExperiencePlugin
from avalanche_branchtune.norms import MODES, NORM_LAYERS, restore_norms
from avalanche_branchtune.optimizers import leave_optimizer
from avalanche_branchtune.options import at_least_one, fraction, one_of, true_or_false
from avalanche_branchtune.parts import needed_backbone, online_and_momentum
from avalanche_branchtune.plugin import BranchTuningPlugin
from solo_bridge.conflicts import Conflicts
from solo_bridge.plugins.partial.freezing import Freezer, hold_statistics, outside
from solo_bridge.plugins.partial.periodic import PeriodicFineTuningPlugin
from solo_bridge.registry import register

logger = logging.getLogger(__name__)


def condition_number(weight: Tensor) -> float:
    """Return κ = σ_max / σ_min of a weight tensor, flattened to ``(out, rest)``.

    The singular values are computed in double precision on the CPU.  A tensor
    counts as rank-deficient, κ = ∞, if ``σ_min ≤ max(out, rest) · ε · σ_max``
    with ε the precision of the tensor's own type; so does one that is not finite.

    Authors' code: oswaldoludwig/kappaTune 3ce5a7e, selective_fine_tuning.py, _analyze_model.
    Differs: of a kernel with more than two axes theirs decomposes the last two, fails (but for
    ``(out, 1, 1, 1)``) and skips it, so that it stands still; ours flattens it.
    Differs: theirs computes in the tensor's own precision, and κ = ∞ only for σ_min = 0.

    :param weight: ``(out, …)``, at least one axis.
    :return: κ ≥ 1, or infinity.
    """
    matrix = weight.detach().flatten(1) if weight.dim() > 1 else weight.detach()[:, None]
    if not torch.isfinite(matrix).all():
        return float("inf")
    values = torch.linalg.svdvals(matrix.double().cpu())
    largest, smallest = float(values[0]), float(values[-1])
    smallest_of_full_rank = max(matrix.shape) * torch.finfo(weight.dtype).eps * largest
    return largest / smallest if smallest > smallest_of_full_rank else float("inf")


def weight_tensors(backbone: nn.Module) -> dict[str, nn.Parameter]:
    """Return a backbone's kernels by name: of convolutions, linear layers and attention.

    :param backbone: any module.
    :return: name → parameter, each once, in the modules' order.
    """
    found: dict[str, nn.Parameter] = {}
    for name, module in backbone.named_modules():
        attention = isinstance(module, nn.MultiheadAttention)
        if attention or isinstance(module, _ConvNd | nn.Linear):
            parameter = module._parameters.get("in_proj_weight" if attention else "weight")
            if parameter is not None and not any(parameter is p for p in found.values()):
                own = "in_proj_weight" if attention else "weight"
                found[f"{name}.{own}" if name else own] = parameter
    return found


@dataclass(frozen=True)
class KappaSummary:
    """What one experience trains.

    :param experience: its index, from 0.
    :param kappas: condition number of each weight tensor, by its name in the backbone.
    :param chosen: those that are trained, by rising κ.
    :param trainable_parameters: scalars of the whole method that learn.
    :param frozen_parameters: scalars that this plugin let stand still.
    """

    experience: int
    kappas: dict[str, float]
    chosen: tuple[str, ...]
    trainable_parameters: int
    frozen_parameters: int

    def __str__(self) -> str:
        """Return the line that is printed."""
        tensors = ", ".join(f"{name} (κ {self.kappas[name]:.3g})" for name in self.chosen)
        return (
            f"KappaTune, experience {self.experience}: {len(self.chosen)} of {len(self.kappas)} "
            f"weight tensors learn: {tensors or 'none'}; {self.trainable_parameters:,} trainable "
            f"and {self.frozen_parameters:,} frozen parameters"
        )


@register("kappatune", "KappaTune")
class KappaTunePlugin(ExperiencePlugin):
    """Ludwig, "The Condition Number as a Scale-Invariant Proxy …", arXiv 2506.16289.

    From the second experience on (the first, if ``pretrained``), of the online
    backbone's weight tensors only those with the smallest condition numbers
    learn, see :func:`condition_number`; they are chosen anew before each
    experience.  Convolution kernels are flattened to ``(out, rest)``.  All else
    in the backbone stands still unless an option says otherwise: other
    parameters (class tokens, position embeddings) always.
    Frozen parameters leave the experience's optimizer.  Momentum networks
    follow the online ones as usual.  Copies of the model that are made during
    an experience keep its ``requires_grad``.

    Authors' code: oswaldoludwig/kappaTune 3ce5a7e, selective_fine_tuning.py,
    SelectiveFineTuningOptimizer.
    Differs: there convolution kernels stand still, see :func:`condition_number`; ours are chosen
    like other weights.
    Differs: theirs chooses a number (100) of all tensors of the model with two axes or more, ours a
    share of the backbone's kernels.
    Differs: their heads stand still unless chosen, ours learn unless ``heads=False``.
    Differs: theirs computes κ once and keeps it in a file, ours before each experience.
    Differs: rank-deficient tensors come last there, and never learn here.

    :param share: share of the weight tensors that learn, of their number
        rounded to the nearest, one at least; rank-deficient ones never.
        0.2 unless ``number`` is given.
    :param number: how many learn, instead of ``share``.
    :param biases: whether the biases of the backbone's layers learn.
    :param norm_mode: the backbone's normalisation layers: ``"affine"`` (weight
        and bias stand still, running statistics keep updating), ``"eval"``
        (statistics stand still too) or ``"none"`` (they train as usual).
    :param heads: whether all outside the backbone (projector, predictor) learns.
    :param pretrained: True to choose before the first experience already.
    :param verbose: print a line for each experience; it is logged in any case.
    :raises UnknownOptionError: for an unknown option.
    """

    conflicts: ClassVar[Conflicts] = {
        BranchTuningPlugin: "it freezes all kernels, of which this trains some",
        FixedNormsPlugin: "this fixes norms by itself: say KappaTunePlugin(norm_mode=…)",
        PeriodicFineTuningPlugin: "it would tune what this froze when the experience ends",
    }
    """Plugins that cannot do their work beside this one, with the reason."""

    def __init__(
        self,
        share: float | None = None,
        *,
        number: int | None = None,
        biases: bool = False,
        norm_mode: str = "affine",
        heads: bool = True,
        pretrained: bool = False,
        verbose: bool = True,
    ) -> None:
        """See the class."""
        super().__init__()
        if share is not None and number is not None:
            raise UnknownOptionError(
                f"KappaTunePlugin(share={share}, number={number}): expected one of the two"
            )
        if number is not None:
            at_least_one("KappaTunePlugin(number=…)", number)
        one_of("KappaTunePlugin(norm_mode=…)", norm_mode, MODES)
        self.share = fraction("KappaTunePlugin(share=…)", 0.2 if share is None else share)
        self.number = number
        self.biases = true_or_false("KappaTunePlugin(biases=…)", biases)
        self.norm_mode = norm_mode
        self.heads = true_or_false("KappaTunePlugin(heads=…)", heads)
        self.pretrained = true_or_false("KappaTunePlugin(pretrained=…)", pretrained)
        self.verbose = verbose
        self.summary: KappaSummary | None = None
        """Tensors and condition numbers of the latest experience."""
        self._frozen = Freezer()

    def refuse(self, strategy: Any) -> None:
        """Go to the front of the plugins, and refuse a method without backbone."""
        self.go_first(strategy)
        needed_backbone(strategy.model, type(self).__name__)

    def open(self, strategy: Any, experience: int) -> KappaSummary:
        """Choose what learns, and freeze the rest."""
        model = strategy.model
        found = online_and_momentum(model, type(self).__name__)
        backbone = next(iter(found.values()))
        tensors = weight_tensors(backbone)
        kappas = ranks.of_first(lambda: {n: condition_number(p) for n, p in tensors.items()})
        chosen = self._choose(kappas)
        learning = {id(tensors[name]) for name in chosen}
        learning |= {id(p) for p in self._others_that_learn(backbone)}
        self._frozen.freeze((p for p in backbone.parameters() if id(p) not in learning), strategy)
        if not self.heads:
            self._frozen.freeze(outside(model, backbone), strategy)
        if self.norm_mode == "eval":
            hold_statistics(model, found)
        return KappaSummary(
            experience=experience,
            kappas=kappas,
            chosen=chosen,
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            frozen_parameters=sum(p.numel() for p in self._frozen.parameters),
        )

    def rejoin(self, strategy: Any) -> None:
        """Take what stands still out of a fresh optimizer."""
        leave_optimizer(strategy.optimizer, self._frozen.parameters)

    def close(self, strategy: Any, *, finished: bool) -> None:
        """Let everything learn again."""
        restore_norms(strategy.model)
        self._frozen.release()

    def _choose(self, kappas: dict[str, float]) -> tuple[str, ...]:
        wanted = self.number or max(1, round(self.share * len(kappas)))
        full_rank = sorted(
            (n for n, k in kappas.items() if k < float("inf")), key=kappas.__getitem__
        )
        if not full_rank:
            logger.warning("KappaTune: no weight tensor of the backbone has full rank: none learns")
        return tuple(full_rank[:wanted])

    def _others_that_learn(self, backbone: nn.Module) -> Iterator[nn.Parameter]:
        for module in backbone.modules():
            if isinstance(module, NORM_LAYERS):
                if self.norm_mode == "none":
                    yield from module.parameters(recurse=False)
            elif self.biases:
                bias = (module._parameters.get(n) for n in ("bias", "in_proj_bias"))
                yield from (p for p in bias if p is not None)
