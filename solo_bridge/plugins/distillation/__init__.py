"""Plugins that keep outputs near those of a frozen copy of the network: the teacher."""

from solo_bridge.plugins.distillation.cassle import CaSSLePlugin
from solo_bridge.plugins.distillation.features import FeatureDistillationPlugin
from solo_bridge.plugins.distillation.kaizen import KaizenPlugin
from solo_bridge.plugins.distillation.lwf import LwFPlugin
from solo_bridge.plugins.distillation.pfr import PFRPlugin

__all__ = [
    "CaSSLePlugin",
    "FeatureDistillationPlugin",
    "KaizenPlugin",
    "LwFPlugin",
    "PFRPlugin",
]
