"""The neighbouring methods as plugins, one file each, and their names in the registry."""

from functools import partial

from avalanche_branchtune import BranchTuningPlugin
from solo_bridge.plugins.cassle import CaSSLePlugin
from solo_bridge.plugins.clr import CLRPlugin
from solo_bridge.plugins.der import DERPlugin
from solo_bridge.plugins.kaizen import KaizenPlugin
from solo_bridge.plugins.kappatune import KappaTunePlugin
from solo_bridge.plugins.lump import LUMPPlugin
from solo_bridge.plugins.lwf import LwFPlugin
from solo_bridge.plugins.nap import NaPPlugin
from solo_bridge.plugins.periodic import PeriodicFineTuningPlugin
from solo_bridge.plugins.pfr import PFRPlugin
from solo_bridge.plugins.regularizers import (
    SelfSupervisedEWCPlugin,
    SelfSupervisedMASPlugin,
    SelfSupervisedSIPlugin,
)
from solo_bridge.plugins.rehearsal_free import FeatureDistillationPlugin, L2Plugin
from solo_bridge.plugins.replay import replay
from solo_bridge.registry import register

register("branch_tuning", "Branch-tuning")(BranchTuningPlugin)
register("cassle", "CaSSLe")(CaSSLePlugin)
register("clr", "CLR")(CLRPlugin)
register("der", "DER")(DERPlugin)
register("ewc", "EWC")(partial(SelfSupervisedEWCPlugin, ewc_lambda=1.0))
register("feature_distillation", "feature distillation")(FeatureDistillationPlugin)
register("kaizen", "Kaizen")(KaizenPlugin)
register("kappatune", "KappaTune")(KappaTunePlugin)
register("l2", "L2 to previous weights")(L2Plugin)
register("lump", "LUMP")(LUMPPlugin)
register("lwf", "LwF")(LwFPlugin)
register("mas", "MAS")(SelfSupervisedMASPlugin)
register("nap", "NaP")(NaPPlugin)
register("periodic", "periodic fine-tuning")(PeriodicFineTuningPlugin)
register("pfr", "PFR")(PFRPlugin)
register("replay", "replay")(replay)
register("replay_class_balanced", "replay, class-balanced")(partial(replay, "class_balanced"))
register("replay_first_per_class", "replay, first 1 %")(partial(replay, "first_per_class"))
register("replay_min_redundancy", "replay, MinRed")(partial(replay, "min_redundancy"))
register("si", "SI")(partial(SelfSupervisedSIPlugin, si_lambda=1.0))

COMBINATIONS = (
    "branch_tuning+cassle",
    "branch_tuning+kaizen",
    "branch_tuning+replay",
    "branch_tuning+pfr",
    "branch_tuning+lump",
    "branch_tuning+der",
    "branch_tuning+ewc",
    "cassle+replay_min_redundancy",
)
"""Strategies of several parts that ``branchtune compare`` compares unless told otherwise."""

__all__ = [
    "CLRPlugin",
    "CaSSLePlugin",
    "DERPlugin",
    "FeatureDistillationPlugin",
    "KaizenPlugin",
    "KappaTunePlugin",
    "L2Plugin",
    "LUMPPlugin",
    "LwFPlugin",
    "NaPPlugin",
    "PFRPlugin",
    "PeriodicFineTuningPlugin",
    "SelfSupervisedEWCPlugin",
    "SelfSupervisedMASPlugin",
    "SelfSupervisedSIPlugin",
    "replay",
]
