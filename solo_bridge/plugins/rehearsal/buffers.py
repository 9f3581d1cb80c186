"""Which past samples to keep for replay: storage policies for Avalanche's ``ReplayPlugin``.

Like Avalanche's own, they keep references to the samples of the data sets, not
copies: old data must remain readable.  Avalanche's ``ReservoirSamplingBuffer``
and ``ExperienceBalancedBuffer`` work under :class:`~solo_bridge.SelfSupervised`
as they are; for its ``ClassBalancedBuffer`` see :class:`BalancedClassesBuffer`.
Where policies go by labels, those that training sees count: all samples without
a label (−1) are one class.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import LabelError
from avalanche_branchtune.keeping import looked_at
from avalanche_branchtune.options import at_least_one, fraction
from solo_bridge.plugins.rehearsal.plain_images import plain_batches


class FirstPerClassBuffer(ExemplarsBuffer):
    """The first samples of each class (Tang et al., Kaizen, arXiv 2303.17235).

    Of a class of which n samples were seen so far it holds
    ``max(1, ⌊share · n⌋)``: the first ones, in the data set's order, of the
    experience in which that number grew.  So every domain of a
    domain-incremental stream adds its share.  As published the buffer grows
    with the classes, unless ``max_size`` is set: then the class with the most
    samples (of several, the one seen last) gives up its latest, until they fit.

    Authors' code: dr-bell/kaizen e36ee54, kaizen/utils/pretrain_dataloader.py,
    split_dataset_subset; share: ``--replay_proportion`` of the scripts.
    Differs: of a class with fewer than 1 / share samples theirs holds none, ours one.
    Differs: of a data-incremental stream theirs holds the first share of each split, whatever its
    classes, ours of each class.
    Differs: theirs refuses domain-incremental streams, ours takes a share of each domain.
    Differs: a largest number of samples is shared equally among the experiences and their classes
    there, here ``max_size`` takes from the largest class.

    :param share: share of each class, 0.01 in the paper.
    :param max_size: most samples in all; None for no limit.
    :raises UnknownOptionError: for a share outside (0, 1], or a size below 1.
    :raises LabelError: while training, for data without ``targets``.
    """

    buffer: Any  # Avalanche's property

    def __init__(self, share: float = 0.01, max_size: int | None = None) -> None:
        """See the class."""
        size = sys.maxsize if max_size is None else max_size
        super().__init__(at_least_one("FirstPerClassBuffer(max_size=…)", size))
        self.share = fraction("FirstPerClassBuffer(share=…)", share)
        self.seen: dict[int, int] = {}
        """Class → samples seen; the classes in the order in which they came."""
        self._classes: list[int] = []  # of the samples in the buffer

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Add the first samples of an experience.

        :param agent_state: the strategy.
        :param exp: the experience.
        """
        labels = _labels(exp.dataset)
        for label in labels:
            self.seen[label] = self.seen.get(label, 0) + 1
        stored = Counter(self._classes)
        room = {c: self._quota(c) - stored[c] for c in self.seen}
        chosen = []
        for i, label in enumerate(labels):
            if room[label] > 0:
                room[label] -= 1
                chosen.append(i)
        self.buffer = _joined(self.buffer, exp.dataset, chosen)
        self._classes += [labels[i] for i in chosen]
        self._fit()

    def resize(self, strategy: Any, new_size: int) -> None:
        """Set another largest size.

        :param strategy: the strategy.
        :param new_size: number of samples.
        """
        self.max_size = at_least_one("FirstPerClassBuffer.resize(…)", new_size)
        self._fit()

    def _quota(self, label: int) -> int:
        # Rounding first: 0.29 · 100 is 28.999… in floating point.
        return max(1, math.floor(round(self.share * self.seen[label], 6)))

    def _fit(self) -> None:
        if len(self._classes) <= self.max_size:
            return
        came = {label: place for place, label in enumerate(self.seen)}
        members: dict[int, list[int]] = {}
        for i, label in enumerate(self._classes):
            members.setdefault(label, []).append(i)
        for _ in range(len(self._classes) - self.max_size):
            label = max(members, key=lambda c: (len(members[c]), came[c]))
            members[label].pop()
        keep = sorted(i for m in members.values() for i in m)
        self.buffer = self.buffer.subset(keep)
        self._classes = [self._classes[i] for i in keep]


