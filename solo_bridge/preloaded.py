"""What every process of a comparison needs, imported once by that which they are forked from."""

import contextlib
import warnings

from avalanche_branchtune.errors import BranchTuneError

with warnings.catch_warnings(), contextlib.suppress(BranchTuneError):  # whoever needs it is told
    warnings.simplefilter("ignore")
    from solo_bridge.compat import load

    load()
    import solo_bridge.comparison.together  # noqa: F401
