"""One file per solo-learn API generation; nothing else in the project tests versions."""

from solo_bridge.compat.detect import COMMANDS, Found, find
from solo_bridge.compat.generation import Generation
from solo_bridge.compat.loading import load
from solo_bridge.compat.settings import MethodSettings

__all__ = ["COMMANDS", "Found", "Generation", "MethodSettings", "find", "load"]
