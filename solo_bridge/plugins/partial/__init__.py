"""Plugins under which a part of the network learns, or learns in another way."""

from solo_bridge.plugins.partial.clr import CLRPlugin
from solo_bridge.plugins.partial.kappatune import KappaTunePlugin
from solo_bridge.plugins.partial.nap import NaPPlugin
from solo_bridge.plugins.partial.periodic import PeriodicFineTuningPlugin

__all__ = ["CLRPlugin", "KappaTunePlugin", "NaPPlugin", "PeriodicFineTuningPlugin"]
