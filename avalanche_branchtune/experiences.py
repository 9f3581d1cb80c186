"""Where in its stream a strategy is, and what data is made of: alone here are Avalanche's private
names used.

An online stream cuts an experience into small ones.  Where these say to which
one they belong (``access_task_boundaries``), *the experience* is here always
the whole one; where they do not, each small one is an experience of its own.
"""

from __future__ import annotations

import bisect
import os
from typing import Any
from uuid import uuid4

from avalanche.benchmarks import OnlineCLExperience
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data_loader import MultiDatasetDataLoader
from avalanche.benchmarks.utils.flat_data import FlatData
from avalanche.training import JointTraining
from avalanche.training.utils import _at_task_boundary
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset


def whole_experience(experience: Any) -> Any:
    """Return the experience that a part was cut from, or the experience itself.

    :param experience: any of Avalanche's.
    """
    if isinstance(experience, OnlineCLExperience) and experience.access_task_boundaries:
        return experience.origin_experience
    return experience


def begins(strategy: Any) -> bool:
    """Tell whether an experience begins with what is trained now: False for its later parts.

    :param strategy: in training.
    """
    return bool(_at_task_boundary(strategy.experience, before=True))


def ends(strategy: Any) -> bool:
    """Tell whether an experience ends with what is trained now: False for its earlier parts.

    Avalanche 0.6 marks no part as the last where the parts divide the
    experience exactly: that it has ended is known when the next one begins.

    :param strategy: in training.
    """
    return bool(_at_task_boundary(strategy.experience, before=False))


def experience_index(strategy: Any) -> int:
    """Return the index in its stream of the experience in training.

    :param strategy: in training.
    :return: from 0; how many were trained before, if the experience has none.
    """
    index = getattr(whole_experience(strategy.experience), "current_experience", None)
    return int(strategy.clock.train_exp_counter if index is None else index)


def experience_key(strategy: Any, *, part: bool = False) -> tuple[str, int]:
    """Return what an experience is known by, also when it is trained again.

    :param strategy: in training.
    :param part: True to tell the parts of an online experience from each other:
        each brings data of its own.
    :return: a mark of its stream, and its index in it; without a stream, every
        experience that Avalanche's clock counts is another one.
    """
    experience = strategy.experience if part else whole_experience(strategy.experience)
    stream = getattr(experience, "_origin_stream", None)
    if stream is None or getattr(experience, "current_experience", None) is None:
        return ("", int(strategy.clock.train_exp_counter))
    return (stream_mark(experience), int(experience.current_experience))


def is_trained_alone(strategy: Any, experience: Any) -> bool:
    """Tell whether an experience is the one in training, and not one of several that are joined.

    :param strategy: in training.
    :param experience: as the call of ``train`` was given it.
    """
    if isinstance(strategy, JointTraining):
        return False
    now, stream = strategy.experience, getattr(experience, "_origin_stream", None)
    if now is experience or stream is None:
        return now is experience
    same_stream = getattr(now, "_origin_stream", None) is stream
    return same_stream and bool(now.current_experience == experience.current_experience)


def stream_mark(experience: Any, mark: str = "") -> str:
    """Return what the stream of an experience is known by.

    :param experience: any of Avalanche's.
    :param mark: what it was known by in another process.
    :return: empty for an experience without a stream.
    """
    stream = getattr(experience, "_origin_stream", None)
    if stream is None:
        return ""
    # Kept on the stream: ids are given to other objects later, and do not survive pickling.
    kept = vars(stream)
    if mark:
        kept["_branchtune_mark"] = mark
    found: str = kept.setdefault("_branchtune_mark", uuid4().hex)
    return found


def position(strategy: Any) -> int:
    """Return the place of the experience in training among those that a strategy was trained on.

    :param strategy: in training.
    :return: from 0, in the order in which they first came; its old one if it is
        trained again.
    """
    begun, key = _known(strategy), experience_key(strategy)
    begun.setdefault(key, False)
    return list(begun).index(key)


def mark_finished(strategy: Any) -> None:
    """Note that the training of an experience, or of a part of it, has ended as it should.

    :param strategy: whose experience it is; the note is kept there, once for
        each experience, whoever writes it and however often.
    """
    _known(strategy)[experience_key(strategy)] = True


def trained_before(strategy: Any) -> int:
    """Return how many other experiences were finished before the one in training.

    Unlike Avalanche's clock it neither counts an experience twice that is
    trained again, nor misses one after which a plugin raised an error.

    :param strategy: in training.
    """
    key = experience_key(strategy)
    return sum(finished for known, finished in _known(strategy).items() if known != key)


def finished_experiences(strategy: Any) -> int:
    """Return how many experiences a strategy has finished, see :func:`mark_finished`.

    :param strategy: any of Avalanche's.
    """
    return sum(_known(strategy).values())


def seen_experiences(strategy: Any) -> list[int]:
    """Return which experiences of the stream in training were begun, also unfinished ones.

    :param strategy: in training, after :func:`position` was asked for.
    :return: their indices, in the order of the stream.
    """
    mark, _ = experience_key(strategy)
    return sorted(index for known, index in _known(strategy) if known == mark)


