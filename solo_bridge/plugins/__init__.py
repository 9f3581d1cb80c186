"""The neighbouring methods as plugins, in families; each registers its name where it stands."""

from avalanche_branchtune import BranchTuningPlugin, FixedNormsPlugin
from solo_bridge.plugins.distillation import (
    CaSSLePlugin,
    FeatureDistillationPlugin,
    KaizenPlugin,
    LwFPlugin,
    PFRPlugin,
)
from solo_bridge.plugins.partial import (
    CLRPlugin,
    KappaTunePlugin,
    NaPPlugin,
    PeriodicFineTuningPlugin,
)
from solo_bridge.plugins.regularizers import (
    L2Plugin,
    SelfSupervisedEWCPlugin,
    SelfSupervisedMASPlugin,
    SelfSupervisedSIPlugin,
)
from solo_bridge.plugins.rehearsal import DERPlugin, LUMPPlugin, replay
from solo_bridge.registry import register

# These do not know of this package.
register("branch_tuning", "Branch-tuning")(BranchTuningPlugin)
register("fixed_norms", "fixed BN")(FixedNormsPlugin)

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
