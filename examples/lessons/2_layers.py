# %% [markdown]
# # 2 · Stability and plasticity, layer by layer
#
# **Time:** 60 minutes; the computer needs less than a minute of them.
#
# **Afterwards you know** how two networks are compared layer by layer, what stability and plasticity
# are as numbers, and where three strategies stand between the two: fine-tuning, Branch-tuning, and not
# learning at all.

# %%
# In a hosted notebook (Colab, Kaggle): take the # away and run this cell once.
# %pip install -q "avalanche-branchtune[solo]"
# %pip install -q --no-deps solo-learn==1.0.2

# %%
import copy
import warnings

import matplotlib.pyplot as plt
import torch

from avalanche_branchtune.analysis import linear_cka, stability_plasticity
from solo_bridge import build
from solo_bridge.lessons import LAPTOP, check, digit_stream, simclr

warnings.filterwarnings("ignore")  # of the libraries, about their own insides

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
# that agree up to rotation and scale, and near 0 for tables that have nothing to do with each other.
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
    "the same": x,
    "channels in another order": x[:, torch.randperm(8, generator=draw)],
    "twice as large, and moved by 3": 2 * x + 3,
    "half of the channels": x[:, :4],
    "something else": torch.randn(100, 8, generator=draw),
}
for name, y in cases.items():
    print(f"{name:<32} {linear_cka(x, y):.2f}   yours: {alignment(x, y)}")

# %% [markdown]
# ## Two questions
#
# Let a network learn two experiences, old and new. Afterwards there are two questions for each layer.
#
# - **Stability S**: on *old* images, how like is it to the network *before* the new experience? 1 means
#   that nothing about the old images changed.
# - **Plasticity P**: on *new* images, how like is it to a network that was trained on *everything at
#   once*? Such *joint training* is what one would do if all the data were there. The nearer to 1, the
#   more of the new was learnt as it would have been then.
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
# SimCLR learns the digits 0 to 4, then 5 to 9. All three strategies begin with equal weights.

# %%
stream = digit_stream(2)
old, new = [experience.dataset for experience in stream.test_stream]
EPOCHS = 15


def trained(strategy_name, seed=0):
    """Return a backbone before and after its last experience."""
    method = simclr(seed)
    options = {"branch_tuning": {"verbose": False}} if strategy_name == "branch_tuning" else {}
    strategy = build(strategy_name, method, options=options, train_epochs=EPOCHS, **LAPTOP)
    for experience in stream.train_stream:
        before = copy.deepcopy(method.backbone)
        strategy.train(experience)
    return before, method.backbone


everything = simclr(0)
build("joint", everything, train_epochs=EPOCHS, **LAPTOP).train(stream.train_stream)

found = {}
for name in ("fine_tuning", "branch_tuning", "frozen"):
    before, after = trained(name)
    found[name] = stability_plasticity(
        after,
        old_reference=before,
        old_data=old,
        new_reference=everything.backbone,
        new_data=new,
    )
    print(f"{name:<14} S {found[name].mean_stability:.3f}  P {found[name].mean_plasticity:.3f}")
print(found["frozen"].protocol)

# %% [markdown]
# The last line is the *protocol*: how the numbers were made. Numbers of another protocol (other images,
# another estimate of CKA) cannot be compared with these.
#
# ## Layer by layer

# %%
looks = {"fine_tuning": "o-", "branch_tuning": "s--", "frozen": "^:"}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
for name, measured in found.items():
    axes[0].plot(list(measured.stability.values()), looks[name], markersize=4, label=name)
    axes[1].plot(list(measured.plasticity.values()), looks[name], markersize=4, label=name)
axes[0].set_title("stability S, on 0 to 4", fontsize=10)
axes[1].set_title("plasticity P, on 5 to 9", fontsize=10)
for axis in axes:
    axis.set_xlabel("layer, from the image on")
axes[0].set_ylabel("CKA")
axes[0].legend(fontsize=8, loc="lower left")
figure.tight_layout()
plt.show()

# %% [markdown]
# *Figure 1. Each point is a convolution, a BatchNorm or a block of the small ResNet. Both axes show
# CKA; compare strategies at one layer rather than layers of one strategy, since layers have different
# numbers of channels.*
#
# Look at the first layers. They are nearly the same in all networks: edges are edges, whatever the
# digit. What changes lies deep.
#
# ## Between the two

# %%
figure, axis = plt.subplots(figsize=(4.4, 3.4))
for name, measured in found.items():
    point = measured.mean_stability, measured.mean_plasticity
    axis.plot(*point, looks[name][0], markersize=9)
    axis.annotate(name, point, xytext=(0, 9), textcoords="offset points", ha="center")
axis.margins(0.25)
axis.set_xlabel("stability S, mean over layers")
axis.set_ylabel("plasticity P, mean over layers")
figure.tight_layout()
plt.show()

# %% [markdown]
# *Figure 2. The strategies between keeping and learning. To the right: more is kept. Upward: more is
# learnt.*
#
# Who learns nothing, keeps everything: the frozen network stands at the far right, at S = 1. Fine-tuning
# stands at the left. The question of the field is whether there is something better than the line
# between them.
#
# **What this does not show.** It is one seed, and the training is short. That S of fine-tuning is the
# smallest and S of the frozen network 1 we saw with every seed that we tried. P differs little in so
# short a training, and whether Branch-tuning ends above or below fine-tuning in it changes with the seed.
#
# ## Exercises without a check
#
# **Exercise 3.** Repeat it with `trained(name, seed=1)` and a jointly trained `simclr(1)`. Which of
# your sentences about figure 1 still hold?
#
# **Exercise 4.** Give Branch-tuning larger branches:
# `options = {"branch_tuning": {"verbose": False, "branch": "3x3"}}`. Where do you expect it in figure 2?
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
