"""The record of a run, which metrics write and reports read.

It knows neither of them: ``metrics → records ← report``.
"""

from avalanche_branchtune.evaluation.traces import Trace
from avalanche_branchtune.records.comparable import check_comparable, check_run, check_same
from avalanche_branchtune.records.environment import environment, peak_memory_mib
from avalanche_branchtune.records.probe import ProbeRecord
from avalanche_branchtune.records.reading import load_run
from avalanche_branchtune.records.run import Run
from avalanche_branchtune.records.sample import FeatureSample

__all__ = [
    "FeatureSample",
    "ProbeRecord",
    "Run",
    "Trace",
    "check_comparable",
    "check_run",
    "check_same",
    "environment",
    "load_run",
    "peak_memory_mib",
]
