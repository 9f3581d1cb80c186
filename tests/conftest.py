"""Settings of the whole suite."""

import torch

# The tensors here are tiny: more threads only wait for one another.
torch.set_num_threads(1)
