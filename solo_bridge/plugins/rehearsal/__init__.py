"""Plugins that store samples of the stream: replay, mixing, and their embeddings."""

from solo_bridge.plugins.rehearsal.der import DERPlugin
from solo_bridge.plugins.rehearsal.lump import LUMPPlugin
from solo_bridge.plugins.rehearsal.replay import replay

__all__ = ["DERPlugin", "LUMPPlugin", "replay"]
