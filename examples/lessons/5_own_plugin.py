# %% [markdown]
# # 5 · A plugin of your own, compared
#
# **Time:** 60 minutes; the computer needs about a minute of them.
#
# **Afterwards you know** what a plugin is and when it is called, how a strategy of your own gets a name,
# and how to compare it with others so that the numbers mean something.

# %%
# In a hosted notebook (Colab, Kaggle): take the # of %pip away and run this cell once. Until there
# is a release, upload the wheel that `make dist` builds and give its file: "./NAME.whl[solo]".
# %pip install -q "avalanche-branchtune[solo]"
# %pip install -q --no-deps solo-learn==1.0.2

# %%
import warnings

warnings.filterwarnings("ignore")  # of the libraries, about their own insides

# %%
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from avalanche_branchtune.records import load_run
from solo_bridge.lessons import check

# %% [markdown]
# ## The idea
#
# Fine-tuning moves the weights as it likes, and forgets. Let us tie them to where they were: the loss
# gets a *penalty* that grows with the way from the weights θ′ at the end of the last experience.
#
# $$ \text{loss} + \frac{\lambda}{2} \sum_j (\theta_j - \theta'_j)^2 $$
#
# The half is there for the gradient: it is λ (θ − θ′), so the weights are pulled back, the harder the
# farther they went. λ says how hard.
#
# ## The plugin
#
# Avalanche calls a plugin at certain moments of the training. Two are enough here:
#
# - `before_backward`: the loss is there, its gradient is not. Add to `strategy.loss`.
# - `after_training_exp`: an experience is over. Keep a copy of the weights.
#
# `@register` gives it a name. The rest is ordinary Python. We write it into a file, since the comparison
# runs in processes of its own.

# %%
Path("mine.py").write_text('''
from avalanche.training.plugins import SupervisedPlugin

from solo_bridge import register


def penalty(now, earlier):
    return sum((p - q).square().sum() for p, q in zip(now, earlier)) / 2


@register("anchor", "my anchor")
class Anchor(SupervisedPlugin):
    """Weights are pulled to where they were at the end of the experience before."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = weight
        self.earlier = []  # nothing to be pulled to in the first experience

    def before_backward(self, strategy, **kwargs):
        if self.earlier:
            now = list(strategy.model.backbone.parameters())
            strategy.loss = strategy.loss + self.weight * penalty(now, self.earlier)

    def after_training_exp(self, strategy, **kwargs):
        self.earlier = [p.detach().clone() for p in strategy.model.backbone.parameters()]
''')
print("mine.py is written")

# %% [markdown]
# The first experience leaves `earlier` empty, and nothing is added. That is the usual way: a plugin for
# continual learning begins with the second experience.
#
# ## The comparison
#
# `branchtune compare` trains each strategy in a process of its own, on the same stream, from the same
# initial weights, with the same views of the same images. What differs then is the strategy.
#
# `--import` makes your name known. `l2` is the library's own plugin with the same penalty: if ours is
# right, both must end alike. `joint` learns everything at once; the plasticity P of lesson 2 compares
# with it.

# %%
command = "compare --strategies fine_tuning,anchor,l2,joint --import mine.py --out runs/lesson-5"
command += " --experiences 2 --samples 1000 --epochs 4"
print("branchtune", command)
done = subprocess.run(
    [sys.executable, "-m", "solo_bridge", *command.split()], capture_output=True, text=True
)
print(done.stdout or done.stderr)

# %% [markdown]
# In a terminal you would just type the line. Each strategy trains with one thread, as many at a time as there
# are cores. Started again with the same settings it trains nothing twice: what is finished is kept. So after a
# change to `mine.py` give another `--out`, or remove the folder of its runs; else the command refuses, and names
# that folder.
#
# ## Reading what came out
#
# Begin with what nobody likes to read.
#
# - **Protocol**, below the tables: which images were judged by what. Numbers of another protocol are another
#   thing.
# - **The caveat**, at the end: the schedule is short. Four epochs show that everything runs.
# - **Runs n: 1**, in the tables. One seed. No deviation is known, so a difference of two points in accuracy
#   may be nothing at all.
#
# Then the tables. Compare `my anchor` with `L2 to previous weights`: what was learnt is equal in every number;
# only seconds and memory differ, as they do from run to run. So the plugin does what it should.
#
# Now against `fine-tuning`. The accuracies are near those of the untrained network, and near each other:
# they decide nothing. The stability S does differ. Let us look at it by layer.

# %%
runs = {name: load_run(f"runs/lesson-5/{name}-0") for name in ("fine_tuning", "anchor", "l2")}

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
for (name, run), look in zip(runs.items(), ("o-", "s-", "x:")):
    axes[0].plot(list(run.stability[-1].values()), look, markersize=4, label=name)
    axes[1].plot(list(run.plasticity[-1].values()), look, markersize=4, label=name)
axes[0].set_title("stability S, on the first five digits", fontsize=10)
axes[1].set_title("plasticity P, on the last five", fontsize=10)
for axis in axes:
    axis.set_xlabel("layer, from the image on")
axes[0].set_ylabel("CKA")
axes[0].legend(fontsize=8, loc="lower left")
figure.tight_layout()
plt.show()

# %% [markdown]
# *Figure 1. What the penalty does, by layer. The crosses of `l2` lie on the squares of `anchor`.*

# %%
fine_tuned, anchored = (
    sum(runs[name].stability[-1].values()) / len(runs[name].stability[-1])
    for name in ("fine_tuning", "anchor")
)
print(f"mean S: {fine_tuned:.3f} without the anchor, {anchored:.3f} with it")

# %% [markdown]
# All of it is in the report, too, with an accuracy matrix for every strategy: open
# `runs/lesson-5/report.html` in a browser. The record of a run, `run.json`, holds hardware, versions and
# settings beside the numbers.
#
# **What this does not show.** That the anchor is good for anything. It keeps the layers more alike; this
# is what it was made for. Whether the features are of more *use* needs a longer training, several seeds
# and a look at the accuracies: `branchtune study` runs such plans.
#
# ## Exercises
#
# **Exercise 1.** Not all weights matter alike. Let each have an importance, and pull the important ones
# harder:
#
# $$ \frac{1}{2} \sum_j w_j \, (\theta_j - \theta'_j)^2 $$

# %%
def by_importance(now, earlier, importance):
    ...  # your lines: a tensor with one number


check("anchor by importance", by_importance)

# %% [markdown]
# **Exercise 2, without a check.** Choose importances, and say why. Put them into `mine.py` under a
# second name, `@register("anchor_importance")`, and compare, with another `--out`.
#
# **Exercise 3, without a check.** λ is an option: `@register("anchor_10", "my anchor, λ = 10", weight=10.0)`
# above the same class, as a second line, gives a second name. Where does S end, and where P?
#
# **Exercise 4, without a check.** A plugin of another kind: what would you have to keep, and in which
# moment would you use it, if the *features* of old images should stay the same, not the weights?
# `strategy.mb_x` is a list, one tensor for each view.
#
# ## To read
#
# - Kirkpatrick et al., *Overcoming catastrophic forgetting in neural networks*,
#   [arXiv 1612.00796](https://arxiv.org/abs/1612.00796): EWC, importances from gradients.
# - Smith et al., *A Closer Look at Rehearsal-Free Continual Learning*,
#   [arXiv 2203.17269](https://arxiv.org/abs/2203.17269): how far simple penalties go.
# - Avalanche's [documentation of plugins](https://avalanche.continualai.org/from-zero-to-hero-tutorial/04_training):
#   all the moments at which one is called.
