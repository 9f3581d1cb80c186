# %% [markdown]
# # 1 · Forgetting, seen
#
# **Time:** 45 minutes; the computer needs about half a minute of them, without a GPU or a download.
#
# **Afterwards you know** what a stream of experiences is, how an accuracy matrix is read, what
# forgetting is as a number, and which part of a network forgets most.

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
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin

from avalanche_branchtune.evaluation import AccuracyMatrix, ClassifierProbe, KNNProbe, StreamProbe
from solo_bridge import EvalTransform, SelfSupervised
from solo_bridge.backbones import small_resnet
from solo_bridge.lessons import LAPTOP, check, digit_stream, simclr

torch.set_num_threads(1)  # more would round sums otherwise, and crawl on a busy machine

# %% [markdown]
# ## A stream
#
# A network usually sees all of its data in every epoch. Here it does not. The data come in stages,
# and what is gone does not come back. A stage is called an *experience*, all of them a *stream*.
#
# Our stream has scanned digits of 8 × 8 pixels, which scikit-learn brings along. The first experience
# has the digits 0 and 1, the second 2 and 3, and so on. Such a stream is called *class-incremental*.

# %%
T = 5  # experiences
stream = digit_stream(T, train_transform=EvalTransform(8))
for experience in stream.train_stream:
    print(experience.classes_in_this_experience, len(experience.dataset), "training images")

figure, axes = plt.subplots(1, T, figsize=(7.5, 1.6))
for axis, experience in zip(axes, stream.train_stream):
    picture = torch.cat([experience.dataset[i][0][0] for i in range(4)], dim=1)
    axis.imshow(picture, cmap="gray")
    axis.set_title(f"experience {experience.current_experience}", fontsize=9)
    axis.axis("off")
figure.tight_layout()
plt.show()

# %% [markdown]
# *Figure 1. Four training images of each experience.*
#
# ## A classifier with labels
#
# First the simplest thing: a small ResNet with a linear classifier on top learns one experience after
# the other, with labels. Avalanche calls this strategy `Naive`, the field *fine-tuning*.
#
# After every experience we ask the network about the test images of *all* five. The answers make a
# row of the *accuracy matrix*: `A[t, i]` is the accuracy on the test images of experience `i` after
# training on experience `t`.
#
# A second question is asked beside it. We leave the classifier out and look at the *features*, the
# numbers that the ResNet hands to it. A test image gets the class of those training images whose
# features are nearest to its own. This is a *kNN probe* (k nearest neighbours). It uses the labels of
# all classes; so it does not ask what the network *says*, but what can still be *told apart* by it.

# %%
torch.manual_seed(0)
network = torch.nn.Sequential(small_resnet(8), torch.nn.Linear(32, 10))
naive = Naive(
    model=network,
    optimizer=torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9),
    train_mb_size=32,
    train_epochs=8,
    evaluator=EvaluationPlugin(loggers=[]),
)
streams = stream.train_stream, stream.test_stream
asked = StreamProbe(ClassifierProbe(), *streams)
told_apart = StreamProbe(KNNProbe(), *streams, backbone=lambda model: model[0])

classifier, features = AccuracyMatrix(T), AccuracyMatrix(T)
for t, experience in enumerate(stream.train_stream):
    naive.train(experience)
    classifier.add(asked.measure(network, t + 1).accuracies)
    features.add(told_apart.measure(network, t + 1).accuracies)

# %%
def show(matrices):
    figure, axes = plt.subplots(1, len(matrices), figsize=(3.6 * len(matrices), 3.6))
    for axis, (title, matrix) in zip(axes, matrices.items()):
        values = 100 * matrix.values
        axis.imshow(values, vmin=0, vmax=100, cmap="Blues")
        for t, row in enumerate(values):
            for i, value in enumerate(row):
                colour = "white" if value > 60 else "black"
                axis.text(i, t, f"{value:.0f}", ha="center", va="center", color=colour)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("tested on the classes of experience")
        axis.set_ylabel("after experience")
    figure.tight_layout()
    plt.show()


show({"classifier: what it says": classifier, "its features, by kNN": features})

# %% [markdown]
# *Figure 2. Accuracies in percent. Read a row from left to right: one network, asked about everything.
# Read a column from top to bottom: what becomes of one experience's classes.*
#
# On the left only the diagonal is left. The classifier names the two classes that it saw last, and
# nothing else: this is *catastrophic forgetting*. On the right the old classes can still be told apart,
# though mostly not as well as before. So most of what was lost lay in the last layer.
#
# ## One number for it
#
# The *forgetting* of experience `i` is its best accuracy ever, minus its accuracy at the end. The mean
# over all experiences is the forgetting of the run. The last one does not count: nothing came after it.
#
# $$F = \frac{1}{T-1} \sum_{i<T-1} \; \max_t \, \left(A_{t,i} - A_{T-1,i}\right)$$
#
# **Exercise 1.** Write it. `rows` is a list of lists, `rows[t][i]`. Accuracies are shares between 0 and 1,
# and so is the answer.

