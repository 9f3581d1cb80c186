# %% [markdown]
# # 2 · Stability and plasticity, layer by layer
#
# **Time:** 60 minutes; the computer needs about a minute of them.
#
# **Afterwards you know** how two networks are compared layer by layer, what stability and plasticity
# are as numbers, and where three strategies stand between the two: fine-tuning, Branch-tuning, and not
# learning at all.

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
from torch.utils.data import ConcatDataset

from avalanche_branchtune.analysis import linear_cka, stability_plasticity
from avalanche_branchtune.streams import digits_on_photographs
from solo_bridge import build
from solo_bridge.lessons import LAPTOP, PHOTOGRAPHS, check, photograph_stream, simclr

torch.set_num_threads(1)  # more would round sums otherwise, and crawl on a busy machine

# %% [markdown]
# ## When are two networks alike?
#
# Two networks look at the same 100 images. A layer of the first gives 64 numbers for each of them, its
# *features*: a table `X` of 100 rows and 64 columns. The same layer of the second gives a table `Y`.
#
# Comparing `X` with `Y` number by number says little. A network whose channels are in another order
# computes the same, with another table. What matters is which *images* are near each other.
#
# *CKA* (centred kernel alignment; Kornblith et al. 2019) compares just that. First the mean over
# the images is taken away from each column. Then
#
# $$ \mathrm{CKA}(X, Y) = \frac{\lVert X^\top Y \rVert_F^2}
#    {\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F} $$
#
# where $\lVert A \rVert_F$ is the root of the sum of all squared entries of A. CKA is 1 for tables
# that agree up to rotation and scale. For tables that have nothing to do with each other it is near 0, but
# only with many more images than columns: for random tables of 100 × 64, as above, it is about 0.4.
#
# **Exercise 1.** Write it. `x` is `(N, D)`, `y` is `(N, E)`; the answer is one number.

# %%
def alignment(x, y):
    ...  # your lines


check("alignment", alignment)

# %%
draw = torch.Generator().manual_seed(0)
x = torch.randn(100, 8, generator=draw)
cases = {
    "the same": (x, x),
    "channels in another order": (x, x[:, torch.randperm(8, generator=draw)]),
    "twice as large, and moved by 3": (x, 2 * x + 3),
    "half of the channels": (x, x[:, :4]),
    "something else": (x, torch.randn(100, 8, generator=draw)),
    "something else, 64 columns": torch.randn(2, 100, 64, generator=draw),
}
for name, (one, other) in cases.items():
    unbiased = linear_cka(one, other, unbiased=True)
    print(f"{name:<31} {linear_cka(one, other):.2f}, unbiased {unbiased:5.2f}", end="   ")
    print(f"yours: {alignment(one, other)}")

# %% [markdown]
# The second number is an estimate without this bias (*unbiased HSIC*; Song et al. 2012): near 0 in both of
# the last rows. All figures below use it.
#
# ## Two questions
#
# A network has learnt some experiences, and now learns another one. Afterwards there are two questions
# for each layer.
#
# - **Stability S**: on images of the *old* experiences, how like is it to the network *before* the new
#   one? 1 means that nothing about the old images changed.
# - **Plasticity P**: on images of the *new* experience, how like is it to a network that was trained on
#   *everything at once*? Such *joint training* is what one would do if all the data were there. The
#   nearer to 1, the more of the new was learnt as it would have been then.
#
# Liu, Zhu and Liu (2024) measure them so.
#
# ## Three strategies
#
# - *Fine-tuning*: all weights go on learning.
# - *Branch-tuning*: kernels stand still; small branches beside them learn, and are merged afterwards.
#   Lesson 3 builds it by hand.
# - *Frozen*: nothing learns after the first experience.
#
# **Exercise 2.** Before you run it: which stability will the frozen network have, in every layer?

# %%
guess = None  # a number between 0 and 1

check("stability of a frozen network", guess)

# %% [markdown]
# The scans of lesson 1 are too easy here: a network that knows some digits knows nearly all. So the digits
# lie on patches of photographs, in any colour, 12 × 12 pixels. Again two come at a time.

# %%
pictures = digits_on_photographs(False, size=12)
figure, axes = plt.subplots(1, 10, figsize=(7.5, 1))
for digit, axis in enumerate(axes):
    axis.imshow(pictures.images[pictures.targets.index(digit)])
    axis.set_title(digit, fontsize=9)
    axis.axis("off")
plt.show()

# %% [markdown]
# *Figure 1. A test image of each digit.*
#
# All three strategies begin with equal weights; so does the jointly trained network. After each experience
# but the first, S and P are measured; what is shown is their mean over these four experiences.

# %%
SETTINGS = {**LAPTOP, "lr": 1.5, "train_epochs": 8}
stream = photograph_stream(5)
tests = [experience.dataset.eval() for experience in stream.test_stream]

