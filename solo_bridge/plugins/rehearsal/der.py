"""Dark Experience Replay: remembered images keep the embeddings they once had."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_branchtune.errors import ViewsError
from avalanche_branchtune.experiences import experience_key
from avalanche_branchtune.keeping import evaluating, looked_at, random_state_kept
from avalanche_branchtune.options import at_least_one, positive
from avalanche_branchtune.parts import named_part, needed_backbone
from solo_bridge.plugins.rehearsal.plain_images import plain_batches
from solo_bridge.plugins.rehearsal.reservoir import Reservoir
from solo_bridge.registry import register


@register("der", "DER")
class DERPlugin(SupervisedPlugin):
    """Buzzega et al., "Dark Experience for General Continual Learning", arXiv 2004.07211.

    Of logits there, of embeddings here: ``loss + λ · mean (f(x) − z)²``, mean
    over the batch of remembered images x and the entries of their embeddings;
    f is backbone and projector (the backbone alone if there is no projector),
    z what f gave for x when x was stored.  It begins with the second experience.

    Stored is, for a uniform sample of the stream so far (a reservoir that is
    updated when an experience ends, after branches were merged): the image
    without augmentation, as a tensor
    (:func:`solo_bridge.plugins.rehearsal.plain_images.plain_batches`), and z, computed in
    eval mode.  Both are stored, not made anew, so that x is exactly what z
    belongs to and nothing needs the old data.  The oldest z are kept as they
    are, though the network moves on.

    f runs in eval mode, with gradients: BatchNorm takes its running statistics
    and does not change them, so that the term is 0 for a network whose weights
    and statistics did not change, whatever else is in the batch, and unaugmented
    images leave no trace in the statistics.  Norms that
    :class:`~avalanche_branchtune.BranchTuningPlugin` fixed stay as they are, and
    plugins that watch the method's forward pass do not see this one.

    Authors' code: aimagelab/mammoth e75a491, models/der.py, Der.observe.  For self-supervision, as
    a baseline of LUMP's authors: divyam3897/UCL cfaa81d, models/der.py, Der.observe.
    Differs: mammoth keeps logits and UCL backbone features, ours keeps embeddings.
    Differs: theirs store what the training step gave, ours what eval mode gives at the
    experience's end.
    Differs: theirs replay augmented images in training mode, ours plain ones in eval mode.
    Differs: theirs begin with the second minibatch, ours with the second experience.
    Differs: mammoth requires λ (0.3 in models/config/der.yaml) and UCL has 0.4, ours is 1 by
    default.
    Differs: UCL replays as many images as a batch has (256), ours 32 by default.

    :param weight: λ.  Embeddings of methods that compare directions only may
        have any length: tune it.
    :param memory: number of images and embeddings that are remembered.
    :param batch_size: remembered images in each iteration.
    :raises UnknownOptionError: for numbers that are not positive.
    :raises IncompatiblePluginError: when training begins, for a method without
        a module called ``backbone``.
    :raises ViewsError: for images that are not of one shape without augmentation.
    """

    supports_distributed = False

    def __init__(self, weight: float = 1.0, *, memory: int = 256, batch_size: int = 32) -> None:
        """See the class."""
        super().__init__()
        self.weight = positive("DERPlugin(weight=…)", weight)
        self.batch_size = at_least_one("DERPlugin(batch_size=…)", batch_size)
        self.reservoir = Reservoir(memory, "DERPlugin(memory=…)")
        self.images: Tensor | None = None
        """What is remembered, ``(M, C, H, W)``, on the CPU."""
        self.embeddings: Tensor | None = None
        """The embeddings that belong to it, ``(M, P)``."""
        self._taken: tuple[str, int] | None = None
        self.terms: dict[str, float] = {}
        """The term of the last minibatch, before it is weighted."""

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what has no backbone before anything is trained."""
        needed_backbone(strategy.model, "DERPlugin")

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse images that could not be remembered before they are trained on."""
        with random_state_kept():
            dataset, model = strategy.experience.dataset, strategy.model
            self._check_shapes([*plain_batches(dataset, [0], model, 1)])

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add the term to the loss."""
        if self.images is None or self.embeddings is None:
            return
        chosen = torch.randperm(len(self.images))[: self.batch_size]
        images, target = (t[chosen].to(strategy.device) for t in (self.images, self.embeddings))
        with strategy.autocast(), evaluating(*_parts(strategy.model)):
            current = embed(strategy.model, images)
        distance = F.mse_loss(current.to(target.dtype), target)
        self.terms["replayed embeddings"] = float(distance.detach())
        strategy.loss = strategy.loss + self.weight * distance

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Update the memory, once if an experience is trained again."""
        key = experience_key(strategy, part=True)
        if key == self._taken:
            return
        dataset, model = strategy.experience.dataset, strategy.model
        draw = self.reservoir.draw(len(dataset))
        images, embeddings = [], []
        with looked_at(model):
            for batch in plain_batches(dataset, draw.enter, model, strategy.eval_mb_size):
                images.append(batch)
                found = embed(model, batch.to(strategy.device)).cpu()
                embeddings.append(found if found.dtype == torch.float64 else found.float())
        self._check_shapes(images)
        if self.images is not None and self.embeddings is not None:
            images.insert(0, self.images[draw.stay])
            embeddings.insert(0, self.embeddings[draw.stay])
        self.images, self.embeddings = torch.cat(images), torch.cat(embeddings)
        self.reservoir.take(draw)
        self._taken = key

    def _check_shapes(self, batches: list[Tensor]) -> None:
        known = [] if self.images is None else [self.images]
        shapes = {tuple(batch.shape[1:]) for batch in known + batches}
        if len(shapes) > 1:
            raise ViewsError(
                f"DERPlugin remembers images of one shape, the stream has {sorted(shapes)} without "
                "augmentation: give all its experiences the same eval_transform"
            )


def embed(model: nn.Module, images: Tensor) -> Tensor:
    """Return a method's embeddings, or its features if it has no projector.

    :param model: the method.
    :param images: ``(N, C, H, W)``.
    :return: ``(N, P)`` or ``(N, D)``.
    """
    backbone, *projector = _parts(model)
    features: Tensor = backbone(images)
    return projector[0](features) if projector else features


def _parts(model: nn.Module) -> list[nn.Module]:
    """Return backbone and, if there is one, projector."""
    found = (named_part(model, name) for name in ("backbone", "projector"))
    return [module for module in found if module is not None]
