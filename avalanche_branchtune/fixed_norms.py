"""FixedNormsPlugin: fine-tuning with the normalisation layers fixed as Branch-tuning fixes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError
from avalanche_branchtune.lifecycle import ExperiencePlugin
from avalanche_branchtune.norms import PAPER_NORMS, Norms, check_norms, fix_norms, restore_norms
from avalanche_branchtune.options import one_of, true_or_false
from avalanche_branchtune.plugin import BranchTuningPlugin
from avalanche_branchtune.surgery import Scope, in_scope


@dataclass(frozen=True)
class FixedNormsSummary:
    """What one experience trains.

    :param experience: its place among those that were trained, from 0.
    :param norms: qualified names of the fixed normalisation layers.
    :param trainable_parameters: number of scalars that learn.
    :param frozen_parameters: number of scalars that do not.
    """

    experience: int
    norms: tuple[str, ...]
    trainable_parameters: int
    frozen_parameters: int

    def __str__(self) -> str:
        """Return the line that is printed."""
        return (
            f"fixed norms, experience {self.experience}: {len(self.norms)} fixed norms, "
            f"{self.trainable_parameters:,} trainable and {self.frozen_parameters:,} frozen "
            "parameters"
        )


class FixedNormsPlugin(ExperiencePlugin):
    """Fix normalisation layers from the second experience on; everything else learns.

    The control for Branch-tuning: what of its effect is that of the norms that
    it fixes.  Liu, Zhu, Liu, arXiv 2403.18266, Section 4, fix BatchNorm beside
    the branches.  Momentum networks have their norms fixed too; as under
    Branch-tuning, their affine parameters still follow the online ones, which
    stand still.

    Works in any order beside other plugins: it moves itself to the front of
    ``strategy.plugins``, so that the others' ``after_training_exp`` sees the
    network as it was.

    :param norm_mode: ``"affine"`` or ``"eval"``, see
        :func:`avalanche_branchtune.fix_norms`.
    :param norms: which normalisation layers; BatchNorm2d and SyncBatchNorm by
        default, as in the paper.
    :param norm_scope: which modules' norms: None for the whole model, else
        names, patterns or a predicate, see
        :func:`avalanche_branchtune.surgery.in_scope`.
    :param pretrained: True to fix them from the first experience on.
    :param verbose: print a summary line for each experience.
    :raises UnknownOptionError: for an unknown option, and in training for a
        model that has no such layer in scope.
    """

    conflicts: ClassVar[Mapping[type, str]] = {
        BranchTuningPlugin: "it fixes norms by itself: say BranchTuningPlugin(norm_mode=…, "
        "norms=…, norm_scope=…)",
    }
    """Plugins that cannot do their work beside this one, with the reason."""

    def __init__(
        self,
        norm_mode: str = "affine",
        *,
        norms: Norms = PAPER_NORMS,
        norm_scope: Scope = None,
        pretrained: bool = False,
        verbose: bool = True,
    ) -> None:
        """See the class."""
        super().__init__()
        one_of("FixedNormsPlugin(norm_mode=…)", norm_mode, ("affine", "eval"))
        try:
            check_norms(norm_mode, norms)
        except UnknownOptionError as error:
            raise UnknownOptionError(f"FixedNormsPlugin: {error}") from None
        self.norm_mode = norm_mode
        self.norms = norms
        self.norm_scope = norm_scope
        self.pretrained = true_or_false("FixedNormsPlugin(pretrained=…)", pretrained)
        self.verbose = true_or_false("FixedNormsPlugin(verbose=…)", verbose)

    def refuse(self, strategy: Any) -> None:
        """Go to the front of the plugins, and refuse what cannot work."""
        for kind, reason in self.conflicts.items():
            if any(isinstance(p, kind) and p is not self for p in strategy.plugins):
                raise IncompatiblePluginError(f"FixedNormsPlugin beside {kind.__name__}: {reason}")
        kinds = check_norms(self.norm_mode, self.norms)
        model, scope = strategy.model, self.norm_scope
        if not any(isinstance(module, kinds) for _, module in in_scope(model, scope)):
            raise UnknownOptionError(
                f"FixedNormsPlugin(norms={self.norms!r}, norm_scope={scope!r}): "
                f"{type(model).__name__} has no such layer: there is nothing to fix"
            )
        self.go_first(strategy)

    def open(self, strategy: Any, experience: int) -> FixedNormsSummary:
        """Fix the norms."""
        model = strategy.model
        fixed = fix_norms(model, self.norm_mode, norms=self.norms, scope=self.norm_scope)
        parameters = list(model.parameters())
        return FixedNormsSummary(
            experience=experience,
            norms=fixed,
            trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            frozen_parameters=sum(p.numel() for p in parameters if not p.requires_grad),
        )

    def close(self, strategy: Any, *, finished: bool) -> None:
        """Let the norms learn again."""
        restore_norms(strategy.model)


FixedNormsPlugin.conflicts = {
    **FixedNormsPlugin.conflicts,
    FixedNormsPlugin: "layers would be fixed twice: keep one",
}