everything = simclr(0, PHOTOGRAPHS)
build("joint", everything, **SETTINGS).train(stream.train_stream)


def measured(name, everything, options=None, seed=0):
    """Train a strategy; return S and P of each layer, means over the experiences."""
    method = simclr(seed, PHOTOGRAPHS)
    strategy = build(name, method, options=options, **SETTINGS)
    found = []
    for t, experience in enumerate(stream.train_stream):
        before = copy.deepcopy(method.backbone)
        strategy.train(experience)
        if t > 0:
            found.append(
                stability_plasticity(
                    method.backbone,
                    old_reference=before,
                    old_data=ConcatDataset(tests[:t]),
                    new_reference=everything.backbone,
                    new_data=tests[t],
                )
            )
    print(f"{name}: {found[-1].protocol}")
    s, p = (
        torch.tensor([list(getattr(one, what).values()) for one in found]).mean(dim=0)
        for what in ("stability", "plasticity")
    )
    return s, p


found = {
    "fine-tuning": measured("fine_tuning", everything),
    "Branch-tuning": measured(
        "branch_tuning", everything, options={"branch_tuning": {"verbose": False}}
    ),
    "frozen": measured("frozen", everything),
}
for name, (s, p) in found.items():
    print(f"{name:<14} S {s.mean():.3f}   P {p.mean():.3f}")

# %% [markdown]
# The first lines are the *protocol*: how the numbers were made. Numbers of another protocol (other images,
# another estimate of CKA) cannot be compared with these.
#
# ## Layer by layer

# %%
looks = {"fine-tuning": "o-", "Branch-tuning": "s--", "frozen": "^:"}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
for name, by_layer in found.items():
    for axis, values in zip(axes, by_layer):
        axis.plot(values, looks[name], markersize=4, label=name)
for axis, title in zip(axes, ("stability S, on old digits", "plasticity P, on new digits")):
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("layer, from the image on")
axes[0].set_ylabel("CKA")
axes[0].legend(fontsize=8, loc="lower left")
figure.tight_layout()
plt.show()

# %% [markdown]
# *Figure 2. Each point is a convolution, a BatchNorm or a block of the small ResNet. Both axes show
# CKA; compare strategies at one layer rather than layers of one strategy, since layers have different
# numbers of channels.*
#
# Look at the first two layers, the first convolution and its BatchNorm. They are nearly the same in all
# networks: edges are edges, whatever the digit. What changes lies deeper, and in P from the third layer on.
#
# ## Between the two

# %%
figure, axis = plt.subplots(figsize=(4.4, 3.4))
for name, (s, p) in found.items():
    point = float(s.mean()), float(p.mean())
    axis.plot(*point, looks[name][0], markersize=9)
    axis.annotate(name, point, xytext=(0, 9), textcoords="offset points", ha="center")
axis.margins(0.25)
axis.set_xlabel("stability S, mean over layers")
axis.set_ylabel("plasticity P, mean over layers")
figure.tight_layout()
plt.show()

# %% [markdown]
# *Figure 3. The strategies between keeping and learning. To the right: more is kept. Upward: more is
# learnt.*
#
# Who learns nothing, keeps everything: the frozen network stands at the far right, at S = 1, and lowest.
# Fine-tuning stands at the left and highest. Branch-tuning lies between the two: it keeps more than
# fine-tuning, and learns more than the frozen network. The question of the field is how to leave the line
# between the two ends, upward.
#
# **What this does not show.** It is one seed, and the training is short: longer, and branches have more
# time to learn. With three seeds the order of figure 3 was the same. With a learning rate of 0.5 instead
# of 1.5 it was so, too, but closer: with one of the seeds Branch-tuning was more stable than fine-tuning by
# 0.001. Nor do S and P say which network is of more use; for that, look at accuracies, as in lesson 1.
#
# ## Exercises without a check
#
# **Exercise 3.** Repeat it with another seed: a jointly trained `simclr(1, PHOTOGRAPHS)`, and
# `measured(…, seed=1)`. Which of your sentences about figure 2 still hold?
#
# **Exercise 4.** Give Branch-tuning branches of the kernel's own size, `"branch": "3x3"` among its
# options. Where do you expect it in figure 3?
#
# **Exercise 5.** P compares with a jointly trained network. What does P say if joint training itself
# learnt badly?
#
# ## To read
#
# - Kornblith et al., *Similarity of Neural Network Representations Revisited*,
#   [arXiv 1905.00414](https://arxiv.org/abs/1905.00414): CKA.
# - Liu, Zhu and Liu, *Branch-Tuning*, [arXiv 2403.18266](https://arxiv.org/abs/2403.18266), Section 3: S
#   and P, and what BatchNorm has to do with them.
#
# The next lesson builds Branch-tuning by hand.
