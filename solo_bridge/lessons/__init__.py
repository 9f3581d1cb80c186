"""What the lessons of docs/lessons stand on: streams for a laptop, and checks of exercises."""

from typing import TYPE_CHECKING

from avalanche_branchtune.lazy import exports

if TYPE_CHECKING:
    from solo_bridge.lessons.checks import check
    from solo_bridge.lessons.laptop import (
        LAPTOP,
        PHOTOGRAPHS,
        SCANS,
        digit_stream,
        photograph_stream,
        scanned_digits,
        simclr,
    )

__all__ = [
    "LAPTOP",
    "PHOTOGRAPHS",
    "SCANS",
    "check",
    "digit_stream",
    "photograph_stream",
    "scanned_digits",
    "simclr",
]

__getattr__ = exports(  # checks need no solo-learn
    __name__,
    {"check": "checks", **dict.fromkeys(set(__all__) - {"check"}, "laptop")},
)
