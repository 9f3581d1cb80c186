"""What :class:`solo_bridge.SelfSupervised` trains: the interface of a self-supervised method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune.parts import named_part
from solo_bridge.augmentation import Augmentation
from solo_bridge.compat.schedule import Place
from solo_bridge.views import Views


@dataclass(frozen=True)
class Plan:
    """What one experience will be.

    :param steps_per_epoch: iterations in an epoch.
    :param epochs: number of epochs.
    :param samples: number of samples.
    :param batch_size: samples in a minibatch.
    :param place: where it stands in its stream, if what a method counts in steps (the rate of a
        momentum network) is to go on over the whole of it.
    """

    steps_per_epoch: int
    epochs: int
    samples: int
    batch_size: int
    place: Place | None = None


class SelfSupervisedMethod(nn.Module):
    """What :class:`solo_bridge.SelfSupervised` trains: views in, loss out.

    A method of one's own needs :meth:`loss` and, for probes, :meth:`forward`;
    the other hooks do nothing by default.  Plugins that distil also ask for the
    modules ``backbone`` and, where there is one, ``projector``, each of which
    :meth:`loss` calls once for each view.
    """

    name: str
    """How messages and records call it, and by which plugins choose its form of distillation: by
    default the class's name."""

    image_size: int | None = None
    """Side in pixels to which plugins resize images that are no tensors yet."""

    augmentations: Sequence[Augmentation] = ()
    """Pipelines of its views, whose mean and deviation plugins normalise such images by."""

    large_views: int | None = None
    """Number of full-size views, which come first; None if all are."""

    needs: frozenset[str] = frozenset()
    """Keyword arguments that :meth:`loss` takes: ``"index"`` (N,), the samples' numbers in the
    experience; ``"labels"`` (N,), for supervised methods only."""

    mean_over_samples: bool = False
    """Whether the loss of a minibatch is the mean of its samples' (MAE's): then several processes
    can take each its share without bringing embeddings together."""

    evaluates: bool = True
    """Whether the loss is defined outside training, on other data."""

    optimizer: str = "lars"
    """Optimizer, unless the strategy is given one."""

    optimizer_settings: Mapping[str, Any] = MappingProxyType({})
    """Further fields of :class:`solo_bridge.optim.OptimizerSettings` that it starts from."""

    num_classes: int | None = None
    """Labels must lie below this if it is set; they are checked, never learnt from."""

    lr: float = 0.3
    """Learning rate for a batch of 256, unless the strategy is given one."""

    weight_decay: float = 1e-4
    """Weight decay, unless the strategy is given one."""

    train_epochs: int = 1
    """Epochs of an experience, unless the strategy is given them."""

    train_mb_size: int = 256
    """Images in a minibatch, unless the strategy is given them."""

    precision: str = "32"
    """Precision, unless the strategy is given one."""

    channels_last: bool | None = None
    """Memory format, unless the strategy is given one; None for the method's own way."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let a method be called as its class, unless it says otherwise."""
        super().__init_subclass__(**kwargs)
        cls.name = vars(cls).get("name", cls.__name__)

    def part(self, name: str) -> nn.Module | None:
        """Return the module that the method has under a name, None if it has none.

        :param name: ``"backbone"`` or ``"projector"``.  They are not declared
            here: a class attribute would hide the module of that name.
        """
        return named_part(self, name)

    def prototype_layers(self) -> list[nn.Module]:
        """Return the layers that score embeddings ``(N, P)`` of length 1: ``prototype_heads``."""
        return list(getattr(self, "prototype_heads", ()))

    def spread_networks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return the networks that several processes run each on its share of a minibatch.

        :return: those that give features, and those that follow them and give embeddings, of which
            the loss has the whole minibatch's ``(N, P)`` in each process; for every other size,
            see :func:`solo_bridge.spreading.shares`.
        """
        names = ("backbone", "momentum_backbone"), ("projector", "momentum_projector")
        networks, projectors = ([self.part(name) for name in kind] for kind in names)
        return [n for n in networks if n is not None], [p for p in projectors if p is not None]

    def why_not_batch(self, samples: int) -> str | None:
        """Say why the loss cannot take a minibatch, None if it can.

        :param samples: N.
        """
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Return the backbone's features.

        :param x: images ``(N, C, H, W)``.
        :return: features ``(N, D)``.
        """
        raise NotImplementedError

    def loss(self, views: Sequence[Tensor], **needed: Tensor) -> Tensor:
        """Return the self-supervised loss of a minibatch.

        :param views: tensors ``(N, C, H, W)``, the same images in each.
        :param needed: what :attr:`needs` asks for.
        :return: scalar.
        """
        raise NotImplementedError

    def default_views(self) -> Views | None:
        """Return the transform from an image to its views, or None to leave that to the data."""
        return None

    def check_views(self, views: Sequence[Tensor]) -> None:
        """Refuse views that do not fit; raises :class:`ViewsError`."""

    def use_channels_last(self, use: bool) -> None:
        """Lay kernels ``(O, I, H, W)`` out for channels that come last, or as usual.

        :param use: whether channels come last; the strategy does the same to the views.
        """
        layout = torch.channels_last if use else torch.contiguous_format
        self.to(memory_format=layout)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups: one entry per part, with its own settings."""
        return [{"name": "method", "params": list(self.parameters())}]

    def start_experience(self, plan: Plan) -> None:
        """Begin an experience: counters and schedules start anew.

        :param plan: its lengths.
        """

    def set_steps(self, steps_per_epoch: int) -> None:
        """Learn that a plugin (replay) changed the number of iterations of the coming epochs."""

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 0 in each experience."""

    def expects_nan(self, epoch: int) -> bool:
        """Tell whether a NaN loss is meant to be in this epoch of an experience."""
        return False

    def after_backward(self) -> None:
        """Follow the backward pass, for example by clipping gradients."""

    def after_step(self) -> None:
        """Follow an optimizer step, for example with a momentum update."""
