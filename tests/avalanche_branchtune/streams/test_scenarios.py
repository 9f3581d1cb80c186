from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from avalanche.benchmarks import task_incremental_benchmark
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from avalanche.core import BaseSGDPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training import LwF, Naive, Replay
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates.base_sgd import BaseSGDTemplate
from avalanche.training.templates.observation_type import BatchObservation
from avalanche.training.templates.update_type import SGDUpdate
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import FakeData
from torchvision.transforms.functional import to_tensor

from avalanche_branchtune.errors import EmptyExperienceError, LabelError, UnknownOptionError
from avalanche_branchtune.streams import (
    altered_domains,
    class_incremental,
    data_incremental,
    digits_on_photographs,
    domain_incremental,
    hide_labels,
    image_folder,
    joint,
    split_domains,
    unlabelled_folder,
    without_labels,
)

TRAIN = digits_on_photographs(samples=200)
TEST = digits_on_photographs(train=False, samples=100)
EMPTY = TRAIN.subset([])


def tensor(image):
    return to_tensor(image)


def two_views(image):
    return [to_tensor(image), 1 - to_tensor(image)]


def labels_in(data) -> list[int]:
    return [int(item[1]) for item in data]


def stream_of_targets(stream) -> list[list[int]]:
    return [list(experience.dataset.targets) for experience in stream]


# --- class-incremental ---------------------------------------------------------------------


def test_class_incremental_gives_every_sample_once_by_class() -> None:
    benchmark = class_incremental(TRAIN, TEST, 5)
    assert len(benchmark.train_stream) == len(benchmark.test_stream) == 5
    seen: set[int] = set()
    for train, test in zip(benchmark.train_stream, benchmark.test_stream, strict=True):
        classes = train.classes_in_this_experience
        assert len(classes) == 2 and classes == test.classes_in_this_experience
        assert set(labels_in(train.dataset)) == classes == set(labels_in(test.dataset))
        assert len(train.dataset) == 40 and len(test.dataset) == 20
        assert train.previous_classes == seen and not seen & classes
        seen |= classes
        assert train.classes_seen_so_far == seen
        assert train.future_classes == set(range(10)) - seen
    assert seen == set(range(10))
    assert [e.current_experience for e in benchmark.train_stream] == [0, 1, 2, 3, 4]
    assert benchmark.train_stream[2].origin_stream.name == "train"


def test_class_incremental_seed_and_order() -> None:
    def classes(**arguments):
        stream = class_incremental(TRAIN, TEST, 5, **arguments).train_stream
        return [experience.classes_in_this_experience for experience in stream]

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert classes(seed=1) == classes(seed=1) != classes(seed=2)
    assert torch.equal(torch.rand(1), expected)  # Avalanche itself would reseed torch
    order = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert classes(class_order=order) == [{9, 8}, {7, 6}, {5, 4}, {3, 2}, {1, 0}]


@pytest.mark.parametrize("n_experiences", [-1, 0, 3, 4, 11])
def test_class_incremental_drops_no_remainder(n_experiences: int) -> None:
    with pytest.raises(UnknownOptionError, match=r"10 classes: expected one of 1, 2, 5, 10; got"):
        class_incremental(TRAIN, TEST, n_experiences)


SIZES = [5, 1, 1, 3]


def test_class_incremental_with_unequal_experiences() -> None:
    order = [9, 0, 8, 1, 7, 2, 6, 3, 5, 4]
    benchmark = class_incremental(TRAIN, TEST, SIZES, class_order=order)
    for stream, per_class in ((benchmark.train_stream, 20), (benchmark.test_stream, 10)):
        classes = [experience.classes_in_this_experience for experience in stream]
        assert classes == [{9, 0, 8, 1, 7}, {2}, {6}, {3, 5, 4}]
        assert [set(labels_in(experience.dataset)) for experience in stream] == classes
        assert [len(experience.dataset) for experience in stream] == [n * per_class for n in SIZES]
    assert benchmark.train_stream[2].classes_seen_so_far == {9, 0, 8, 1, 7, 2, 6}