# %%
def forgetting(rows):
    ...  # your lines


check("forgetting", forgetting)

# %% [markdown]
# The library has it, too; your function should give the same:

# %%
for name, matrix in {"classifier": classifier, "features": features}.items():
    print(f"{name}: {matrix.forgetting:.4f}, yours: {forgetting(matrix.rows)}")

# %% [markdown]
# A difference of 0.01 is also called a *point*, of percent.
#
# ## Without labels
#
# *SimCLR* (Chen et al. 2020) learns without labels. Of each image it makes two *views*: parts of it,
# brighter or darker. Two views of one image should have similar features, views of
# different images different ones. This is *self-supervised* learning: there is no classifier that could forget.
#
# The same stream, without its labels. Only the kNN probe sees them, to judge the features.

# %%
stream = digit_stream(T)  # without a transform: SimCLR makes its views itself
probe = StreamProbe(KNNProbe(), stream.train_stream, stream.test_stream)

method = simclr(seed=0)
strategy = SelfSupervised(method, train_epochs=20, **LAPTOP)
simclr_matrix = AccuracyMatrix(T, random=probe.measure(method, 0).accuracies)
for t, experience in enumerate(stream.train_stream):
    strategy.train(experience)
    simclr_matrix.add(probe.measure(method, t + 1).accuracies)

untrained = simclr_matrix.random
print("untrained:", [f"{a:.0%}" for a in untrained], f"mean {sum(untrained) / T:.0%}")
print(f"at the end: mean {simclr_matrix.final_accuracy:.0%}")
print(f"forgetting: {100 * simclr_matrix.forgetting:.1f} points")
show({"SimCLR's features, by kNN": simclr_matrix, "the classifier, for comparison": classifier})

# %% [markdown]
# *Figure 3. Accuracies in percent. Note what is printed above it: features of a network that has learnt
# nothing tell most digits apart already. An accuracy says little without that number.*
#
# ## What it knew of the first classes

# %%
figure, axis = plt.subplots(figsize=(6, 3.4))
lines = {
    "classifier, with labels": (classifier, "o-"),
    "its features, by kNN": (features, "s--"),
    "SimCLR's features, by kNN": (simclr_matrix, "^-."),
}
for name, (matrix, style) in lines.items():
    axis.plot(100 * matrix.values[:, 0], style, label=name)
axis.axhline(100 * untrained[0], color="grey", linewidth=1, label="SimCLR, untrained")
axis.set_xticks(range(T))
axis.set_xlabel("after experience")
axis.set_ylabel("accuracy on the first digits in %")
axis.set_ylim(-4, 104)
axis.legend(fontsize=8, loc="center right")
figure.tight_layout()
plt.show()

# %% [markdown]
# *Figure 4. The first column of each matrix. A guess is right one time in ten.*
#
# One experience is enough for the classifier to lose everything. Features fall by less, and may rise
# again: what is learnt on other digits can help with these.
#
# The grey line is a warning. 0 and 1 are so easy that an untrained network tells them from the others, with
# this seed even better than SimCLR does after any experience. What was learnt shows in the mean over all
# digits, above figure 3, and there it is a few points. Before you ask what a network forgot, ask whether it had
# learnt it.
#
# **What this does not show.** It is one seed, one small network and a short training. With three seeds
# the order was the same: the classifier forgot most, its features less, SimCLR's features least. By how
# much changed. Where it was run, with one thread, the classifier lost 98 to 99 points, its features 15, 15 and
# 27, SimCLR's features 10, 8 and 11. Another processor rounds otherwise, and gives others.
#
# ## Exercises without a check
#
# **Exercise 2.** Train SimCLR with a learning rate of 2 instead of 0.5, `**{**LAPTOP, "lr": 2.0}`. Write
# down first what you expect: more forgetting, or less? And of the last row?
#
# **Exercise 3.** Repeat it with `simclr(seed=1)` and `simclr(seed=2)`. Is the difference between the
# two learning rates larger than that between the seeds? What may you then say of it?
#
# **Exercise 4.** Make the stream of two experiences, five digits each: set `T = 2` where the stream is made,
# and run everything below it again. Who forgets what?
#
# ## To read
#
# - De Lange et al., *A continual learning survey*, [arXiv 1909.08383](https://arxiv.org/abs/1909.08383):
#   the strategies with labels.
# - Fini et al., *Self-Supervised Models are Continual Learners*,
#   [arXiv 2112.04215](https://arxiv.org/abs/2112.04215): the same question without labels.
# - Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*,
#   [arXiv 2002.05709](https://arxiv.org/abs/2002.05709): SimCLR.
#
# The next lesson looks into the network: which layers keep what they learnt?
