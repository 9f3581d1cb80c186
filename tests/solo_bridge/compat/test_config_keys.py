"""The tables of solo-learn's keys and defaults."""

from __future__ import annotations

from solo_bridge.compat.config_keys import LEFT_OUT
from solo_bridge.defaults import DEFAULTS


def test_table_of_defaults_holds_known_settings_only() -> None:
    for name, options in LEFT_OUT.items():
        ours = DEFAULTS[name].method_kwargs
        assert options.keys() <= ours.keys()
        assert all(ours[key] != value for key, value in options.items()), "else it is not needed"
