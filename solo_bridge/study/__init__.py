"""Studies: strategies × streams × schedules × seeds, and what the seeds support."""

from typing import TYPE_CHECKING

from avalanche_branchtune.lazy import exports

if TYPE_CHECKING:
    from solo_bridge.study.plan import Arm, Plan, read_plan
    from solo_bridge.study.results import Results, collect, load_results
    from solo_bridge.study.running import progress, run_study

__all__ = [
    "Arm",
    "Plan",
    "Results",
    "collect",
    "load_results",
    "progress",
    "read_plan",
    "run_study",
]

__getattr__ = exports(
    __name__,
    {
        **dict.fromkeys(("Arm", "Plan", "read_plan"), "plan"),
        **dict.fromkeys(("Results", "collect", "load_results"), "results"),
        **dict.fromkeys(("progress", "run_study"), "running"),
    },
)
