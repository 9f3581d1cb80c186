"""solo-learn's configuration files, as its main branch reads them."""

from solo_bridge.config.settings import SoloConfig, settings_from_config
from solo_bridge.config.sources import Config

__all__ = ["Config", "SoloConfig", "settings_from_config"]
