"""Tables and plots from a run's records."""

from avalanche_branchtune.records import (
    FeatureSample,
    ProbeRecord,
    Run,
    Trace,
    environment,
    load_run,
    peak_memory_mib,
)
from avalanche_branchtune.report.groups import Group, Statistic, group_runs
from avalanche_branchtune.report.page import write_report
from avalanche_branchtune.report.tables import text_table

__all__ = [
    "FeatureSample",
    "Group",
    "ProbeRecord",
    "Run",
    "Statistic",
    "Trace",
    "environment",
    "group_runs",
    "load_run",
    "peak_memory_mib",
    "text_table",
    "write_report",
]
