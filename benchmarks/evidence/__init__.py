"""What the studies support, as a page: ``python -m benchmarks.evidence``."""
