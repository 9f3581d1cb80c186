"""Import solo-learn and choose the adapter for its API generation."""

from __future__ import annotations

import importlib
import inspect
import warnings
from functools import lru_cache

from avalanche_branchtune.errors import UnsupportedSoloLearnError
from solo_bridge.compat.detect import HOW, find, pl_bolts_for
from solo_bridge.compat.generation import Generation
from solo_bridge.compat.main_branch import MainBranch
from solo_bridge.compat.release_1_0_2 import Release102


@lru_cache(maxsize=1)
def load() -> Generation:
    """Import solo-learn and return the adapter for its API generation.

    :return: the adapter.
    :raises UnsupportedSoloLearnError: if it is missing, cannot be imported or
        has an API that is not known; says what to do.
    """
    found = find()
    if found.location is None:
        raise UnsupportedSoloLearnError(f"solo_bridge needs solo-learn. {HOW}")
    try:
        with warnings.catch_warnings(), pl_bolts_for(found):
            warnings.simplefilter("ignore")
            base = importlib.import_module("solo.methods.base")
            methods = importlib.import_module("solo.methods")
    except ImportError as error:
        raise UnsupportedSoloLearnError(
            f"solo-learn at {found.location} cannot be imported: {error}. {HOW}"
        ) from error
    arguments = inspect.signature(base.BaseMethod.__init__).parameters
    if "cfg" in arguments:
        return MainBranch(found, methods.METHODS)
    if {"encoder", "backbone_args"} <= set(arguments):
        return Release102(found, methods.METHODS)
    raise UnsupportedSoloLearnError(
        f"solo-learn {found.version or 'of unknown version'} at {found.location} has an API "
        f"that is not known (neither release 1.0.2 nor the main branch). {HOW}"
    )
