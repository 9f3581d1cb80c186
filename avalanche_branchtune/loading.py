"""The data loader of an experience: samples that do not depend on chance elsewhere, images that
cannot be read, and a way into the middle of an epoch."""

from __future__ import annotations

import hashlib
import random
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import (
    BatchSizeError,
    UnknownOptionError,
    UnreadableImageError,
    ViewsError,
)
from avalanche_branchtune.experiences import file_of, torch_loader

UNREADABLE = (OSError, SyntaxError, Image.DecompressionBombError, ViewsError)
"""What images raise that cannot be read (Pillow says SyntaxError of a broken PNG) or used."""

_COPIED = frozenset(
    {"collate_fn", "generator", "multiprocessing_context", "num_workers", "persistent_workers"}
    | {"pin_memory", "prefetch_factor", "timeout", "worker_init_fn"}
)
"""Arguments of torch's loader that stay as they were."""

TRIED = 64
"""How many samples are tried for one that can be read."""


def first_readable(dataset: Any) -> Any:
    """Return a data set's first sample, or if that cannot be read the first that can.

    What is found unreadable here is counted and named when the loader comes to it.

    :param dataset: with at least one sample.
    :raises OSError: (or what else images raise) of the first sample, if :data:`TRIED` of them
        cannot be read.
    """
    try:
        return dataset[0]
    except UNREADABLE:
        for i in range(1, min(TRIED, len(dataset))):
            with suppress(*UNREADABLE):
                return dataset[i]
        raise


class Key(NamedTuple):
    """A sample that is to be loaded."""

    number: int
    seed: int | None


class Table(Protocol):
    """Samples that are in memory, of which whole minibatches can be had."""

    def minibatch(self, numbers: Sequence[int], seeds: Sequence[int] | None) -> Any:
        """Return samples as a loader would have loaded and collated them.

        :param numbers: of the samples.
        :param seeds: see :class:`Key`; None if they have none.
        """


class Unread(NamedTuple):
    """A sample that could not be loaded."""

    number: int
    file: str | None
    reason: str
    kind: type[ViewsError | UnreadableImageError]