class BalancedClassesBuffer(ExemplarsBuffer):
    """As many samples of each class, of each a uniform sample (reservoir sampling by random keys).

    Like Avalanche's ``ClassBalancedBuffer``, whose groups and draws it has, with
    two differences: items get no task label, so that replayed items can be put
    into one minibatch with new ones that have none; and each sample refers to
    its own experience's data only (Avalanche joins data sets of joined data
    sets: time and memory grow with every experience, though the buffer does not).

    Avalanche's code: ContinualAI/avalanche eb075be, avalanche/training/storage_policy.py,
    ClassBalancedBuffer, ReservoirSamplingBuffer.

    :param max_size: number of samples.
    :raises UnknownOptionError: for a size below 1.
    :raises LabelError: while training, for data without ``targets``.
    """

    def __init__(self, max_size: int) -> None:
        """See the class."""
        super().__init__(at_least_one("BalancedClassesBuffer(max_size=…)", max_size))
        self.samples: dict[int, list[tuple[float, Any]]] = {}
        """Class → random key and data set of each of its samples, the largest key first."""
        self._joined: Any = None

    @property
    def buffer(self) -> Any:
        """The samples as one data set, class by class in the order in which they came."""
        if self._joined is None:
            parts = [part for samples in self.samples.values() for _, part in samples]
            self._joined = concat_datasets(parts) if parts else []
        return self._joined

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Let samples enter, and share the room among all classes seen.

        :param agent_state: the strategy.
        :param exp: the experience.
        """
        members: dict[int, list[int]] = {}
        for i, label in enumerate(_labels(exp.dataset)):
            members.setdefault(label, []).append(i)
        for label in members:
            self.samples.setdefault(label, [])
        room = self._room()
        for label, indices in members.items():
            keys = [*torch.rand(len(indices)).tolist(), *(key for key, _ in self.samples[label])]
            kept = sorted(range(len(keys)), key=lambda k: -keys[k])[: room[label]]
            old, new = self.samples[label], len(indices)
            self.samples[label] = [
                (keys[k], exp.dataset.subset([indices[k]]) if k < new else old[k - new][1])
                for k in kept
            ]
        self._fit(room)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Set another size.

        :param strategy: the strategy.
        :param new_size: number of samples.
        """
        self.max_size = at_least_one("BalancedClassesBuffer.resize(…)", new_size)
        self._fit(self._room())

    def _room(self) -> dict[int, int]:
        """Return the room of each class: the first ones get what cannot be divided."""
        share, rest = divmod(self.max_size, max(1, len(self.samples)))
        return {label: share + (i < rest) for i, label in enumerate(sorted(self.samples))}

    def _fit(self, room: dict[int, int]) -> None:
        self._joined = None
        for label, parts in self.samples.items():
            del parts[room[label] :]


