"""solo-learn's methods over Avalanche's streams.

Using its names needs solo-learn; ``branchtune doctor`` says what is there,
what will work and what to do.
"""

from typing import TYPE_CHECKING, Any

from avalanche_branchtune.lazy import exports

if TYPE_CHECKING:
    from solo_bridge.augmentation import Augmentation
    from solo_bridge.checkpoint import (
        load_solo_checkpoint,
        save_backbone,
        save_solo_checkpoint,
    )
    from solo_bridge.config import settings_from_config
    from solo_bridge.interface import SelfSupervisedMethod
    from solo_bridge.method import SoloMethod, available_methods
    from solo_bridge.processes import Processes
    from solo_bridge.references import FineTuning, Frozen, Joint, Kaizen
    from solo_bridge.specification import build, register
    from solo_bridge.strategy import SelfSupervised
    from solo_bridge.views import BatchedViews, EvalTransform, solo_views

__all__ = [
    "Augmentation",
    "BatchedViews",
    "EvalTransform",
    "FineTuning",
    "Frozen",
    "Joint",
    "Kaizen",
    "Processes",
    "SelfSupervised",
    "SelfSupervisedMethod",
    "SoloMethod",
    "available_methods",
    "build",
    "load_solo_checkpoint",
    "register",
    "save_backbone",
    "save_solo_checkpoint",
    "settings_from_config",
    "solo_views",
]

_HOMES = {
    "Augmentation": "augmentation",
    **dict.fromkeys(("load_solo_checkpoint", "save_backbone"), "checkpoint"),
    "save_solo_checkpoint": "checkpoint",
    "settings_from_config": "config",
    "SelfSupervisedMethod": "interface",
    **dict.fromkeys(("SoloMethod", "available_methods"), "method"),
    "Processes": "processes",
    **dict.fromkeys(("FineTuning", "Frozen", "Joint", "Kaizen"), "references"),
    **dict.fromkeys(("build", "register"), "specification"),
    "SelfSupervised": "strategy",
    **dict.fromkeys(("BatchedViews", "EvalTransform", "solo_views"), "views"),
}
_find = exports(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    """Return a public name, or say what to install; commands import modules instead."""
    if name in _HOMES:
        from solo_bridge.compat import load

        load()
    return _find(name)
