from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.datasets import FakeData

from avalanche_branchtune.errors import LabelError, UnknownOptionError
from avalanche_branchtune.streams import digits_on_photographs, hide_labels, without_labels
from avalanche_branchtune.streams.labels import find_labels


class Listed(Dataset):
    """Items (number, label); labels only under the attribute ``name``, or nowhere."""

    def __init__(self, labels, name=None):
        self.items = list(enumerate(int(label) for label in labels))
        self.reads = 0
        if name is not None:
            setattr(self, name, labels)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.reads += 1
        return self.items[index]


@pytest.mark.parametrize("name", ["targets", "labels"])
@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_attribute_is_used_and_nothing_is_read(name, kind) -> None:
    data = Listed(kind([2, 0, 1]), name)
    shown, true = find_labels(data)
    assert shown == true == [2, 0, 1] and all(type(label) is int for label in shown)
    assert data.reads == 0


def test_without_attribute_every_item_is_read_once() -> None:
    data = Listed([2, 0, 1])
    assert find_labels(data).shown == [2, 0, 1]
    assert data.reads == 3 + 1  # the first item also shows whether there are labels
    fake = FakeData(5, (3, 4, 4), 3)
    assert find_labels(fake).shown == [int(fake[i][1]) for i in range(5)]
    tensors = TensorDataset(torch.zeros(3, 2), torch.tensor([1, 2, 1]))
    assert find_labels(tensors).shown == [1, 2, 1]


def test_items_without_label() -> None:
    assert find_labels(TensorDataset(torch.zeros(3, 2))).shown == [-1, -1, -1]
    assert find_labels([torch.ones(2), torch.ones(2)]).shown == [-1, -1]


def test_parts_and_unions_keep_shown_and_true_labels() -> None:
    hidden = hide_labels(Listed([3, 4, 5, 6], "targets"), 0.5)
    part = find_labels(Subset(hidden, [3, 1]))
    assert part.true == [6, 4]
    assert part.shown == [hidden.targets[3], hidden.targets[1]]
    both = find_labels(ConcatDataset([Subset(hidden, [0]), Listed([9], "labels")]))
    assert both.true == [3, 9] and both.shown == [hidden.targets[0], 9]


@pytest.mark.parametrize("labels", [[0.5, 1.0], ["cat", "dog"], [[0, 1], [1, 0]]])
def test_labels_that_are_no_integers(labels) -> None:
    data = Listed([0, 1])
    data.targets = labels
    with pytest.raises(LabelError, match="Listed: expected one integer class a sample"):
        find_labels(data)


def test_number_of_labels_must_fit() -> None:
    data = Listed([0, 1])
    data.targets = [0, 1, 1]
    with pytest.raises(LabelError, match="3 labels for 2 samples"):
        find_labels(data)


def test_hide_labels_hides_exactly_the_share() -> None:
    data = digits_on_photographs(samples=200)
    hidden = hide_labels(data, 0.75, seed=1)
    shown = [i for i in range(200) if hidden.targets[i] != -1]
    assert len(shown) == 50 and len(hidden) == 200
    assert hidden.true_targets == data.targets
    assert all(hidden.targets[i] == data.targets[i] for i in shown)
    for i in (shown[0], next(i for i in range(200) if i not in shown)):
        image, label = hidden[i]
        assert label == hidden.targets[i]
        assert np.array_equal(np.asarray(image), data.images[i])
    assert hide_labels(data, 0.75, seed=1).targets == hidden.targets
    assert hide_labels(data, 0.75, seed=2).targets != hidden.targets
    assert hide_labels(data, 0).targets == data.targets
    assert set(hide_labels(data, 1).targets) == {-1}
    assert hide_labels(hidden, 0).targets == hidden.targets


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_hide_labels_refuses_other_shares(share: float) -> None:
    with pytest.raises(UnknownOptionError, match=r"share=…\): expected 0 to 1"):
        hide_labels(Listed([0, 1], "targets"), share)


def test_without_labels_gives_one_tuples() -> None:
    data = digits_on_photographs(samples=20)
    bare = without_labels(data)
    assert len(bare) == 20
    item = bare[4]
    assert type(item) is tuple and len(item) == 1
    assert np.array_equal(np.asarray(item[0]), data.images[4])
    assert bare.targets == [-1] * 20 and bare.true_targets == data.targets
    only_images = without_labels([torch.ones(2), torch.zeros(2)])
    assert torch.equal(only_images[0][0], torch.ones(2)) and only_images.true_targets == [-1, -1]
    assert pickle.loads(pickle.dumps(bare)).true_targets == data.targets


@pytest.mark.parametrize("wrap", [without_labels, lambda data: hide_labels(data, 0.5)])
def test_avalanche_data_sets_are_refused(wrap) -> None:
    data = as_classification_dataset(digits_on_photographs(samples=20))
    with pytest.raises(UnknownOptionError, match="transforms to the scenario"):
        wrap(data)
