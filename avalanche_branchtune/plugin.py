"""BranchTuningPlugin: hooks and settings; surgery, norms and optimizers do the work."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from avalanche_branchtune.branches import Branch, Branched, LinearBranch, check_branch, check_linear
from avalanche_branchtune.doubts import doubts
from avalanche_branchtune.errors import (
    EmptyExperienceError,
    IncompatiblePluginError,
    OptimizerMismatchError,
    UnknownOptionError,
)
from avalanche_branchtune.experiences import experience_index
from avalanche_branchtune.lifecycle import ExperiencePlugin
from avalanche_branchtune.norms import PAPER_NORMS, Norms, check_norms, fix_norms, restore_norms
from avalanche_branchtune.optimizers import (
    join_optimizer,
    learning_branches,
    leave_optimizer,
    missing_parameters,
)
from avalanche_branchtune.options import one_of, positive, true_or_false
from avalanche_branchtune.parts import backbone_scope
from avalanche_branchtune.plain_view import check_plugins, show_as_is, show_plain
from avalanche_branchtune.rates import drop_groups, follow, schedulers_of, set_apart
from avalanche_branchtune.surgery import (
    Scope,
    compress,
    expand,
    in_scope,
    is_expanded,
    plan_expansion,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExperienceSummary:
    """What one experience trained.

    :param experience: its place among those that were trained, from 0.
    :param layers: number of branched layers.
    :param norms: number of fixed normalisation layers.
    :param branch_parameters: number of scalars in branches that learn.
    :param trainable_parameters: number of scalars that learn, branches included.
    :param frozen_parameters: number of scalars that do not.
    :param skipped: layers in scope that could not be branched, with the reason.
    """

    experience: int
    layers: int
    norms: int
    branch_parameters: int
    trainable_parameters: int
    frozen_parameters: int
    skipped: dict[str, str]

    def __str__(self) -> str:
        """Return the line that is printed."""
        line = (
            f"Branch-tuning, experience {self.experience}: {self.layers} branched layers, "
            f"{self.norms} fixed norms, {self.trainable_parameters:,} trainable "
            f"({self.branch_parameters:,} in branches) and {self.frozen_parameters:,} frozen "
            "parameters"
        )
        if self.skipped:
            line += "; not branched: " + ", ".join(f"{n} ({r})" for n, r in self.skipped.items())
        return line


class BranchTuningPlugin(ExperiencePlugin):
    """Branch-tuning: learn each new experience in branches, then merge them.

    From the second experience on (the first, if ``pretrained``), every
    convolution in scope gets zero-initialised branches, its kernel and the
    BatchNorm affine parameters stand still, and after the experience the
    branches are merged into the kernels: the network keeps its size, and no
    old data or old model is kept.  Liu, Zhu, Liu, arXiv 2403.18266.

    Works in any order beside other plugins: it moves itself to the front of
    ``strategy.plugins``, so that the others' ``after_training_exp`` sees the
    merged network.  EWC, SI and MAS see the folded kernels while the model is
    expanded (:mod:`avalanche_branchtune.plain_view`).

    Authors' code: SmallPigPeppa/ISSL 37827a5, main_continual_reparam_fixbn.py,
    main_pretrain_new_fixbn.py, and on_train_end in ``cassle/methods/*.py``.
    Differs: their momentum network computes without its branches until they are merged, ours with
    them.

    If training is interrupted, the model stays expanded and can be saved, or
    merged with :func:`avalanche_branchtune.compress` and
    :func:`avalanche_branchtune.restore_norms`; the next ``train`` call merges
    what was learnt, if that was not done, and starts anew.

    In an online stream that gives access to its task boundaries, an experience
    is the one that the small ones are cut from; in one that does not, each
    small experience is one of its own.  (Avalanche 0.6 marks no part as the
    last where they divide the experience exactly: its branches are merged when
    the next one begins, or by :func:`avalanche_branchtune.compress`.)

    :param branch: branch of a k×k convolution: ``"1x1"``, ``"1x3+3x1"`` (1×k
        and k×1, the paper's default), ``"3x3"`` (k×k) or a callable from
        ``(height, width)`` to a list of sizes.
    :param linear: branch of linear layers, for transformers: ``"none"``,
        ``"full"`` or a rank.
    :param scope: which modules: None for the model's backbones (sub-modules
        called ``backbone``, ``encoder`` or their ``momentum_`` pairs; the
        whole model if there are none), or names, patterns or a predicate, see
        :func:`avalanche_branchtune.surgery.in_scope`.
    :param norm_mode: ``"affine"``, ``"eval"`` or ``"none"``, see
        :func:`avalanche_branchtune.fix_norms`.
    :param norms: which normalisation layers; BatchNorm2d and SyncBatchNorm by
        default, as in the paper.
    :param norm_scope: which modules' norms: None for the whole model, else as
        ``scope``.
    :param lr_factor: learning rate of branches as a multiple of their kernels', in every step of
        whatever schedule.  Unless it is 1, they have parameter groups of their own during an
        experience, with all other settings of their kernels' groups; a scheduler that is older
        than they are is fitted to them if the strategy or a plugin holds it.
    :param pretrained: True to branch from the first experience on.
    :param unbranchable: ``"error"`` or ``"skip"``, see
        :func:`avalanche_branchtune.expand`.
    :param verbose: print a summary line for each experience.
    :raises UnknownOptionError: for an unknown option.
    """

    lr_factor: float = 1.0
    """Of a plugin whose state was saved before there was one."""

    def __init__(
        self,
        branch: Branch = "1x3+3x1",
        *,
        linear: LinearBranch = "none",
        scope: Scope = None,
        norm_mode: str = "affine",
        norms: Norms = PAPER_NORMS,
        norm_scope: Scope = None,
        lr_factor: float = 1.0,
        pretrained: bool = False,
        unbranchable: str = "error",
        verbose: bool = True,
    ) -> None:
        """See the class."""
        super().__init__()
        try:
            check_branch(branch)
            check_linear(linear)
            check_norms(norm_mode, norms)
            one_of("unbranchable", unbranchable, ("error", "skip"))
            positive("lr_factor", lr_factor)
            true_or_false("pretrained", pretrained)
            true_or_false("verbose", verbose)
        except UnknownOptionError as error:
            raise UnknownOptionError(f"BranchTuningPlugin: {error}") from None
        self.branch = branch
        self.linear = linear
        self.scope = scope
        self.norm_mode = norm_mode
        self.norms = norms
        self.norm_scope = norm_scope
        self.lr_factor = lr_factor
        self.pretrained = pretrained
        self.unbranchable = unbranchable
        self.verbose = verbose
        self.summaries: list[ExperienceSummary] = []
        """One entry for each experience that was trained in branches."""
        self.branch_norms: dict[int, dict[str, float]] = {}
        """Place of each that was finished → layer → Frobenius norm of what its branches added;
        layers whose branches follow others (momentum networks) are left out."""
        self._joined: list[nn.Parameter] = []
        self._watching = False

    def refuse(self, strategy: Any) -> None:
        """Go to the front of the plugins, and refuse what cannot work."""
        if any(isinstance(p, BranchTuningPlugin) and p is not self for p in strategy.plugins):
            raise IncompatiblePluginError(
                "two BranchTuningPlugins in one strategy would branch layers twice: keep one"
            )
        self.go_first(strategy)
        check_plugins(strategy.plugins, self.linear)
        list(in_scope(strategy.model, self.norm_scope))
        if not is_expanded(strategy.model):
            layers, _ = plan_expansion(strategy.model, self.branch, **self._options(strategy.model))
            self._check_optimizer(strategy, layers)

    def before_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse an experience without samples before anything is changed."""
        if len(strategy.experience.dataset) == 0:
            index = experience_index(strategy)
            raise EmptyExperienceError(f"experience {index} has no samples to train on")
        super().before_train_dataset_adaptation(strategy, *args, **kwargs)

    def open(self, strategy: Any, experience: int) -> ExperienceSummary:
        """Expand the network, fix its norms and let the branches join the optimizer."""
        model = strategy.model
        options = self._options(model)
        expansion = expand(model, self.branch, **options)
        fixed = fix_norms(model, self.norm_mode, norms=self.norms, scope=self.norm_scope)
        if not self.summaries:  # the first
            asked = {"linear": self.linear, "scope": options["scope"], "norm_mode": self.norm_mode}
            for doubt in doubts(model, **asked, fixed=fixed):
                warnings.warn(f"Branch-tuning: {doubt}", stacklevel=2)
        self._joined = learning_branches(model)  # first: what may have joined has to leave
        self._join(strategy)
        show_plain(strategy.plugins)
        self._watching = True
        layers, skipped = len(expansion.branched), expansion.skipped
        if self.summaries and self.summaries[-1].experience == experience:
            del self.summaries[-1]  # it is trained again
        self.branch_norms.pop(experience, None)
        self.summaries.append(_summary(experience, model, layers, len(fixed), skipped))
        return self.summaries[-1]

    def rejoin(self, strategy: Any) -> None:
        """Let the branches join the optimizer, if it is another one."""
        self._join(strategy)

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Set the branches' rates; warn, once per experience, of those no gradient reaches."""
        follow(strategy.optimizer, self.lr_factor)
        if self._watching:
            self._watching = False
            still = [
                name
                for name, layer in strategy.model.named_modules()
                if isinstance(layer, Branched)
                and all(b.grad is None and b.requires_grad for b in layer.branches.values())
            ]
            if still:
                warnings.warn(
                    f"no gradient reached the branches of {len(still)} layer(s): "
                    f"{', '.join(still[:5])}. Either they were not used, or the model reads their "
                    "weights without calling them, and they cannot learn: leave them out of scope",
                    stacklevel=2,
                )

    def close(self, strategy: Any, *, finished: bool) -> None:
        """Merge the branches, with what they learnt, and put everything else back as it was."""
        show_as_is(strategy)
        layers = {n: m for n, m in strategy.model.named_modules() if isinstance(m, Branched)}
        branches = [b for m in layers.values() for b in m.branches.values()]
        place = self.under_way
        if finished and place is not None and place not in self.branch_norms:
            self.branch_norms[place] = _branch_norms(layers)  # before any is merged
        leave_optimizer(strategy.optimizer, [*branches, *self._joined])
        drop_groups(strategy.optimizer, schedulers_of(strategy))
        compress(strategy.model)
        restore_norms(strategy.model)
        self._joined = []

    def clean(self, strategy: Any) -> None:
        """Merge branches that were there before this plugin."""
        if is_expanded(strategy.model):
            logger.warning("the network has branches already: merging what they learnt")
            self.close(strategy, finished=False)

    def _join(self, strategy: Any) -> None:
        optimizer, model = strategy.optimizer, strategy.model
        join_optimizer(optimizer, model)
        if self.lr_factor != 1:
            joined = {id(b) for b in learning_branches(model)}
            branches = {n: p for n, p in model.named_parameters() if id(p) in joined}
            set_apart(optimizer, branches, self.lr_factor, schedulers_of(strategy))

    def _options(self, model: nn.Module) -> dict[str, Any]:
        return {
            "linear": self.linear,
            "scope": backbone_scope(model) if self.scope is None else self.scope,
            "unbranchable": self.unbranchable,
        }

    def _check_optimizer(self, strategy: Any, layers: dict[str, nn.Module]) -> None:
        if strategy.optimizer is None:
            raise OptimizerMismatchError(
                f"{type(strategy).__name__} has no optimizer: there is nothing to train in branches"
            )
        held = {id(p) for group in strategy.optimizer.param_groups for p in group["params"]}
        missing = [
            f"{name}.weight"
            for name, layer in layers.items()
            if layer.weight.requires_grad and id(layer.weight) not in held
        ]
        if missing:
            raise missing_parameters(missing)


def _summary(
    experience: int, model: nn.Module, layers: int, norms: int, skipped: dict[str, str]
) -> ExperienceSummary:
    branches = [b for m in model.modules() if isinstance(m, Branched) for b in m.branches.values()]
    parameters = list(model.parameters())
    return ExperienceSummary(
        experience=experience,
        layers=layers,
        norms=norms,
        branch_parameters=sum(b.numel() for b in branches if b.requires_grad),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        frozen_parameters=sum(p.numel() for p in parameters if not p.requires_grad),
        skipped=skipped,
    )


def _branch_norms(layers: Mapping[str, Branched]) -> dict[str, float]:
    return {
        name: float(torch.linalg.vector_norm((m.folded_weight() - m.weight).detach()))
        for name, m in layers.items()
        if any(b.requires_grad for b in m.branches.values())
    }
