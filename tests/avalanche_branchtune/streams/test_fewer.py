from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset
from torch.utils.data import ConcatDataset, Subset

from avalanche_branchtune.errors import LabelError, UnknownOptionError
from avalanche_branchtune.streams import (
    ArrayImages,
    digits_on_photographs,
    few,
    hide_labels,
    image_folder,
    split_domains,
    unlabelled_folder,
)
from avalanche_branchtune.streams.labels import class_names, find_labels

DIGITS = digits_on_photographs(samples=205)  # 21 of the first five classes, 20 of the others


def numbers(per_class: int, seed: int = 0) -> list[int]:
    return list(few(Subset(DIGITS, range(205)), per_class, seed=seed).indices)


def test_each_class_gets_its_number_in_the_order_of_the_data_set() -> None:
    chosen = numbers(7)
    assert chosen == sorted(set(chosen))
    assert Counter(DIGITS.targets[i] for i in chosen) == dict.fromkeys(range(10), 7)


def test_the_seed_decides_and_nothing_else_is_drawn() -> None:
    state = torch.get_rng_state()
    assert numbers(7) == numbers(7) != numbers(7, seed=1)
    assert set(numbers(7)) < set(numbers(8)) < set(numbers(20))
    assert torch.equal(torch.get_rng_state(), state)
    assert set().union(*(numbers(2, seed=seed) for seed in range(60))) == set(range(205))


def test_no_file_of_a_folder_is_opened(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(b"no image")
    data = few(image_folder(tmp_path), 2)
    assert find_labels(data).true == [0, 0, 1, 1] and class_names(data) == ["cat", "dog"]
    with pytest.raises(LabelError, match="6 of 6 samples have no class"):
        few(unlabelled_folder(tmp_path), 2)


def test_kinds_of_data_sets() -> None:
    images = few(DIGITS, 3)
    assert isinstance(images, ArrayImages) and len(split_domains(images)) == 5
    assert (images.images == DIGITS.images[numbers(3)]).all()
    views = few(as_classification_dataset(DIGITS), 3)
    assert [item[1] for item in views] == [DIGITS.targets[i] for i in numbers(3)]
    hidden = hide_labels(DIGITS, 0.5)
    shown, true = find_labels(few(hidden, 3))
    assert true == [DIGITS.targets[i] for i in numbers(3)]
    assert shown == [hidden.targets[i] for i in numbers(3)] and -1 in shown
    both = few(ConcatDataset([DIGITS, DIGITS]), 40)
    assert Counter(find_labels(both).true) == dict.fromkeys(range(10), 40)


def test_some_classes_have_few_and_the_others_all() -> None:
    some = few(DIGITS, {3: 5, 7: 2})
    whole = Counter(DIGITS.targets)
    assert Counter(find_labels(some).true) == {**whole, 3: 5, 7: 2}
    assert [
        i for i in few(Subset(DIGITS, range(205)), {3: 5}).indices if DIGITS.targets[i] == 3
    ] == [i for i in numbers(5) if DIGITS.targets[i] == 3]


def test_more_than_there_are_is_refused() -> None:
    few(DIGITS, 20)
    with pytest.raises(UnknownOptionError, match="at most 20, which is all of class 5; got 21"):
        few(DIGITS, 21)
    with pytest.raises(UnknownOptionError, match=r"per_class=….*at least 1; got 0"):
        few(DIGITS, 0)
    with pytest.raises(UnknownOptionError, match=r"per_class=….*at least 1; got 0"):
        few(DIGITS, {1: 0})
    with pytest.raises(UnknownOptionError, match="at most 0, which is all of class 11; got 1"):
        few(DIGITS, {11: 1})
