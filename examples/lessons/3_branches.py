# %% [markdown]
# # 3 · Branch-tuning by hand
#
# **Time:** 60 minutes; the computer needs a few seconds of them.
#
# **Afterwards you know** what a branch is, why it can be merged without a trace, and what exactly
# changes in a kernel while its branches learn. You will have written all of it yourself, for one
# convolution, and compared it with the library.

# %%
# In a hosted notebook (Colab, Kaggle): take the # of %pip away and run this cell once. Until there
# is a release, upload the wheel that `make dist` builds and give its file: "./NAME.whl[solo]".
# %pip install -q "avalanche-branchtune[solo]"
# %pip install -q --no-deps solo-learn==1.0.2

# %%
import warnings

warnings.filterwarnings("ignore")  # of the libraries, about their own insides

# %%
import copy

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

from avalanche_branchtune import compress, expand
from solo_bridge.lessons import check

torch.set_num_threads(1)  # more would round sums otherwise, and crawl on a busy machine

# %% [markdown]
# ## One fact about convolutions
#
# A convolution is *linear in its kernel*: the sum of what two kernels give is what their sum gives.
#
# $$ W * x + B * x = (W + B) * x $$

# %%
torch.manual_seed(0)
images = torch.randn(2, 3, 8, 8)
one, other = torch.randn(2, 4, 3, 3, 3)  # two kernels: 3 channels to 4, 3 × 3
apart = F.conv2d(images, one, padding=1) + F.conv2d(images, other, padding=1)
together = F.conv2d(images, one + other, padding=1)
print("largest difference:", float((apart - together).abs().max()))

# %% [markdown]
# It is not exactly zero, only some millionths: computers round.
#
# ## Branches
#
# *Branch-tuning* (Liu, Zhu and Liu 2024) uses this fact. When new data come, the kernel `W` that was
# learnt on the old ones stands still. Beside it two small kernels learn: one of 1 × 3, one of 3 × 1.
# These are its *branches*.
#
# Both begin at zero. So at first nothing changes: the network computes what it computed before.
# This step is called *expansion*.
#
# A 1 × 3 kernel is nothing but a 3 × 3 kernel with zeros in its upper and its lower row. This makes it
# possible to add it to `W` at the end. That step is called *compression*.
#
# **Exercise 1.** Write a branch as a kernel of full size. The branch has the shape `(O, I, h, w)`: for
# each of `O` outputs and `I` inputs a small kernel. It belongs into the middle. `F.pad` helps.

# %%
def as_kernel(branch, k):
    ...  # your lines: a tensor (O, I, k, k)


check("branch as a kernel", as_kernel)

# %% [markdown]
# **Exercise 2.** Merge a kernel `(O, I, 3, 3)` with its branches. `branches` is a list: the 1 × 3 one, then
# the 3 × 1 one.

# %%
def merge(kernel, branches):
    ...  # your lines: a tensor of the kernel's shape


check("merge", merge)

# %% [markdown]
# **Exercise 3.** How many numbers learn in a convolution's branches? Mind the kernels of 1 × 1: there
# the 1 × k and the k × 1 branch are the same, and one is enough.

# %%
def how_many(inputs, outputs, k):
    ...  # your lines: a number


check("how many numbers learn", how_many)

# %% [markdown]
# ## A convolution with branches
#
# Here it is as a module. It adds what the branches give to what the kernel gives, as the paper draws
# it. `requires_grad_(False)` makes the kernel stand still.

# %%
class ByHand(nn.Module):
    def __init__(self, convolution):
        super().__init__()
        self.convolution = convolution.requires_grad_(False)
        outputs, inputs, _, _ = convolution.weight.shape
        self.wide = nn.Parameter(torch.zeros(outputs, inputs, 1, 3))
        self.high = nn.Parameter(torch.zeros(outputs, inputs, 3, 1))

    def forward(self, x):
        wide = F.conv2d(x, self.wide, padding=(0, 1))
        high = F.conv2d(x, self.high, padding=(1, 0))
        return self.convolution(x) + wide + high


original = nn.Conv2d(3, 4, 3, padding=1, bias=False)
mine = ByHand(copy.deepcopy(original))
print("before training, the same:", torch.equal(mine(images), original(images)))

# %% [markdown]
# Now the library's way. `expand` does it to every convolution of a network, in place. It adds the
# *kernels* before the convolution, not the outputs after it: one convolution instead of three.

# %%
library = nn.Sequential(copy.deepcopy(original))
expand(library)
print(library)
for name, parameter in library.named_parameters():
    print(f"{name:<16} {tuple(parameter.shape)!s:<14} learns: {parameter.requires_grad}")