def _known(strategy: Any) -> dict[tuple[str, int], bool]:
    """Return which experiences were begun, in their order, and whether they were finished."""
    kept = vars(strategy)
    if "known_experiences" not in kept:  # until now Avalanche's clock has counted them
        kept["known_experiences"] = {("", i): True for i in range(strategy.clock.train_exp_counter)}
    found: dict[tuple[str, int], bool] = kept["known_experiences"]
    return found


def stream_length(strategy: Any) -> int | None:
    """Return the number of experiences of the stream in training: 1 for joint training.

    :param strategy: in training.
    :return: None for a stream whose length is not known (lazy ones).
    """
    if isinstance(strategy, JointTraining):
        return 1
    try:
        return len(whole_experience(strategy.experience).origin_stream)
    except (AttributeError, TypeError):
        return None


def stream_samples(strategy: Any) -> list[int] | None:
    """Return how many samples each experience of the stream in training has.

    Parts of an online experience are experiences of their own here, with their own stream.

    :param strategy: in training.
    :return: None for a stream that does not know its length, or an experience without a stream.
    """
    stream = getattr(strategy.experience, "_origin_stream", None)
    try:
        if isinstance(strategy, JointTraining) or len(stream) < 1:  # type: ignore[arg-type]
            return None
        return [len(e.dataset) for e in stream]  # type: ignore[union-attr]
    except TypeError:
        return None


def stream_recipe(strategy: Any) -> dict[str, Any]:
    """Return how the stream in training was made, see :mod:`avalanche_branchtune.streams`.

    :param strategy: in training.
    :return: plain data; empty for other streams.
    """
    return recipe_of(strategy.experience)


def recipe_of(experience: Any) -> dict[str, Any]:
    """Return how the stream of an experience was made.

    :param experience: any of Avalanche's.
    :return: plain data; empty for other streams.
    """
    stream = getattr(experience, "_origin_stream", None)
    return dict(getattr(stream, "recipe", None) or {})


def loader_workers(strategy: Any) -> int | None:
    """Return how many processes load the data that is trained on, 0 for the strategy's own.

    :param strategy: in training, with the loader of an experience.
    :return: None for a loader that does not say.
    """
    loader = strategy.dataloader
    workers = getattr(loader, "num_workers", None)
    if workers is None and hasattr(loader, "loader_kwargs"):
        workers = loader.loader_kwargs.get("num_workers", 0)
    return None if workers is None else int(workers)


def has_persistent_workers(strategy: Any) -> bool:
    """Tell whether the processes that load the data live through all epochs of an experience.

    :param strategy: in training, with the loader of an experience.
    """
    loader = strategy.dataloader
    asked = getattr(loader, "loader_kwargs", {}).get("persistent_workers", False)
    return bool(getattr(loader, "persistent_workers", False) or asked)


def joined_datasets(dataset: AvalancheDataset) -> list[Any]:
    """Return the data sets that one of Avalanche's was made of, in any number of steps.

    :param dataset: its samples may be a part of theirs.
    """
    found, new = [], [dataset._flat_data]
    while new:
        data = new.pop(0)
        inner = getattr(data, "_datasets", None)
        if inner is None:
            found.append(data)
        else:
            new[:0] = inner
    return found


def torch_loader(loader: Any) -> DataLoader[Any] | None:
    """Return the loader of torch's that one of Avalanche's makes in every epoch.

    :param loader: Avalanche's, or one of torch's.
    :return: None for another one, for one that does more than they when it is gone through, or
        without numbered samples in minibatches.
    """
    kinds = DataLoader.__iter__, MultiDatasetDataLoader.__iter__
    if getattr(type(loader), "__iter__", None) not in kinds:
        return None
    made = loader._get_loader() if isinstance(loader, MultiDatasetDataLoader) else loader
    if not isinstance(made, DataLoader) or isinstance(made.dataset, IterableDataset):
        return None
    return None if made.batch_sampler is None else made


def file_of(dataset: Any, index: int) -> str | None:
    """Return the file of a sample.

    :param dataset: may be made of others, in any number of steps.
    :param index: of the sample.
    :return: None if the data set does not say.
    """
    while True:
        if isinstance(dataset, ConcatDataset):
            which = bisect.bisect_right(dataset.cumulative_sizes, index)
            index -= dataset.cumulative_sizes[which - 1] if which else 0
            dataset = dataset.datasets[which]
        elif isinstance(dataset, Subset):
            dataset, index = dataset.dataset, dataset.indices[index]
        elif isinstance(dataset, AvalancheDataset):
            dataset = dataset._flat_data
        elif isinstance(dataset, FlatData):
            which, index = dataset._get_idx(index)
            dataset = dataset._datasets[which]
        elif isinstance(getattr(dataset, "dataset", None), Dataset | AvalancheDataset):
            dataset = dataset.dataset  # one that adds something to each sample
        else:
            break
    for name in ("files", "samples"):  # ImageFiles here, torchvision's ImageFolder
        files = getattr(dataset, name, None)
        if isinstance(files, list) and index < len(files):
            file = files[index][0] if isinstance(files[index], tuple) else files[index]
            return str(file) if isinstance(file, str | os.PathLike) else None
    return None