@pytest.mark.parametrize("n_experiences", [1, 2, 5, 10])
def test_class_incremental_with_equal_numbers_is_that_with_their_count(n_experiences: int) -> None:
    expected = class_incremental(TRAIN, TEST, n_experiences, seed=4)
    found = class_incremental(TRAIN, TEST, (10 // n_experiences,) * n_experiences, seed=4)
    for stream in ("train_stream", "test_stream"):
        parts = zip(getattr(expected, stream), getattr(found, stream), strict=True)
        assert all([*a.dataset] == [*b.dataset] for a, b in parts)


@pytest.mark.parametrize("sizes", [[], [5, 4], [5, 6], [5, 0, 5], [11, -1], [5, 2.5, 2.5], "55"])
def test_class_incremental_refuses_numbers_that_do_not_add_up(sizes) -> None:
    with pytest.raises(UnknownOptionError, match=r"n_experiences=…\) with 10 classes: expected "):
        class_incremental(TRAIN, TEST, sizes)


def test_class_incremental_with_gaps_between_class_numbers() -> None:
    def keep(data):
        return data.subset(i for i, label in enumerate(data.targets) if label in (1, 4, 6, 9))

    benchmark = class_incremental(keep(TRAIN), keep(TEST), 2)
    union = set().union(*(e.classes_in_this_experience for e in benchmark.train_stream))
    assert union == {1, 4, 6, 9}


@pytest.mark.parametrize("order", [[0, 1], [*range(9), 8], list(range(11))])
def test_class_incremental_refuses_incomplete_order(order: list[int]) -> None:
    with pytest.raises(LabelError, match="class_order"):
        class_incremental(TRAIN, TEST, 5, class_order=order)


def test_class_incremental_refuses_unknown_test_classes_and_missing_labels(tmp_path: Path) -> None:
    known = TRAIN.subset(i for i, label in enumerate(TRAIN.targets) if label < 4)
    with pytest.raises(LabelError, match=r"test=…\): classes \[4, 5, 6, 7, 8, 9\]"):
        class_incremental(known, TEST, 2)
    TRAIN[0][0].save(tmp_path / "x.png")
    with pytest.raises(LabelError, match=r"train=…\): 1 of 1 samples have no class"):
        class_incremental(unlabelled_folder(tmp_path), TEST, 1)


def test_empty_experience_is_named() -> None:
    few = TEST.subset(i for i, label in enumerate(TEST.targets) if label != 3)
    order = list(range(10))
    with pytest.raises(EmptyExperienceError, match=r"test_stream\[3\]"):
        class_incremental(TRAIN, few, 10, class_order=order)


# --- data-incremental, domain-incremental --------------------------------------------------


@pytest.mark.parametrize("n_experiences", [1, 3, 7])
def test_data_incremental_deals_every_class_to_every_experience(n_experiences: int) -> None:
    benchmark = data_incremental(TRAIN, TEST, n_experiences, train_transform=tensor)
    parts = stream_of_targets(benchmark.train_stream)
    sizes = [len(part) for part in parts]
    assert len(parts) == n_experiences and sum(sizes) == 200 and max(sizes) - min(sizes) <= 1
    for label in range(10):
        counts = [part.count(label) for part in parts]
        assert sum(counts) == 20 and max(counts) - min(counts) <= 1
    pixels = [item[0].sum().item() for e in benchmark.train_stream for item in e.dataset]
    whole = [tensor(image).sum().item() for image, _ in TRAIN]
    assert sorted(pixels) == sorted(whole)  # each sample once
    assert len(benchmark.test_stream) == 1 and len(benchmark.test_stream[0].dataset) == 100
    assert benchmark.train_stream[0].classes_in_this_experience == set(range(10))


def test_data_incremental_seed() -> None:
    def first(seed: int) -> bytes:
        stream = data_incremental(TRAIN, TEST, 4, seed=seed).train_stream
        return b"".join(item[0].tobytes() for item in stream[0].dataset)

    assert first(1) == first(1) != first(2)


def test_data_incremental_refuses_empty_experiences() -> None:
    with pytest.raises(EmptyExperienceError, match=r"train_stream\[3\]"):
        data_incremental(TRAIN.subset([0, 1, 2]), TEST, 5)
    with pytest.raises(UnknownOptionError, match=r"n_experiences=…\): expected at least 1; got 0"):
        data_incremental(TRAIN, TEST, 0)


def test_domain_incremental_keeps_the_order_of_domains() -> None:
    train, test = split_domains(TRAIN)[::-1], split_domains(TEST)[::-1]
    benchmark = domain_incremental(train, test, train_transform=tensor, eval_transform=tensor)
    assert len(benchmark.train_stream) == len(benchmark.test_stream) == 5
    for experience, domain in zip(benchmark.train_stream, train, strict=True):
        assert torch.equal(experience.dataset[3][0], tensor(domain[3][0]))
        assert list(experience.dataset.targets) == domain.targets
        assert experience.classes_in_this_experience == set(range(10))
    with pytest.raises(UnknownOptionError, match=r"expected 5 data sets.*got 4"):
        domain_incremental(train, test[:4])
    with pytest.raises(EmptyExperienceError, match=r"test_domains\[1\]"):
        domain_incremental(train[:2], [test[0], EMPTY])
    with pytest.raises(EmptyExperienceError, match="no domain"):
        domain_incremental([], [])


# --- altered domains -----------------------------------------------------------------------


def pixels_of(data) -> list[bytes]:
    return [item[0].tobytes() for item in data]


def inverted(image: bytes) -> bytes:
    return bytes(255 - value for value in image)


@pytest.mark.parametrize("names", [["plain", "inverted"], ["inverted", "plain", "inverted"]])
def test_altered_domains_deal_the_training_images_and_show_every_test_image(names) -> None:
    benchmark = altered_domains(TRAIN, TEST, names)
    assert len(benchmark.train_stream) == len(benchmark.test_stream) == len(names)
    there: list[bytes] = []
    for train, test, name in zip(*benchmark.streams.values(), names, strict=True):
        undo = inverted if name == "inverted" else bytes
        assert [undo(image) for image in pixels_of(test.dataset)] == pixels_of(TEST)
        assert labels_in(test.dataset) == TEST.targets
        there += [undo(image) for image in pixels_of(train.dataset)]
        counts = Counter(train.dataset.targets)
        assert set(counts) == set(range(10)) == train.classes_in_this_experience
        assert all(20 // len(names) <= n <= 20 / len(names) + 1 for n in counts.values())
        assert labels_in(train.dataset) == list(train.dataset.targets)
    assert sorted(there) == sorted(pixels_of(TRAIN))  # each image once


def test_altered_domains_seed_and_transforms() -> None:
    def first(seed: int, name: str = "plain", stream: str = "train_stream") -> list[bytes]:
        benchmark = altered_domains(TRAIN, TEST, [name, "plain"], seed=seed)
        return pixels_of(getattr(benchmark, stream)[0].dataset)

    assert first(1) == first(1) != first(2)
    assert first(1, "noise", "test_stream") == first(1, "noise", "test_stream")
    same = altered_domains(TEST, TEST, ["noise"])  # train and test images have noise of their own
    assert not set(pixels_of(same.train_stream[0].dataset)) & set(
        pixels_of(same.test_stream[0].dataset)
    )
    benchmark = altered_domains(TRAIN, TEST, train_transform=two_views, eval_transform=tensor)
    assert len(benchmark.train_stream) == 4 and len(benchmark.train_stream[1].dataset[0][0]) == 2
    assert torch.allclose(benchmark.test_stream[1].dataset[3][0], 1 - tensor(TEST[3][0]))
    copy = pickle.loads(pickle.dumps(benchmark.test_stream[2].dataset))
    assert torch.equal(copy[3][0], benchmark.test_stream[2].dataset[3][0])


def test_altered_domains_without_labels_and_with_hidden_ones() -> None:
    for data in (without_labels(TRAIN), hide_labels(TRAIN, 1)):
        benchmark = altered_domains(data, TEST, ["grey", "noise", "edges"])
        for experience in benchmark.train_stream:
            assert experience.classes_in_this_experience == set(range(10))
            assert set(experience.dataset.targets) == {-1}


class Counted(torch.utils.data.Dataset):
    """Images whose labels are known from the items alone; counts how often these are read."""

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return len(TEST)

    def __getitem__(self, i: int):
        self.reads += 1
        return TEST[i]


def test_altered_domains_look_for_labels_once() -> None:
    data = Counted()
    altered_domains(data, TEST, ["plain", "inverted", "grey"])
    assert data.reads == len(TEST) + 1


def test_altered_domains_refuse_what_cannot_be_divided() -> None:
    with pytest.raises(UnknownOptionError, match=r"altered_domains\(alterations.*mean blurred\?"):
        altered_domains(TRAIN, TEST, ["plain", "blur"])
    with pytest.raises(EmptyExperienceError, match="there is no alteration"):
        altered_domains(TRAIN, TEST, [])
    scarce = TRAIN.subset(
        i for i in range(200) if TRAIN.targets[i] != 3 or i == TRAIN.targets.index(3)
    )
    with pytest.raises(EmptyExperienceError, match="class 3 has 1 samples, not one for each of 2"):
        altered_domains(scarce, TEST, ["plain", "grey"])
    with pytest.raises(
        EmptyExperienceError, match=r"altered_domains\(train=…\): the data set has no"
    ):
        altered_domains(EMPTY, TEST)
    with pytest.raises(UnknownOptionError, match="without transform groups"):
        altered_domains(as_classification_dataset(TRAIN), TEST)


# --- joint ---------------------------------------------------------------------------------


def test_joint_holds_everything() -> None:
    benchmark = joint(TRAIN, TEST)
    assert len(benchmark.train_stream) == len(benchmark.test_stream) == 1
    assert labels_in(benchmark.train_stream[0].dataset) == TRAIN.targets
    assert labels_in(benchmark.test_stream[0].dataset) == TEST.targets


@pytest.mark.parametrize(
    "build",
    [
        lambda train, test: class_incremental(train, test, 1),
        lambda train, test: data_incremental(train, test, 1),
        joint,
    ],
)
def test_empty_data_sets_are_named(build) -> None:
    with pytest.raises(EmptyExperienceError, match=r"train=…\): the data set has no samples"):
        build(EMPTY, TEST)
    with pytest.raises(EmptyExperienceError, match=r"test=…\): the data set has no samples"):
        build(TRAIN, EMPTY)


# --- items and transforms ------------------------------------------------------------------


def test_transform_groups() -> None:
    benchmark = class_incremental(TRAIN, TEST, 2, train_transform=two_views, eval_transform=tensor)
    train, test = benchmark.train_stream[1].dataset, benchmark.test_stream[1].dataset
    views, label = train[0]
    assert len(views) == 2 and torch.equal(views[1], 1 - views[0]) and label == train.targets[0]
    assert torch.equal(train.eval()[0][0], views[0])
    assert torch.equal(train.eval().train()[0][0][1], views[1])
    assert torch.is_tensor(test[0][0])  # "eval" without asking
    assert len(test.train()[0][0]) == 2


@pytest.mark.parametrize(
    "build",
    [
        lambda train, test, **t: class_incremental(train, test, 1, **t),
        lambda train, test, **t: data_incremental(train, test, 1, **t),
        lambda train, test, **t: domain_incremental([train], [test], **t),
        joint,
    ],
)
def test_streams_start_in_their_own_group_whatever_the_data_set_was_in(build) -> None:
    train = as_classification_dataset(TRAIN).eval()
    benchmark = build(train, TEST, train_transform=two_views, eval_transform=tensor)
    assert len(benchmark.train_stream[0].dataset[0][0]) == 2
    assert torch.is_tensor(benchmark.test_stream[0].dataset[0][0])


def test_views_make_a_batch_of_views() -> None:
    benchmark = joint(TRAIN, TEST, train_transform=two_views, eval_transform=tensor)
    views, labels = next(iter(DataLoader(benchmark.train_stream[0].dataset, batch_size=8)))
    assert [view.shape for view in views] == [(8, 3, 16, 16)] * 2 and labels.tolist()
    bare = joint(without_labels(TRAIN), TEST, train_transform=two_views)
    (views,) = next(iter(DataLoader(bare.train_stream[0].dataset, batch_size=8, num_workers=1)))
    assert [view.shape for view in views] == [(8, 3, 16, 16)] * 2


def test_replaced_transforms_survive_concatenation_and_subset() -> None:
    benchmark = class_incremental(TRAIN, TEST, 2, train_transform=two_views, eval_transform=tensor)
    first, second = (experience.dataset for experience in benchmark.train_stream)
    replaced = first.replace_current_transform_group(tensor)
    assert torch.is_tensor(replaced[0][0]) and len(first[0][0]) == 2
    both = replaced.concat(second)
    assert len(both) == 200 and torch.is_tensor(both[0][0]) and len(both[150][0]) == 2
    assert torch.is_tensor(replaced.subset([3])[0][0])
    assert list(both.true_targets) == list(first.targets) + list(second.targets)


def test_one_missing_transform_does_not_borrow_the_other() -> None:
    dataset = joint(TRAIN, TEST, train_transform=two_views).train_stream[0].dataset
    assert isinstance(dataset.eval()[0][0], Image.Image)
    dataset = joint(TRAIN, TEST, eval_transform=tensor).train_stream[0].dataset
    assert isinstance(dataset[0][0], Image.Image) and torch.is_tensor(dataset.eval()[0][0])


def test_items_are_raw_without_transforms() -> None:
    image, label = joint(TRAIN, TEST).train_stream[0].dataset[3]
    assert isinstance(image, Image.Image) and image.tobytes() == TRAIN[3][0].tobytes()
    assert label == TRAIN.targets[3]


def test_benchmark_data_can_be_pickled() -> None:
    dataset = joint(TRAIN, TEST, train_transform=two_views).train_stream[0].dataset
    assert len(pickle.loads(pickle.dumps(dataset))[0][0]) == 2


# --- kinds of data sets --------------------------------------------------------------------


def test_avalanche_data_set_keeps_its_own_transforms() -> None:
    groups = TransformGroups({"train": tensor, "eval": tensor})
    source = as_classification_dataset(TRAIN, transform_groups=groups).eval()
    benchmark = class_incremental(
        source, TEST, 5, train_transform=lambda x: [x, 1 - x], eval_transform=None
    )
    dataset = benchmark.train_stream[0].dataset
    assert len(dataset[0][0]) == 2 and torch.is_tensor(dataset.eval()[0][0])
    again = class_incremental(dataset, benchmark.test_stream[0].dataset, 2)
    assert len(again.train_stream[0].dataset[0][0]) == 2
    assert len(again.train_stream[0].classes_in_this_experience) == 1


def test_torchvision_subset_and_folder(tmp_path: Path) -> None:
    fake = FakeData(30, (3, 8, 8), 2)  # has no list of labels
    benchmark = class_incremental(fake, fake, 2)
    assert sum(len(e.dataset) for e in benchmark.train_stream) == 30
    part = Subset(TRAIN, range(0, 200, 2))
    assert labels_in(joint(part, TEST).train_stream[0].dataset) == TRAIN.targets[::2]
    for i, (image, label) in enumerate(TEST):
        path = tmp_path / f"class{label}" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    folder = image_folder(tmp_path)
    benchmark = class_incremental(folder, folder, 5)
    assert Counter(len(e.dataset) for e in benchmark.train_stream) == {20: 5}


@pytest.mark.parametrize("hide", [lambda data: hide_labels(data, 0.9), without_labels])
def test_hidden_labels_still_split_by_class(hide) -> None:
    benchmark = class_incremental(hide(TRAIN), TEST, 5, train_transform=tensor, seed=3)
    open_benchmark = class_incremental(TRAIN, TEST, 5, seed=3)
    for hidden, shown in zip(benchmark.train_stream, open_benchmark.train_stream, strict=True):
        assert hidden.classes_in_this_experience == shown.classes_in_this_experience
        assert list(hidden.dataset.true_targets) == list(shown.dataset.targets)
        assert list(hidden.dataset.targets).count(-1) > 0
        for item, target in zip(hidden.dataset, hidden.dataset.targets, strict=True):
            assert len(item) == 1 or item[1] == target


def test_unlabelled_folder_makes_a_stream(tmp_path: Path) -> None:
    for i in range(6):
        TRAIN[i][0].save(tmp_path / f"{i}.png")
    data = unlabelled_folder(tmp_path)
    benchmark = data_incremental(without_labels(data), TEST, 2, train_transform=two_views)
    assert [len(e.dataset) for e in benchmark.train_stream] == [3, 3]
    assert benchmark.train_stream[0].classes_in_this_experience == set()
    assert len(benchmark.train_stream[1].dataset[0]) == 1


# --- Avalanche strategies ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "options"),
    [(Naive, {}), (LwF, {"alpha": 1.0, "temperature": 2.0}), (Replay, {"mem_size": 20})],
)
def test_avalanche_strategies_train_and_evaluate(strategy, options) -> None:
    torch.manual_seed(0)
    benchmark = class_incremental(TRAIN, TEST, 2, train_transform=tensor, eval_transform=tensor)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    trainer = strategy(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=20,
        train_epochs=20,
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True)),
        **options,
    )
    for experience in benchmark.train_stream:
        trainer.train(experience)
    results = trainer.eval(benchmark.train_stream)
    assert results["Top1_Acc_Exp/eval_phase/train_stream/Exp001"] > 0.6
    results = trainer.eval(benchmark.test_stream)
    assert "Top1_Acc_Exp/eval_phase/test_stream/Exp001" in results


