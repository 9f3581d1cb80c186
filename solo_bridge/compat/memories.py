"""What solo-learn's methods remember beside their weights: schedules, queues, prototypes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from solo_bridge.compat.parts import prototype_heads
from solo_bridge.compat.schedule import Place


def restart(solo: Any, epochs: int, batch_size: int, place: Place | None = None) -> None:
    """Tell a method how long an experience is, and start its momentum schedule anew.

    By :attr:`Plan.place <solo_bridge.interface.Plan>` the schedule is one of the whole stream
    instead: it starts in its first experience, and stays at its first value if nobody knows how
    long the stream is.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/utils/momentum.py, MomentumUpdater.
    Authors' code: DonkeyShot21/cassle b5b0929, main_pretrain.py, which makes a new one each time.

    :param solo: solo-learn's module.
    :param epochs: epochs of the experience.
    :param batch_size: samples in a minibatch.
    :param place: where the experience stands in its stream.
    """
    solo.max_epochs = epochs
    solo.batch_size = batch_size
    updater = getattr(solo, "momentum_updater", None)
    if updater is not None:
        # It ends at its last value (1.0: nothing moves any more).
        if place is None or place.whole is None or place.begun == 0:
            updater.cur_tau = updater.base_tau
        if place is None:
            vars(updater).pop("update_tau", None)
        else:
            updater.update_tau = partial(_over_stream, updater, place.begun, place.own, place.whole)


def _over_stream(
    updater: Any, begun: int, own: int, whole: int | None, cur_step: int, max_steps: int
) -> None:
    """Take the place of ``MomentumUpdater.update_tau``, by the steps of a stream."""
    if whole is not None:
        step = Place(begun, own, whole).at(cur_step, max_steps)
        type(updater).update_tau(updater, cur_step=step, max_steps=whole)


def rewind_queue(solo: Any) -> None:
    """Let a method store its next embeddings at the begin of its queue.

    :param solo: solo-learn's module; left alone if it has no such queue.
    """
    if hasattr(solo, "queue_ptr"):
        solo.queue_ptr.zero_()


@torch.no_grad()
def clear_queues(solo: Any) -> None:
    """Fill a method's queue as its constructor did: random unit vectors, no labels.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/methods/mocov2plus.py, nnclr.py and others,
    ``register_buffer("queue", …)``.

    :param solo: solo-learn's module; left alone if it has no such queue.
    """
    if not hasattr(solo, "queue_ptr"):
        return
    solo.queue.copy_(F.normalize(torch.randn_like(solo.queue), dim=1))
    rewind_queue(solo)
    for name in ("queue_y", "queue_index"):
        if hasattr(solo, name):
            getattr(solo, name).fill_(-1)


def why_not_batch(solo: Any, samples: int) -> str | None:
    """Say why a method cannot take a minibatch, None if it can.

    :param solo: solo-learn's module.
    :param samples: N.
    """
    if hasattr(solo, "queue_ptr") and samples > solo.queue_size:
        return (
            f"the queue of {solo.queue_size} takes at most as many samples at once, the minibatch "
            f"has {samples}"
        )
    part = int(getattr(solo, "whitening_size", 1))
    if samples % part:
        below, above = samples - samples % part, samples - samples % part + part
        near = f"{above} is the smallest that fits"
        if below:
            near = f"{below} and {above} are the nearest that fit"
        return (
            f"it whitens {part} samples at once, the minibatch has {samples}, no multiple of "
            f"whitening_size={part}: {near}"
        )
    return None


@torch.no_grad()
def clear_prototypes(solo: Any) -> None:
    """Draw a method's prototypes anew, as ``nn.Linear`` does.

    :param solo: solo-learn's module; DINO's ``momentum_head`` must stay like its
        ``head``; methods without prototypes are left alone.
    """
    for layer in prototype_heads(solo):
        _redraw(layer)
    if hasattr(solo, "momentum_head"):
        target = dict(solo.momentum_head.last_layer.named_parameters())
        for name, p in solo.head.last_layer.named_parameters():
            target[name].copy_(p)


def _redraw(layer: nn.Module) -> None:
    for module in layer.modules():
        weight = getattr(module, "weight_v", None)
        if weight is not None:
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        elif isinstance(module, nn.Linear):
            module.reset_parameters()


def detach_normed_weights(model: nn.Module) -> None:
    """Cut weights that old-style weight norm computes from the graph of the last forward pass.

    They are recomputed in every forward pass; until then a model that holds
    one with a history cannot be deep-copied (SwAV's and DINO's prototypes).

    :param model: any module.
    """
    for module in model.modules():
        if "weight_v" in module._parameters and isinstance(module.weight, torch.Tensor):
            module.weight = module.weight.detach()
