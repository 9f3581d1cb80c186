"""Settings of the whole suite."""

import torch

# The tensors here are tiny: more threads only wait for one another.
torch.set_num_threads(1)

# A script for an environment without solo-learn: pytest must not import it in search of doctests.
collect_ignore = ["check_installed.py"]
