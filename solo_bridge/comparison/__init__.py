"""Strategies side by side: one stream, one seed, a record of each."""

from solo_bridge.comparison.settings import REFERENCE, Comparison
from solo_bridge.comparison.together import COMBINATIONS, compare, everything

__all__ = ["COMBINATIONS", "REFERENCE", "Comparison", "compare", "everything"]
