"""Many-view data: from images to the list of augmented views that a method compares."""

from solo_bridge.views.batched import BatchedViews
from solo_bridge.views.decoded import Decode, Decoded
from solo_bridge.views.memory import InMemory, in_memory
from solo_bridge.views.pipelines import EvalTransform, Views, solo_views, to_rgb
from solo_bridge.views.samples import as_view_list, check_views, with_views, yields_views

__all__ = [
    "BatchedViews",
    "Decode",
    "Decoded",
    "EvalTransform",
    "InMemory",
    "Views",
    "as_view_list",
    "check_views",
    "in_memory",
    "solo_views",
    "to_rgb",
    "with_views",
    "yields_views",
]
