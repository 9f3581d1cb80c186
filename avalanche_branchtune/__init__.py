"""Branch-tuning for any Avalanche strategy.

Liu, Zhu, Liu, "Branch-Tuning: Balancing Stability and Plasticity for Continual
Self-Supervised Learning", arXiv 2403.18266.
"""

from typing import TYPE_CHECKING

from avalanche_branchtune.lazy import exports

if TYPE_CHECKING:
    from avalanche_branchtune.branches import BranchConv2d, BranchLinear
    from avalanche_branchtune.fixed_norms import FixedNormsPlugin
    from avalanche_branchtune.norms import fix_norms, restore_norms
    from avalanche_branchtune.plugin import BranchTuningPlugin
    from avalanche_branchtune.surgery import (
        Expansion,
        compress,
        expand,
        folded_state_dict,
        is_expanded,
    )

__version__ = "0.1.0"

__all__ = [
    "BranchConv2d",
    "BranchLinear",
    "BranchTuningPlugin",
    "Expansion",
    "FixedNormsPlugin",
    "compress",
    "expand",
    "fix_norms",
    "folded_state_dict",
    "is_expanded",
    "restore_norms",
]

__getattr__ = exports(
    __name__,
    {
        **dict.fromkeys(("BranchConv2d", "BranchLinear"), "branches"),
        **dict.fromkeys(("fix_norms", "restore_norms"), "norms"),
        "BranchTuningPlugin": "plugin",
        "FixedNormsPlugin": "fixed_norms",
        **dict.fromkeys(
            ("Expansion", "compress", "expand", "folded_state_dict", "is_expanded"), "surgery"
        ),
    },
)
