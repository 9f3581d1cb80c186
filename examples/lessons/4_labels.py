# %% [markdown]
# # 4 · Labels on the way
#
# **Time:** 60 minutes; the computer needs less than a minute of them.
#
# **Afterwards you know** how a classifier learns beside a self-supervised network when few images have
# a label, why it forgets although the features do not, and how *distillation* holds it.

# %%
# In a hosted notebook (Colab, Kaggle): take the # of %pip away and run this cell once. Until there
# is a release, upload the wheel that `make dist` builds and give its file: "./NAME.whl[solo]".
# %pip install -q "avalanche-branchtune[solo]"
# %pip install -q --no-deps solo-learn==1.0.2

# %%
import warnings

warnings.filterwarnings("ignore")  # of the libraries, about their own insides

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F  # for your answers

from avalanche_branchtune.evaluation import AccuracyMatrix, ClassifierProbe, KNNProbe, StreamProbe
from solo_bridge import SelfSupervised
from solo_bridge.lessons import LAPTOP, check, digit_stream, simclr
from solo_bridge.plugins import KaizenPlugin

torch.set_num_threads(1)  # more would round sums otherwise, and crawl on a busy machine

# %% [markdown]
# ## Few labels
#
# Images are cheap, labels are not. In our stream nine of ten training images have lost theirs. The
# label −1 stands for *unknown*.

# %%
stream = digit_stream(2, labelled=0.1)
for experience in stream.train_stream:
    labels = [int(label) for label in experience.dataset.targets]
    known = {c: labels.count(c) for c in experience.classes_in_this_experience if c != -1}
    print(f"{len(labels)} images, {sum(known.values())} labels:", known)

# %% [markdown]
# SimCLR needs no labels; it learns from all of the images. Beside it learns a small *classifier*, from
# the features of the images that have a label. In the lessons before, a probe was fitted afterwards, by
# someone who had all the data. This classifier is there *while* the data come, and can be used at once.
#
# Its loss is the cross-entropy, on the images that have a label.
#
# **Exercise 1.** Write it. `scores` is `(N, C)`, `labels` `(N,)` with −1 where unknown. The mean is over
# the labelled images. A minibatch without any label adds 0, and must not break the training: `.backward()`
# has to work there, too, so its 0 is made from the scores.

# %%
def classification(scores, labels):
    ...  # your lines: a tensor with one number


check("classification", classification)

# %% [markdown]
# ## The classifier forgets
#
# The loss of *Kaizen* (Tang et al. 2024) has four terms:
#
# $$ L = L_\text{features} + \lambda_F \, D_\text{features} + L_\text{classes} + \lambda_C \, D_\text{classes} $$
#
# $L_\text{features}$ is SimCLR's loss, $L_\text{classes}$ is exercise 1. The two $D$ are *distillation*:
# a copy of the network from before the experience, the *teacher*, says what it thinks of each new image,
# and the network is asked not to move too far from that.
#
# First we leave both $D$ out, λ = 0.

# %%
everything = digit_stream(2)  # with all labels, to judge
streams = everything.train_stream, everything.test_stream


def run(weight, classifier_weight, seed=0):
    """Return accuracy matrices of the classifier and of kNN, and Kaizen's plugin."""
    method = simclr(seed)
    kaizen = KaizenPlugin(weight=weight, classifier_weight=classifier_weight, hidden=256)
    strategy = SelfSupervised(method, plugins=[kaizen], train_epochs=15, **LAPTOP)
    says = StreamProbe(ClassifierProbe(), *streams, backbone=kaizen.network)
    tells_apart = StreamProbe(KNNProbe(), *streams)
    matrices = AccuracyMatrix(2), AccuracyMatrix(2)
    for t, experience in enumerate(stream.train_stream):
        strategy.train(experience)
        for matrix, probe in zip(matrices, (says, tells_apart)):
            matrix.add(probe.measure(method, t + 1).accuracies)
    return *matrices, kaizen


without, without_knn, _ = run(weight=0.0, classifier_weight=0.0)
for t, row in enumerate(without.rows):
    print(f"after experience {t}: digits 0 to 4 {row[0]:.0%}, digits 5 to 9 {row[1]:.0%}")

