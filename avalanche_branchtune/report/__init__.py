"""Tables and plots from a run's records."""

from avalanche_branchtune.report.record import Curve, Record, environment, peak_memory_mib

__all__ = ["Curve", "Record", "environment", "peak_memory_mib"]