class ExperienceLoader:
    """Loads what another loader would, in the same order, and says which image it cannot read.

    With a seed the order of an epoch depends on seed, experience and epoch alone; what is
    drawn for a sample (crops, flips, colours) on these and the sample's number in the data, and on
    how often it has come in this epoch; what ``collate_fn`` draws (mixing) on its minibatch's
    samples: not on the number of worker processes, on whether they live on, or on what else draws
    random numbers; and nothing that is drawn here moves the random state of others.  So the middle
    of an epoch can be entered without loading what came before it.  Without a seed all is drawn
    from the global random states, as by the other loader.

    In a job of several processes the minibatches are those of one process, and each rank loads its
    share of them: of W ranks rank r the samples r, r + W, r + 2W …  It must have a seed.

    :param loader: torch's, over numbered samples, or Avalanche's.
    :param seed: of order and samples; None for the global random states.
    :param experience: number of the experience, for the seed.
    :param name: of the experience, for messages.
    :param replaced: how often samples were replaced, by file or number; with it, a sample that
        cannot be read is replaced by another one of its minibatch, drawn anew, and counted here;
        without it, it ends the epoch.
    :raises UnknownOptionError: for a loader of another kind, if there is a seed.
    :raises BatchSizeError: when an epoch begins, for minibatches that W ranks cannot share equally.
    """

    def __init__(
        self,
        loader: Any,
        seed: int | None = None,
        experience: int = 0,
        *,
        name: str = "the data",
        replaced: dict[str, int] | None = None,
    ) -> None:
        """See the class."""
        made = torch_loader(loader)
        if made is None:
            raise UnknownOptionError(
                f"the data loader {type(loader).__name__} is none of torch's over numbered "
                "samples: pass reproducible_views=False, and on_bad_image='stop'"
            )
        self.dataset = made.dataset
        self.name = name
        self.replaced = replaced
        self.table: Table | None = None
        """The data in memory, if it is there: then nothing is loaded any more."""
        self._plan = _Plan(made.batch_sampler, seed, experience, name)
        settings = {name: getattr(made, name) for name in _COPIED}
        if seed is not None:
            settings["generator"] = torch.Generator()  # else the global one moves
        self._collate_fn = made.collate_fn
        settings["collate_fn"] = _Collate(made.collate_fn)
        loaded = _Loaded(made.dataset, replaced is not None)
        self._loader = DataLoader(loaded, batch_sampler=self._plan, **settings)

    @property
    def reproducible(self) -> bool:
        """Whether order and samples are drawn from a seed."""
        return self._plan.seed is not None

    @property
    def num_workers(self) -> int:
        """Processes that load samples, 0 for this one."""
        return self._loader.num_workers if self.table is None else 0

    @property
    def persistent_workers(self) -> bool:
        """Whether they live through all epochs."""
        return self._loader.persistent_workers and self.table is None

    @property
    def collate_fn(self) -> Any:
        """What the other loader makes minibatches by."""
        return self._collate_fn

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes.

        :param epoch: from 0.
        """
        self._plan.epoch = epoch

    def __len__(self) -> int:
        """Return the minibatches of a whole epoch."""
        return len(self._plan)

    def __iter__(self) -> Iterator[Any]:
        """Go through an epoch."""
        return self.going_on(0)

    def going_on(self, done: int) -> Iterator[Any]:
        """Go through the rest of an epoch.

        Only with a seed; else what was loaded before decides what comes.

        :param done: minibatches to leave out; they are not loaded.
        :raises UnreadableImageError: naming a sample that cannot be read, or its file.
        :raises ViewsError: naming a sample of which no views can be made, or its file.
        """
        self._plan.done = done
        if self.table is not None:
            for keys in self._plan:
                numbers, seeds = zip(*keys, strict=True)
                yield self.table.minibatch(numbers, None if seeds[0] is None else seeds)
            return
        ranks.rest(self.num_workers)
        for batch, unread in self._loader:
            if batch is None:
                raise self._error(unread[0])
            for one in unread:
                assert self.replaced is not None
                name = one.file or f"sample {one.number} of {self.name}"
                self.replaced[name] = self.replaced.get(name, 0) + 1
            yield batch

    def _error(self, one: Unread) -> Exception:
        file = "" if one.file is None or one.file in one.reason else f"{one.file}: "
        return one.kind(f"sample {one.number} of {self.name}: {file}{one.reason}")


class EndlessMinibatches:
    """Minibatches of a loader without end, one epoch after the other, also from the middle.

    A checkpoint leaves it out: whoever has one keeps its place, and makes it anew.

    :param loader: with a seed.
    :param place: where to begin, see :attr:`place`.
    """

    def __init__(self, loader: ExperienceLoader, place: tuple[int, int] = (0, 0)) -> None:
        """See the class."""
        self._loader = loader
        self.place = place
        """Epochs that were gone through, and minibatches of the one under way."""
        self._under_way = self._begin()

    def _begin(self) -> Iterator[Any]:
        epoch, done = self.place
        self._loader.set_epoch(epoch)
        return self._loader.going_on(done)

    def __iter__(self) -> EndlessMinibatches:
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Return the next minibatch."""
        try:
            batch = next(self._under_way)
        except StopIteration:
            self.place = (self.place[0] + 1, 0)
            self._under_way = self._begin()
            batch = next(self._under_way)
        self.place = (self.place[0], self.place[1] + 1)
        return batch