class Agreement:
    """A problem mixin of a strategy that pulls the features of two views together."""

    def criterion(self):
        return (self.mb_output[0] - self.mb_output[1]).square().mean()

    def forward(self):
        return [self.model(view) for view in self.mbatch[0]]

    def _unpack_minibatch(self):
        assert len(self.mbatch) == 1  # no labels


class AgreementStrategy(BatchObservation, Agreement, SGDUpdate, BaseSGDTemplate):
    PLUGIN_CLASS = BaseSGDPlugin


def test_unlabelled_views_train_in_avalanche() -> None:
    benchmark = class_incremental(without_labels(TRAIN), TEST, 2, train_transform=two_views)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    strategy = AgreementStrategy(
        model=model, optimizer=optimizer, train_mb_size=20, train_epochs=5, evaluator=None
    )
    losses = []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        losses.append(strategy.loss.item())
    views = next(iter(DataLoader(benchmark.train_stream[1].dataset, batch_size=100)))[0]
    torch.manual_seed(0)
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    untrained = (fresh(views[0]) - fresh(views[1])).square().mean().item()
    assert len(losses) == 2 and max(losses) < 0.5 * untrained


def test_partly_labelled_data_train_with_an_ignored_index() -> None:
    benchmark = class_incremental(
        hide_labels(TRAIN, 0.5), TEST, 2, train_transform=tensor, eval_transform=tensor
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    before = model[1].weight.detach().clone()
    trainer = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.02),
        criterion=nn.CrossEntropyLoss(ignore_index=-1),
        train_mb_size=20,
        evaluator=None,
    )
    trainer.train(benchmark.train_stream[0])
    assert torch.isfinite(model[1].weight).all() and not torch.equal(model[1].weight, before)