class MinimumRedundancyBuffer(ExemplarsBuffer):
    """MinRed: Purushwalkam, Morgado, Gupta, "The Challenges of …", arXiv 2203.12710.

    Samples enter one after the other, those of an experience in random order,
    when it ends; whenever there are more than ``max_size``, of the two samples
    that are closest to each other the later one is dropped, see
    :func:`least_redundant`.  No label is used.

    Closeness is the cosine between features of the current backbone, in eval
    mode, without augmentation: the data set's ``eval`` transforms, see
    :func:`solo_bridge.plugins.rehearsal.plain_images.plain_batches`.  Remembered samples
    get new features each time (the paper, in which samples come one by one,
    averages those of its training views instead).  This takes a forward pass
    of the whole experience.

    Authors' code: senthilps8/continuous_ssl_problem 942fa0f, datasets/mysampler.py,
    MinRedBufferBatchSampler.
    Differs: of the closest two theirs drops the earlier, ours the later.
    Differs: theirs takes a whole batch in and then drops as many, ours one sample at a time.
    Differs: theirs drops only what was trained on already, and the oldest while that is too
    little; ours anything.
    Differs: their features are of encoder and projector in training mode, on training views, as a
    running mean (γ 0.5); ours of the backbone, as said above.
    Differs: theirs trains on the buffer alone, 4 updates for each new batch; ours joins replayed
    samples to new ones.
    Differs: their size is 16384 (configs/simsiam/model/bstream.yaml) or 65536 (README), that of
    :func:`~solo_bridge.plugins.rehearsal.replay.replay` 200 by default.

    :param max_size: number of samples.
    :raises UnknownOptionError: for a size below 1.
    """

    buffer: Any  # Avalanche's property

    def __init__(self, max_size: int) -> None:
        """See the class."""
        super().__init__(at_least_one("MinimumRedundancyBuffer(max_size=…)", max_size))
        self._features = torch.zeros(0, 0)

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Let the samples of an experience enter.

        :param agent_state: the strategy.
        :param exp: the experience.
        """
        old, count = len(self.buffer), len(exp.dataset)
        order = torch.randperm(count).tolist()
        parts = []
        if old:
            parts.append(self._compute(agent_state, self.buffer, list(range(old))))
        parts.append(self._compute(agent_state, exp.dataset, order))
        features = torch.cat(parts)
        keep = least_redundant(features, self.max_size)
        if old:
            self.buffer = self.buffer.subset([i for i in keep if i < old])
        self.buffer = _joined(self.buffer, exp.dataset, [order[i - old] for i in keep if i >= old])
        self._features = features[keep]

    def resize(self, strategy: Any, new_size: int) -> None:
        """Set another size; features are those of the last update.

        :param strategy: the strategy.
        :param new_size: number of samples.
        """
        self.max_size = at_least_one("MinimumRedundancyBuffer.resize(…)", new_size)
        keep = least_redundant(self._features, self.max_size)
        if len(keep) < len(self.buffer):
            self.buffer = self.buffer.subset(keep)
            self._features = self._features[keep]

    @staticmethod
    def _compute(strategy: Any, dataset: Any, indices: list[int]) -> Tensor:
        model, batch = strategy.model, strategy.eval_mb_size
        # Of several processes each computes a share; the last image fills them up.
        filled = [*indices, *indices[-1:] * (-len(indices) % ranks.size())]
        with looked_at(model):
            features = torch.cat(
                [
                    model(images.to(strategy.device)).float().cpu()
                    for images in plain_batches(dataset, list(ranks.own(filled)), model, batch)
                ]
            )
        return ranks.whole(features)[: len(indices)]


def least_redundant(features: Tensor, size: int) -> list[int]:
    """Choose samples that are far from one another, going through them once.

    The first ``size`` fill the memory.  Then each sample enters, and of the two
    in the memory whose features have the largest cosine the later one leaves:
    what has been kept longest stays.  The memory is exactly ``size``, the time
    O(N · size · D).

    Authors' code: senthilps8/continuous_ssl_problem 942fa0f, datasets/mysampler.py, resize_buffer
    (max_coverage_reduction).
    Differs: there the earlier one of the two leaves, here the later; the paper does not say which.

    :param features: ``(N, D)``, in the order in which they come.
    :param size: number to keep.
    :return: numbers of those that are kept, ascending.
    """
    count = len(features)
    if count <= size:
        return list(range(count))
    unit = F.normalize(features.double(), dim=1)
    slots = torch.arange(size + 1)  # which sample is where; the last one has just entered
    held = unit[: size + 1].clone()
    cosine = held @ held.T
    cosine.fill_diagonal_(-math.inf)
    nearest, where = cosine.max(dim=1)
    for sample in range(size, count):
        first = int(nearest.argmax())
        second = int(where[first])
        leaves = first if slots[first] > slots[second] else second
        following = sample + 1
        if following == count:
            slots[leaves] = -1
            break
        _replace(held, nearest, where, leaves, unit[following])
        slots[leaves] = following
    return sorted(slots[slots >= 0].tolist())


def _replace(held: Tensor, nearest: Tensor, where: Tensor, place: int, new: Tensor) -> None:
    """Put a new vector in a place; find its nearest neighbour, and that of those who lost theirs.

    Others may have a nearer one now, but it knows of them: of the closest pair
    at least one does.
    """
    held[place] = new
    orphans = (where == place).nonzero()[:, 0].tolist()
    for i in {place, *orphans}:
        row = held @ held[i]
        row[i] = -math.inf
        nearest[i], where[i] = row.max(dim=0)


def _labels(dataset: Any) -> list[int]:
    targets = getattr(dataset, "targets", None)
    if targets is None:
        raise LabelError(
            "the experience has no targets to tell classes by: use a storage policy that needs no "
            "labels, a reservoir or MinimumRedundancyBuffer"
        )
    return [int(t) for t in targets]


def _joined(buffer: Any, dataset: Any, indices: list[int]) -> Any:
    if not indices:
        return buffer
    new = dataset.subset(indices)
    return buffer.concat(new) if len(buffer) else new
