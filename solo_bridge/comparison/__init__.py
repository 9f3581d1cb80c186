"""Strategies side by side: one stream, one seed, a record of each."""

from typing import TYPE_CHECKING

from avalanche_branchtune.lazy import exports

if TYPE_CHECKING:
    from solo_bridge.comparison.experiment import REFERENCE
    from solo_bridge.comparison.settings import Comparison
    from solo_bridge.comparison.together import COMBINATIONS, compare, everything

__all__ = ["COMBINATIONS", "REFERENCE", "Comparison", "compare", "everything"]

__getattr__ = exports(
    __name__,
    {
        "REFERENCE": "experiment",
        "Comparison": "settings",
        **dict.fromkeys(("COMBINATIONS", "compare", "everything"), "together"),
    },
)
