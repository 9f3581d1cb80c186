"""The features that a network computes, on the way or for further images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from avalanche_branchtune.errors import ProbeError


class Listener:
    """Copies what a module gives, from :meth:`begin` to :meth:`end`; nothing stays on it."""

    def __init__(self) -> None:
        """See the class."""
        self._handle: RemovableHandle | None = None
        self._outputs: list[Any] = []

    def begin(self, module: nn.Module) -> None:
        """Listen to a module.

        :param module: the one that gives features.
        """
        self.forget()
        self._handle = module.register_forward_hook(self._catch)

    def end(self) -> None:
        """Listen no more."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def forget(self) -> None:
        """Listen no more, and forget what was heard."""
        self.end()
        self._outputs = []

    def features(self, samples: int) -> list[Tensor]:
        """Return the outputs that are features of a whole minibatch, once.

        :param samples: N.
        :return: tensors ``(N, D)`` in float32.
        :raises ProbeError: if there are none.
        """
        outputs, self._outputs = self._outputs, []
        views = [x for x in outputs if isinstance(x, Tensor) and x.shape[:1] == (samples,)]
        views = [x for x in views if x.ndim == 2]
        if not views:
            raise _no_features(samples, outputs, "the training forward pass")
        return views

    def _catch(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            # A copy: what follows the backbone may change its output in place.
            output = output.detach().to(torch.float32, copy=True)
        self._outputs.append(output)


def features_of(network: nn.Module, images: Tensor) -> Tensor:
    """Return a network's features of further images, in the mode that it is in.

    :param network: the module that gives features.
    :param images: ``(N, C, H, W)``.
    :return: ``(N, D)``.
    :raises ProbeError: if they are none.
    """
    features = network(images)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
        raise _no_features(len(images), [features], "the labelled images' forward pass")
    return features


def _no_features(samples: int, outputs: list[Any], where: str) -> ProbeError:
    shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in outputs]
    return ProbeError(
        f"online probe: expected features ({samples}, D), the backbone gave "
        f"{shapes[:3] or 'nothing: it was not called'} in {where}: pass OnlineProbe(backbone=…), "
        "the module that gives them"
    )
