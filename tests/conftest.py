"""Settings of the whole suite."""

from types import SimpleNamespace
from warnings import warn

import avalanche._annotations
import torch

# At each call of something deprecated, Avalanche's decorator sets one filter for every
# DeprecationWarning; those of pyproject.toml would end there.
avalanche._annotations.warnings = SimpleNamespace(warn=warn, simplefilter=lambda *args: None)

# Of some things torch warns once in a process: which test fails must not depend on their order.
torch.set_warn_always(True)

# The tensors here are tiny: more threads only wait for one another.
torch.set_num_threads(1)

# Scripts of the Makefile: pytest must not import them in search of doctests.
collect_ignore = ["check_dist.py", "check_installed.py"]
