"""Dark Experience Replay: remembered images keep the outputs they once had."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_branchtune.errors import IncompatiblePluginError
from avalanche_branchtune.options import at_least, one_of, positive
from avalanche_branchtune.parts import named_part, needed_backbone
from solo_bridge.conflicts import Conflicts, check_plugins
from solo_bridge.plugins.rehearsal.der_modes import MODES, Network
from solo_bridge.plugins.rehearsal.lump import LUMPPlugin
from solo_bridge.plugins.rehearsal.remembering import Held, MinibatchMemory
from solo_bridge.plugins.rehearsal.replay_view import (
    ReplayView,
    check_replay_view,
    seeds_for,
    stacked,
)
from solo_bridge.plugins.terms import WithTerms
from solo_bridge.registry import register
from solo_bridge.spreading import sharing

OUTPUTS = ("features", "embeddings")


@register("der", "DER")
class DERPlugin(WithTerms, SupervisedPlugin):
    """Buzzega et al., "Dark Experience …", arXiv 2004.07211, as LUMP's authors run it.

    ``loss + λ · mean (f(a(x)) − z)²``: x are remembered images, drawn without
    replacement, a(x) a new view of each, f the backbone in training mode, with
    gradients, and z what f gave for view 1 of x when x was stored; mean over
    images and entries.  It begins with the second minibatch of the stream.

    After the loss of each minibatch its view 1 goes through f once more,
    without gradients, then a(x) does: f has the statistics of that minibatch,
    and both move BatchNorm's running ones.  After the optimizer's step the
    images without augmentation and their outputs are offered to the memory
    (:class:`~solo_bridge.plugins.rehearsal.remembering.MinibatchMemory`): an
    image counts again each time it is presented.  An experience that is trained
    again begins from the memory as it was before its first time.

    Norms that :class:`~avalanche_branchtune.BranchTuningPlugin` fixed stay as
    they are, and plugins that watch the method's forward pass do not see these.

    Authors' code: divyam3897/UCL cfaa81d, models/der.py, Der.observe; utils/buffer.py, Buffer; λ,
    memory and images in each iteration: configs/simsiam_c10.yaml and barlow_c10.yaml.  For
    supervised learning, with logits of the class outputs: aimagelab/mammoth e75a491, models/der.py.
    Differs: ``output="embeddings"`` is ours: the projector's outputs are held, not the features.
    Differs: ``mode="eval"`` is ours: f and z are taken in eval mode, on the image without
    augmentation, so that the term is 0 for a network that did not change since, and remembered
    images leave no trace in running statistics.

    :param weight: λ.
    :param memory: number of images and outputs that are remembered.
    :param batch_size: remembered images in each iteration, fewer while fewer are
        remembered; by default ``train_mb_size``.
    :param output: what is held: ``"features"`` of the backbone, or
        ``"embeddings"`` of backbone and projector.
    :param mode: ``"train"`` or ``"eval"``, see above.
    :param replay_view: how a(x) is made, see
        :class:`~solo_bridge.plugins.LUMPPlugin`.  In ``mode="eval"`` only size,
        mean and deviation of a pipeline count; a function is taken as it is.
    :raises UnknownOptionError: for numbers that are not positive, sizes below 2
        in ``mode="train"``, and other names.
    :raises IncompatiblePluginError: when training begins, for a method without
        a module called ``backbone``, or ``projector`` for embeddings.
    :raises ViewsError: if there is no image to remember, because the data yields
        views, or no pipeline for its new view.
    """

    needs = frozenset({"index"})

    def __init__(
        self,
        weight: float = 0.4,
        memory: int = 256,
        *,
        batch_size: int | None = None,
        output: str = "features",
        mode: str = "train",
        replay_view: ReplayView = None,
    ) -> None:
        """See the class."""
        super().__init__()
        self.weight = positive("DERPlugin(weight=…)", weight)
        self.output = one_of("DERPlugin(output=…)", output, OUTPUTS)
        self._mode = MODES[one_of("DERPlugin(mode=…)", mode, MODES)]()
        if batch_size is not None:
            at_least(self._mode.least, "DERPlugin(batch_size=…)", batch_size)
        self.batch_size = batch_size
        self.memory = MinibatchMemory(memory, "DERPlugin", self._mode.least)
        self.replay_view = check_replay_view("DERPlugin(replay_view=…)", replay_view)
        self.conflicts: Conflicts = {}
        """Plugins that cannot do their work beside this one, with the reason."""
        if mode == "train":
            self.conflicts = {
                LUMPPlugin: "what is remembered of an image would be the output of a mixture: "
                "keep one of the two, or DERPlugin(mode='eval')"
            }
        self._next: Held | None = None

    @property
    def images(self) -> list[Any]:
        """The images that are remembered: as the data set gave them, or in ``mode="eval"`` as
        views ``(C, H, W)``."""
        return [item.image for item in self.memory.held.items]

    @property
    def targets(self) -> list[Tensor]:
        """The outputs that belong to them, each ``(D,)``, on the CPU."""
        return [item.kept[0] for item in self.memory.held.items]

    # ---- events

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what cannot work before anything is trained."""
        check_plugins(strategy.plugins, strategy.model)  # it may have been added later
        needed_backbone(strategy.model, "DERPlugin")
        if self.output == "embeddings":
            _projector(strategy.model)
        self._mode.prepare(self.replay_view, strategy)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begin from what is remembered, or was before the experience's first time."""
        self.memory.begin(strategy)

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """See what is to be remembered of the minibatch, and add the term to the loss."""
        network, held = self._network(strategy), self.memory.held.items
        self._next = self._mode.seen(self.memory, strategy, network)
        if not held:
            return
        total = min(self.batch_size or strategy.train_mb_size, len(held))
        chosen = self.memory.some(total)
        seeds = seeds_for(total, strategy)
        views = self._mode.views([item.image for item in chosen], seeds).to(strategy.mb_x[0])
        target = stacked([item.kept[0] for item in chosen], "DERPlugin").to(strategy.device)
        with sharing(total):
            distance = F.mse_loss(network(views), target)
        self.note(f"replayed {self.output}", distance)
        strategy.loss = strategy.loss + self.weight * distance

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remember the minibatch."""
        if self._next is not None:
            self.memory.take(self._next)
            self._next = None

    def _network(self, strategy: Any) -> Network:
        """Return f; plugins that watch the method's own forward pass do not see it."""
        parts = [needed_backbone(strategy.model, "DERPlugin")]
        if self.output == "embeddings":
            parts.append(unwatched(_projector(strategy.model)))

        def network(images: Tensor) -> Tensor:
            with strategy.autocast(), self._mode.running(parts):
                for part in parts:
                    images = part(images)
            return images if images.dtype == torch.float64 else images.float()

        return network


def _projector(model: nn.Module) -> nn.Module:
    found = named_part(model, "projector")
    if found is None:
        raise IncompatiblePluginError(
            f"DERPlugin(output='embeddings'): {type(model).__name__} has no module called "
            "projector: use output='features'"
        )
    return found


def unwatched(module: nn.Module) -> nn.Module:
    """Return a module of the same parts whose calls are not those of the first one.

    A watching plugin keeps as many outputs as there are views: of the backbone
    it has them all when DER begins, but a method may project fewer (ReSSL).

    :param module: its parameters, buffers and inner modules are shared.
    """
    found = copy.copy(module)
    found._forward_hooks = OrderedDict()
    return found
