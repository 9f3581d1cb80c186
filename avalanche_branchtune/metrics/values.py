"""What a metric's value is, whatever Avalanche wraps around it."""

from __future__ import annotations

import io
from typing import Any

from avalanche.evaluation.metric_results import AlternativeValues, TensorImage
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image


def unwrapped(value: Any) -> Any:
    """Return a metric's value as number, text, tensor, Pillow's image or matplotlib's figure.

    :param value: of a ``MetricValue``; of several alternatives one is taken; what is none of these
        kinds stays as it is.
    """
    from matplotlib.figure import Figure  # Avalanche imports it; this package's metrics need not

    if isinstance(value, AlternativeValues):
        kinds = (bool, int, float, str, Tensor, Image.Image, TensorImage, Figure)
        value = value.best_supported_value(*kinds)
    return to_pil_image(value.image) if isinstance(value, TensorImage) else value


def as_picture(value: Any) -> Image.Image | None:
    """Return Pillow's image of an image or a figure, None of anything else.

    :param value: see :func:`unwrapped`.
    """
    if isinstance(value, Image.Image):
        return value
    if not hasattr(value, "savefig"):
        return None
    content = io.BytesIO()
    value.savefig(content, format="png")
    return Image.open(content)