# %% [markdown]
# The new digits are learnt, the old ones are gone. But look at what kNN makes of the same features:

# %%
for t, row in enumerate(without_knn.rows):
    print(f"after experience {t}: digits 0 to 4 {row[0]:.0%}, digits 5 to 9 {row[1]:.0%}")

# %% [markdown]
# The features still tell the old digits apart. The classifier does not name them any more, because no
# label of theirs came by for a while: each label of the second experience says "not a 3", too.
#
# ## A teacher for the classifier
#
# The teacher knows 0 to 4 only. It says of an image of a 7, perhaps: "mostly a 1, a little of a 4".
# That is wrong, but it holds what the classifier knew. The distance is the cross-entropy with the
# teacher's probabilities; it needs no label, so *all* images serve.
#
# **Exercise 2.** Write it. Both arguments are scores `(N, C)`; the answer is the mean over the images.

# %%
def class_distillation(student, teacher):
    ...  # your lines: a tensor with one number


check("class distillation", class_distillation)

# %% [markdown]
# Now with both, as Kaizen's authors weigh them.

# %%
with_teacher, with_knn, kaizen = run(weight=1.0, classifier_weight=2.0)
for t, row in enumerate(with_teacher.rows):
    print(f"after experience {t}: digits 0 to 4 {row[0]:.0%}, digits 5 to 9 {row[1]:.0%}")
print("terms of the last minibatch:", {name: round(v, 2) for name, v in kaizen.terms.items()})

# %%
figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.4), sharey=True)
bars = {
    "classifier alone": (without, "tab:orange"),
    "classifier with a teacher": (with_teacher, "tab:blue"),
    "kNN, features with a teacher": (with_knn, "lightgrey"),
}
for axis, (i, title) in zip(axes, enumerate(("digits 0 to 4", "digits 5 to 9"))):
    for place, (name, (matrix, colour)) in enumerate(bars.items()):
        values = [100 * row[i] for row in matrix.rows]
        at = [t + 0.27 * (place - 1) for t in range(2)]
        drawn = axis.bar(at, values, width=0.25, color=colour, label=name)
        axis.bar_label(drawn, fmt="%.0f", fontsize=8)
    axis.set_title(title, fontsize=10)
    axis.set_xticks([0, 1], ["after experience 0", "after experience 1"])
axes[0].set_ylabel("accuracy in %")
axes[0].set_ylim(0, 105)
figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=3, fontsize=8)
figure.tight_layout(rect=(0, 0, 1, 0.93))
plt.show()

# %% [markdown]
# *Figure 1. Left: the old digits, right: the new ones. The classifiers have seen one label in ten. kNN is
# not quite comparable: it looks up the labels of all training images, of all ten digits.*
#
# The teacher keeps the old digits, and takes something from the new ones. Again it is a matter of
# stability and plasticity: λ decides.
#
# **What this does not show.** It is one seed, two experiences and a short training. That the classifier
# loses the old digits without a teacher, and keeps most of them with one, we saw with every seed that we
# tried; how many it keeps, and what the new ones pay for it, changes.
#
# ## Exercises without a check
#
# **Exercise 3.** Turn λ: `classifier_weight` of 0.5 and of 8. Draw the accuracy on the old digits against
# that on the new ones.
#
# **Exercise 4.** Which of the two distillations does it? Run `weight=1.0, classifier_weight=0.0`, and the
# other way round. What does each of them hold?
#
# **Exercise 5.** How few labels are enough? Try `labelled=0.02` and `labelled=1.0`, with the same λ. What
# changes in figure 1, and what does not? Judge three seeds before you answer.
#
# ## To read
#
# - Tang et al., *Kaizen: Practical Self-supervised Continual Learning with Continual Fine-tuning*,
#   [arXiv 2303.17235](https://arxiv.org/abs/2303.17235).
# - Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*,
#   [arXiv 1503.02531](https://arxiv.org/abs/1503.02531).
# - Li and Hoiem, *Learning without Forgetting*, [arXiv 1606.09282](https://arxiv.org/abs/1606.09282): the
#   same idea with labels.
