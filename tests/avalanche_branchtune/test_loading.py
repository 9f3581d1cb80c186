"""The loader of an experience: what it draws, what it cannot read, and where it goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils.data_loader import ReplayDataLoader, TaskBalancedDataLoader
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision.datasets import ImageFolder

from avalanche_branchtune.errors import UnknownOptionError, UnreadableImageError
from avalanche_branchtune.experiences import file_of, torch_loader
from avalanche_branchtune.loading import ExperienceLoader, drawing_from
from avalanche_branchtune.streams import class_incremental, image_folder
from tests.selfsupervised import stream


class Draws(Dataset[Any]):
    """Samples that are what was drawn for them, from each of the three generators."""

    def __init__(self, n: int = 10, bad: tuple[int, ...] = ()) -> None:
        self.n, self.bad = n, bad

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]
        if index in self.bad:
            raise OSError("broken data stream")
        return torch.tensor([index, *drawn], dtype=torch.float64)


def loader(bad: tuple[int, ...] = (), n: int = 10, **settings: Any) -> DataLoader[Any]:
    return DataLoader(Draws(n, bad), batch_size=3, shuffle=True, **settings)


def epochs(made: ExperienceLoader, number: int = 3) -> torch.Tensor:
    found = []
    for epoch in range(number):
        made.set_epoch(epoch)
        found += [*made]
    return torch.cat(found)


WORKERS = [
    {},
    {"num_workers": 1},
    {"num_workers": 2},
    {"num_workers": 2, "persistent_workers": True},
]


def test_what_is_drawn_does_not_depend_on_workers() -> None:
    expected = epochs(ExperienceLoader(loader(), 7, 1))
    assert expected.shape == (30, 4) and len({*expected[:, 1:].flatten().tolist()}) == 90
    for settings in WORKERS[2:]:
        torch.rand(3)  # something else draws
        assert torch.equal(epochs(ExperienceLoader(loader(**settings), 7, 1)), expected)
    for seed, experience in ((8, 1), (7, 2)):
        other = epochs(ExperienceLoader(loader(), seed, experience))
        assert not torch.equal(other[:, 0], expected[:, 0])
        assert not {*other[:, 1].tolist()} & {*expected[:, 1].tolist()}


def mixing(samples: list[torch.Tensor]) -> torch.Tensor:
    """Draw for a minibatch what it would be mixed by."""
    return torch.tensor([[random.random(), float(np.random.rand()), float(torch.rand(()))]])


def test_what_is_drawn_for_a_minibatch_does_not_depend_on_workers_and_comes_once() -> None:
    state = torch.get_rng_state()
    drawn = [
        epochs(ExperienceLoader(loader(collate_fn=mixing, **settings), 7, experience), 2)
        for settings, experience in (({}, 1), ({"num_workers": 2}, 1), ({"num_workers": 2}, 2))
    ]
    assert torch.equal(drawn[0], drawn[1]) and drawn[0].shape == (8, 3)
    assert len({*torch.cat(drawn[1:]).flatten().tolist()}) == 48
    assert torch.equal(torch.get_rng_state(), state)


class Moves(DataLoader[Any]):
    """Does something of its own with each minibatch."""

    def __iter__(self) -> Any:
        return (batch + 1 for batch in super().__iter__())


def test_a_loader_that_does_more_is_not_replaced() -> None:
    own = Moves(Draws(), batch_size=3)
    assert torch_loader(own) is None
    with pytest.raises(UnknownOptionError, match="the data loader Moves is none of torch's"):
        ExperienceLoader(own, 7)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("settings", [*WORKERS, {"num_workers": 4}])
def test_any_number_of_workers(settings: Any) -> None:
    expected = epochs(ExperienceLoader(loader(n=50), 7, 1))
    assert torch.equal(epochs(ExperienceLoader(loader(n=50, **settings), 7, 1)), expected)


def test_nothing_else_moves() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = torch.rand(()), random.random(), np.random.rand()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    epochs(ExperienceLoader(loader(), 7))
    assert (torch.rand(()), random.random(), np.random.rand()) == expected


@pytest.mark.parametrize("settings", WORKERS[::2])
def test_without_a_seed_all_is_as_it_was(settings: Any) -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = torch.cat([*loader(**settings), *loader(**settings)])
    after = torch.rand(())
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    made = ExperienceLoader(loader(**settings))
    assert not made.reproducible and torch.equal(torch.cat([*made, *made]), expected)
    assert torch.rand(()) == after


@pytest.mark.parametrize("settings", WORKERS[::3])
def test_the_middle_of_an_epoch_is_entered_without_what_came_before(settings: Any) -> None:
    whole = ExperienceLoader(loader(**settings), 7)
    whole.set_epoch(2)
    expected = [*whole]
    part = ExperienceLoader(loader(tuple(expected[0][:, 0].int().tolist()), **settings), 7)
    part.set_epoch(2)
    found = [*part.going_on(1)]  # a sample of the first minibatch would be an error
    assert len(part) == 4 and len(found) == 3
    assert torch.equal(torch.cat(found), torch.cat(expected[1:]))
    part.set_epoch(3)
    with pytest.raises(UnreadableImageError):
        list(part)


def test_a_sample_that_comes_twice_in_an_epoch_is_drawn_twice() -> None:
    data = stream(2).train_stream
    joined = ReplayDataLoader(
        data[0].dataset.eval(),
        data[1].dataset.eval().subset(range(2)),
        batch_size=10,
        batch_size_mem=2,
        oversample_small_tasks=True,
        shuffle=True,
    )
    made = ExperienceLoader(joined, 7)
    assert len(made) == 5 == len([*made])
    keys = [key for batch in made._plan for key in batch]
    assert len(keys) == 60 and len({k.number for k in keys}) == 52
    assert len({k.seed for k in keys}) == 60


def test_avalanches_loader_gives_the_same_minibatches() -> None:
    data = stream(2).train_stream[0].dataset.eval()
    torch.manual_seed(3)
    expected = [batch[1] for batch in TaskBalancedDataLoader(data, batch_size=8, shuffle=True)]
    torch.manual_seed(3)
    made = ExperienceLoader(TaskBalancedDataLoader(data, batch_size=8, shuffle=True))
    assert torch.equal(torch.cat([batch[1] for batch in made]), torch.cat(expected))


class Unnumbered(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(())


OTHERS = [DataLoader(Unnumbered()), [1, 2], DataLoader([1], batch_size=None)]


@pytest.mark.parametrize("other", OTHERS)
def test_loaders_of_other_kinds_are_refused(other: Any) -> None:
    with pytest.raises(UnknownOptionError, match=r"none of torch's over numbered samples"):
        ExperienceLoader(other, 7)


# ---- what cannot be read


@pytest.mark.parametrize("settings", WORKERS[::2])
def test_a_sample_that_cannot_be_read_ends_the_epoch(settings: Any) -> None:
    made = ExperienceLoader(loader((4,), **settings), 7, name="experience 1")
    with pytest.raises(
        UnreadableImageError, match=r"^sample 4 of experience 1: broken data stream$"
    ):
        list(made)


@pytest.mark.parametrize("settings", WORKERS[::2])
def test_a_sample_that_cannot_be_read_is_replaced(settings: Any) -> None:
    replaced: dict[str, int] = {}
    good = epochs(ExperienceLoader(loader(n=9), 7), 2)
    made = ExperienceLoader(
        loader((4, 5), n=9, **settings), 7, name="experience 1", replaced=replaced
    )
    found = epochs(made, 2)
    assert replaced == {"sample 4 of experience 1": 2, "sample 5 of experience 1": 2}
    kept = ((good[:, 0] != 4) & (good[:, 0] != 5)).nonzero().flatten()
    assert torch.equal(found[kept], good[kept]) and len(kept) == 14
    for i in range(0, 18, 3):
        batch, asked = found[i : i + 3], good[i : i + 3, 0].tolist()
        assert {*batch[:, 0].tolist()} == {*asked} - {4, 5}, "of the same minibatch"
        assert len({*batch[:, 1].tolist()}) == 3, "drawn anew"


def test_a_minibatch_that_cannot_be_read_at_all_ends_the_epoch() -> None:
    made = ExperienceLoader(loader(tuple(range(10))), 7, replaced={})
    with pytest.raises(UnreadableImageError, match="broken data stream"):
        list(made)


def test_other_errors_are_not_the_images() -> None:
    class Wrong(Draws):
        def __getitem__(self, index: int) -> Any:
            raise TypeError("a mistake of the user's")

    with pytest.raises(TypeError, match="a mistake"):
        [*ExperienceLoader(DataLoader(Wrong()), 7, replaced={})]


def test_files_have_names(tmp_path: Path) -> None:
    for i in range(6):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / f"{i}.png")
    ours, torchvisions = image_folder(tmp_path), ImageFolder(str(tmp_path))
    assert file_of(ours, 4) == file_of(torchvisions, 4) == str(tmp_path / "b" / "3.png")
    for experience in class_incremental(ours, ours, 2).train_stream:
        label = int(experience.dataset.targets[0])
        joined = torch.utils.data.ConcatDataset([[0], experience.dataset.subset([2, 0])])
        files = [str(tmp_path / "ab"[label] / f"{n + label}.png") for n in (4, 0)]
        assert [file_of(joined, i) for i in range(3)] == [None, *files]
    assert file_of(Draws(), 0) is None
    (tmp_path / "b" / "3.png").write_bytes(b"")
    for data in (ours, torchvisions):
        with pytest.raises(UnreadableImageError, match=r"sample \d of the data: .*b/3\.png"):
            [*ExperienceLoader(DataLoader(data, collate_fn=list))]


def test_drawing_from_a_seed() -> None:
    with drawing_from(2**63 - 1):
        first = torch.rand(2), random.random(), np.random.rand()
    with drawing_from(2**63 - 1):
        assert torch.equal(torch.rand(2), first[0])
        assert (random.random(), np.random.rand()) == first[1:]
