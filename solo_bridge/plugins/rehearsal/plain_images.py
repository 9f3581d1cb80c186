"""Images without augmentation: as the data set gives them, and as probes see them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from avalanche_branchtune.errors import ViewsError
from solo_bridge.views import EvalTransform


def plain_image(dataset: Any, index: int) -> Any:
    """Return an image as a data set gives it, to be kept.

    :param dataset: its items are images, or begin with them.
    :param index: of the image.
    :return: a copy that holds neither an open file nor memory of a larger array.
    """
    item = dataset[index]
    image = item[0] if isinstance(item, tuple | list) else item
    if isinstance(image, Tensor):
        return image.clone()
    return image.copy() if hasattr(image, "copy") else copy.deepcopy(image)


def plain_batches(
    dataset: Any, indices: Sequence[int], model: Any, batch_size: int
) -> Iterator[Tensor]:
    """Yield images under the data set's ``eval`` transforms, ``(N, C, H, W)``.

    A float tensor is taken as it is; of a list of views the first one.  An
    image that is no float tensor yet is resized and normalised as the method's
    views are.

    :param dataset: an Avalanche data set, or any other.
    :param indices: of the images.
    :param model: the method; its ``image_size`` and the mean and deviation of
        its first augmentation make tensors of images.
    :param batch_size: images in a batch.
    :raises ViewsError: for images that neither make into tensors of one shape.
    """
    dataset = dataset.eval() if hasattr(dataset, "with_transforms") else dataset
    remaining = iter(indices)
    while some := list(islice(remaining, batch_size)):
        images = [_tensor(dataset[i], model) for i in some]
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise ViewsError(
                f"images of different shapes without augmentation, {sorted(shapes)}: give the "
                "stream an eval_transform, for example EvalTransform(32)"
            )
        yield torch.stack(images)


def _tensor(item: Any, model: Any) -> Tensor:
    image = item[0] if isinstance(item, list | tuple) else item
    if isinstance(image, list | tuple):
        image = image[0]
    if isinstance(image, Tensor) and image.is_floating_point():
        return image
    size = model.image_size
    if size is None:
        raise ViewsError(
            f"{type(model).__name__} has no image_size, to which images could be resized: give "
            "the stream an eval_transform, for example EvalTransform(32)"
        )
    return EvalTransform.beside(model.augmentations, size)(image)