class _Plan:
    """The minibatches of an epoch: of each sample its number, and the seed of its draws."""

    def __init__(self, batches: Any, seed: int | None, experience: int, name: str) -> None:
        self.batches = batches
        self.name = name
        self.seed = seed
        self.experience = experience
        self.epoch = 0
        self.done = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        if self.seed is None:
            for batch in self.batches:
                yield [Key(index, None) for index in batch]
            return
        with drawing_from(mixed_seed(self.seed, self.experience, self.epoch)):
            batches = list(self.batches)
        self._check(batches)
        times: Counter[int] = Counter()
        for i, batch in enumerate(batches):
            keys = [self._key(index, times) for index in batch]
            if i >= self.done:
                yield list(ranks.own(keys))

    def _check(self, batches: list[list[int]]) -> None:
        unequal = [len(batch) for batch in batches if len(batch) % ranks.size()]
        if unequal:
            raise BatchSizeError(
                f"{self.name}: {ranks.size()} processes cannot share a minibatch of {unequal[0]} "
                f"samples equally: choose a train_mb_size (and batch_size_mem, or batch_size) that "
                f"is a multiple of {ranks.size()} and not above the number of samples"
            )

    def _key(self, index: int, times: Counter[int]) -> Key:
        assert self.seed is not None
        times[index] += 1
        return Key(
            index, mixed_seed(self.seed, self.experience, self.epoch, int(index), times[index])
        )


class _Batch(NamedTuple):
    """Samples, or None if one that could not be read ends it; which; and a seed for collating."""

    samples: list[Any] | None
    unread: list[Unread]
    seed: int | None = None


class _Loaded(Dataset[Any]):
    """Loads whole minibatches of samples."""

    def __init__(self, dataset: Any, replace: bool) -> None:
        self.dataset = dataset
        self.replace = replace

    def __getitems__(self, keys: Sequence[Key]) -> _Batch:
        # torch's loader asks for a whole minibatch where it can
        if keys and keys[0].seed is not None:
            with drawing_from(keys[0].seed):
                return self._batch(keys)._replace(seed=mixed_seed(*(k.seed or 0 for k in keys)))
        return self._batch(keys)

    def _batch(self, keys: Sequence[Key]) -> _Batch:
        samples: list[Any] = []
        unread: dict[int, Unread] = {}
        for key in keys:
            sample = self._sample(key.number, key.seed)
            samples.append(sample)
            if isinstance(sample, Unread):
                unread[len(samples) - 1] = sample
                if not self.replace:
                    return _Batch(None, [sample])
        for place in unread:
            others = [*range(place + 1, len(keys)), *range(place)]
            for other in (o for o in others if o not in unread):
                sample = self._sample(keys[other].number, keys[place].seed)
                if not isinstance(sample, Unread):
                    samples[place] = sample
                    break
            else:
                return _Batch(None, list(unread.values()))
        return _Batch(samples, list(unread.values()))

    def _sample(self, index: int, seed: int | None) -> Any:
        if seed is not None:
            draw_from(seed)
        try:
            return self.dataset[index]
        except UNREADABLE as error:
            kind = ViewsError if isinstance(error, ViewsError) else UnreadableImageError
            return Unread(index, file_of(self.dataset, index), str(error), kind)


class _Collate:
    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, loaded: _Batch) -> tuple[Any, list[Unread]]:
        if loaded.samples is None:
            return None, loaded.unread
        with nullcontext() if loaded.seed is None else drawing_from(loaded.seed):
            return self.collate(loaded.samples), loaded.unread


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Draw random numbers on the CPU from a seed; the random states are put back afterwards.

    :param seed: of 64 bits.
    """
    python, array, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        draw_from(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(cpu)


def draw_from(seed: int) -> None:
    """Draw random numbers on the CPU from a seed from now on, see :func:`drawing_from`.

    :param seed: of 64 bits.
    """
    random.seed(seed)
    np.random.seed(seed >> 31)  # torch's generator is the same, and takes the other bits
    torch.default_generator.manual_seed(seed)


def mixed_seed(*numbers: int) -> int:
    """Return a seed of 63 bits that depends on all of some numbers.

    :param numbers: in their order.
    """
    content = struct.pack(f"<{len(numbers)}Q", *(n & 0xFFFFFFFFFFFFFFFF for n in numbers))
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") >> 1
