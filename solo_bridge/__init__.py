"""solo-learn's methods over Avalanche's streams.

Importing this package needs solo-learn; ``python -m solo_bridge doctor`` says
what is there, what will work and what to do.
"""

import sys as _sys

# `python -m solo_bridge doctor` imports this package first, and must run without solo-learn.
_DOCTOR = _sys.argv[:2] == ["-m", "doctor"] and "solo_bridge" in _sys.orig_argv

if not _DOCTOR:
    from solo_bridge.compat import load as _load

    _load()

    from solo_bridge.augmentation import Augmentation
    from solo_bridge.checkpoint import (
        load_solo_checkpoint,
        save_backbone,
        save_solo_checkpoint,
    )
    from solo_bridge.config import settings_from_config
    from solo_bridge.method import SelfSupervisedMethod, SoloMethod, available_methods
    from solo_bridge.references import FineTuning, Frozen, Joint, Kaizen
    from solo_bridge.registry import build, register
    from solo_bridge.strategy import SelfSupervised
    from solo_bridge.views import EvalTransform, solo_views

    __all__ = [
        "Augmentation",
        "EvalTransform",
        "FineTuning",
        "Frozen",
        "Joint",
        "Kaizen",
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