def test_task_labels_can_be_set_afterwards() -> None:
    benchmark = task_incremental_benchmark(
        class_incremental(TRAIN, TEST, 2, train_transform=tensor), reset_task_labels=True
    )
    experience = benchmark.train_stream[1]
    assert isinstance(experience.dataset, AvalancheDataset)
    assert experience.task_label == 1 and experience.dataset[0][2] == 1


# --- names of classes ----------------------------------------------------------------------


class Named(torch.utils.data.Dataset):
    """Two samples of each class, whose number stands for a name."""

    def __init__(self, *classes: str) -> None:
        self.classes = list(classes)
        self.targets = [i for i in range(len(classes)) for _ in range(2)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[str, int]:
        return f"image of a {self.classes[self.targets[i]]}", self.targets[i]


class Wrapper(torch.utils.data.Dataset):
    def __init__(self, dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int):
        return self.dataset[i]


class Renumbered(Wrapper):
    def __init__(self, dataset, targets) -> None:
        super().__init__(dataset)
        self.targets = targets


PETS = Named("cat", "cow", "dog", "eel")
SCENARIOS = {
    "class_incremental": lambda train, test: class_incremental(train, test, 1),
    "data_incremental": lambda train, test: data_incremental(train, test, 2),
    "joint": joint,
    "altered_domains": lambda train, test: altered_domains(train, test, ["plain"]),
    "domain_incremental": lambda train, test: domain_incremental([train, TRAIN], [test, TEST]),
}
OTHERS = {
    "lacks 'cow', so its class 1 is 'dog' instead of 'cow'": Named("cat", "dog", "eel"),
    "lacks 'dog' and has besides 'pig', so its class 2 is 'pig'": Named("cat", "cow", "pig", "eel"),
    "orders them otherwise: its class 0 is 'cow' instead of 'cat'": Named(
        "cow", "cat", "dog", "eel"
    ),
    "has besides 'fox'": Named("cat", "cow", "dog", "eel", "fox"),
    "lacks 'eel'": Named("cat", "cow", "dog"),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("message", OTHERS)
def test_classes_of_other_names_are_refused(scenario: str, message: str) -> None:
    SCENARIOS[scenario](PETS, Named(*PETS.classes))
    with pytest.raises(LabelError, match=message) as error:
        SCENARIOS[scenario](PETS, OTHERS[message])
    assert scenario in str(error.value) and "test" in str(error.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: Subset(data, range(len(data))),
        lambda data: Subset(Subset(data, range(len(data))), range(len(data))),
        lambda data: torch.utils.data.ConcatDataset([data, data]),
        lambda data: hide_labels(data, 0.5),
        lambda data: without_labels(Subset(data, range(len(data)))),
        as_classification_dataset,
        lambda data: (
            as_classification_dataset(data).subset([0, 1]).concat(as_classification_dataset(data))
        ),
        Wrapper,
    ],
)
def test_names_of_classes_are_found_through_wrappers(wrap) -> None:
    joint(wrap(PETS), PETS)
    with pytest.raises(LabelError, match="lacks 'cow'"):
        joint(PETS, wrap(OTHERS["lacks 'cow', so its class 1 is 'dog' instead of 'cow'"]))


def test_two_folders_put_together_must_have_the_same_classes() -> None:
    both = torch.utils.data.ConcatDataset([PETS, Named("cat", "dog")])
    with pytest.raises(LabelError, match="two of its parts: Named lacks 'cow', 'eel'"):
        joint(both, PETS)


def test_what_has_no_names_is_not_compared(tmp_path: Path) -> None:
    """Arrays, unlabelled folders, and wrappers that number the classes themselves."""
    joint(PETS, TEST)
    TRAIN[0][0].save(tmp_path / "x.png")
    joint(unlabelled_folder(tmp_path), PETS)
    other = Named("dog", "eel")
    joint(PETS, Renumbered(other, [2, 2, 3, 3]))