# %% [markdown]
# ## Both learn
#
# Both get the same task: to compute what a third convolution computes, which they do not know. Same
# images, same optimizer, same number of steps.

# %%
target = nn.Conv2d(3, 4, 3, padding=1, bias=False).requires_grad_(False)


def train(network, steps=200):
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1, momentum=0.9)
    draw = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x = torch.randn(16, 3, 8, 8, generator=draw)
        loss = F.mse_loss(network(x), target(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


by_hand, by_library = train(mine), train(library)
freely = train(copy.deepcopy(original))

figure, axis = plt.subplots(figsize=(6, 3.2))
axis.semilogy(freely, "-.", color="grey", label="the kernel itself learns")
axis.semilogy(by_hand, "-", linewidth=4, alpha=0.4, label="branches, by hand")
axis.semilogy(by_library, "--", color="black", linewidth=1, label="branches, the library's")
axis.set_xlabel("step")
axis.set_ylabel("loss")
axis.legend(fontsize=8)
figure.tight_layout()
plt.show()

# %% [markdown]
# *Figure 1. The two curves with branches lie upon each other. They do not reach what a free kernel
# reaches: there is something that branches cannot learn. Figure 2 shows what.*
#
# ## Compression
#
# `compress` merges the library's branches. What is left is an ordinary `nn.Conv2d`.

# %%
compress(library)
print(library)


def merged_by_torch(module):  # replace it by your own merge, and the difference should stay
    kernel = module.convolution.weight + F.pad(module.wide, (0, 0, 1, 1))
    return kernel + F.pad(module.high, (1, 1, 0, 0))


with torch.no_grad():
    difference = float((merged_by_torch(mine) - library[0].weight).abs().max())
print("largest difference of the kernels:", difference)
assert difference < 1e-6

# %% [markdown]
# Does the merged kernel compute what kernel and branches computed together?

# %%
with torch.no_grad():
    difference = float((mine(images) - library(images)).abs().max())
print("largest difference of the outputs:", difference)

# %% [markdown]
# ## What changed, and what cannot

# %%
with torch.no_grad():
    change = (library[0].weight - original.weight).abs().mean(dim=(0, 1))
    wished = (target.weight - original.weight).abs().mean(dim=(0, 1))
figure, axes = plt.subplots(1, 2, figsize=(6, 3))
for axis, (title, values) in zip(axes, {"wished for": wished, "learnt": change}.items()):
    axis.imshow(values, cmap="Oranges", vmin=0, vmax=float(wished.max()) * 1.2)
    for row in range(3):
        for column in range(3):
            axis.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center")
    axis.set_title(title, fontsize=10)
    axis.set_xticks([])
    axis.set_yticks([])
figure.tight_layout()
plt.show()
print("the corners moved:", bool(change[::2, ::2].any()))

# %% [markdown]
# *Figure 2. How far the kernel's nine places moved, mean over channels. Left: how far they would have
# to, to be the target. Right: how far they did.*
#
# A cross: five of nine places learn. The corners are exactly what they were. This is how Branch-tuning
# trades *plasticity*, the power to learn, for *stability*, the power to keep.
#
# ## From one layer to a network
#
# In a network there are two more things, and the library takes care of both.
#
# - **Normalisation.** BatchNorm has a weight and a bias for each channel. They were learnt on the old
#   data; so they stand still, too (`fix_norms`).
# - **When.** The first experience is learnt as ever; there is nothing to keep yet. Before each later one
#   the network is expanded, after it compressed. `BranchTuningPlugin` does that in any of Avalanche's
#   strategies. The network has the same size at the end of the stream as at its beginning.
#
# **What this does not show.** That Branch-tuning helps. One convolution had one made-up task here; what
# the trade is worth in a network, on a stream, is a matter of measuring.
#
# **Exercise 4, without a check.** What is left of the loss in figure 1, and why? Compute it from
# `target.weight - original.weight` for random images whose pixels are independent, and compare. (`wished` does
# not help: it is a mean of absolute values, and you need squares, summed for each output channel.)
#
# **Exercise 5, without a check.** `expand(network, "3x3")` has branches of the kernel's own size. Do
# they learn what a free kernel learns? What is stable about them, then?
#
# ## To read
#
# - Liu, Zhu and Liu, *Branch-Tuning*, [arXiv 2403.18266](https://arxiv.org/abs/2403.18266), Section 4.
# - Ding et al., *RepVGG*, [arXiv 2101.03697](https://arxiv.org/abs/2101.03697): merging branches for
#   another purpose.
# - `avalanche_branchtune/branches.py`: the arithmetic in the library, one file.
