"""Features of a frozen network."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from avalanche.benchmarks import CLExperience
from torch import Tensor, nn
from torch.utils.data import DataLoader

from avalanche_branchtune import ranks
from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.keeping import looked_at
from avalanche_branchtune.options import at_least_one


def single_images(dataset: Any) -> Any:
    """Return a data set as probes see it: with the ``eval`` transforms, if it is Avalanche's.

    :param dataset: any map-style data set, or an experience.
    :return: the data set.
    :raises ProbeError: if it has no samples.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation.features import single_images
        >>> from avalanche_branchtune.streams import joint
        >>> data = torch.utils.data.TensorDataset(torch.ones(2, 1), torch.tensor([0, 1]))
        >>> stream = joint(data, data, train_transform=lambda x: [x, x], eval_transform=torch.neg)
        >>> image, *_ = single_images(stream.train_stream[0])[0]
        >>> image.tolist()  # not the two views of training
        [-1.0]
    """
    if isinstance(dataset, CLExperience):
        dataset = dataset.dataset
    dataset = dataset.eval() if hasattr(dataset, "with_transforms") else dataset
    if len(dataset) == 0:
        raise ProbeError("a probe needs at least one sample: the data set is empty")
    return dataset


def loader_of(dataset: Any, batch_size: int, num_workers: int = 0) -> DataLoader[Any]:
    """Return a loader in the data set's order that leaves torch's random state alone.

    :param dataset: any map-style data set.
    :param batch_size: samples in a minibatch.
    :param num_workers: worker processes.
    :return: the loader; without a generator of its own it would draw from the
        global one, and training would depend on whether it is evaluated.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation.features import loader_of
        >>> state = torch.get_rng_state()
        >>> [batch.tolist() for batch in loader_of(range(5), batch_size=2)]
        [[0, 1], [2, 3], [4]]
        >>> torch.equal(torch.get_rng_state(), state)
        True
    """
    ranks.rest(num_workers)
    generator = torch.Generator().manual_seed(0)
    return DataLoader(dataset, batch_size=batch_size, num_workers=num_workers, generator=generator)


def extract_features(
    model: nn.Module,
    dataset: Any,
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    num_workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """Compute the features of a data set once, in its order.

    :param model: maps images ``(N, C, H, W)`` to features ``(N, D)``.
    :param dataset: yields ``(image, label, …)``; of an Avalanche data set the
        ``eval`` transforms are used.
    :param batch_size: images in a forward pass.
    :param device: where the model runs; by default where its parameters are.
    :param num_workers: workers of the data loader.
    :return: features ``(N, D)`` in float32 and labels ``(N,)``, on the CPU.
    :raises ProbeError: for an empty data set, images that are not single
        tensors, features that are not ``(N, D)`` or not finite.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation import extract_features
        >>> images, labels = torch.arange(8.0).reshape(2, 1, 2, 2), torch.tensor([7, 9])
        >>> data = torch.utils.data.TensorDataset(images, labels)
        >>> features, labels = extract_features(torch.nn.Flatten(), data)
        >>> features.tolist(), labels.tolist()
        ([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]], [7, 9])
    """
    dataset = single_images(dataset)
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    loader = loader_of(dataset, batch_size, num_workers)
    features, labels, done = torch.empty(0), [], 0
    with looked_at(model):
        for item in _minibatches(loader):
            images, targets = _image_and_label(item)
            out = model(images.to(device))
            if not isinstance(out, Tensor) or out.ndim != 2:
                shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                raise ProbeError(f"expected features (N, D), the model gave {shape}")
            if not torch.isfinite(out).all():
                bad = done + int((~torch.isfinite(out)).any(dim=1).nonzero()[0])
                raise ProbeError(
                    f"the features of sample {bad} are not finite: the network is damaged"
                )
            if not done:  # room for all at once: a list of parts would need it twice
                features = torch.empty(len(dataset), out.shape[1])
            features[done : done + len(out)] = out
            labels.append(targets)
            done += len(out)
    return features, torch.cat(labels)


class FeatureCache:
    """Features that are computed once for each state of a model and each data set.

    A model is known by its structure and the content of its ``state_dict``, so
    that a trained model is a new one; a data set by being the same object.
    Kept in memory; the least recently used are dropped.

    :param max_mib: memory for features, in MiB; the newest are kept whatever
        their size.
    :param max_networks: states of models whose features are kept, the latest.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation import FeatureCache
        >>> data = torch.utils.data.TensorDataset(torch.ones(3, 2), torch.tensor([0, 1, 1]))
        >>> cache, model = FeatureCache(), torch.nn.Linear(2, 2)
        >>> features, _ = cache.features(model, data)
        >>> model.weight.data += 1  # another state of the model
        >>> cache.features(model, data)[0] is features, len(cache)
        (False, 2)
    """

    computed_again = True
    """Checkpoints leave out what is in it."""

    def __init__(self, max_mib: float = 2048, max_networks: int = 2) -> None:
        """See the class."""
        self.max_mib = max_mib
        self.max_networks = at_least_one("FeatureCache(max_networks=…)", max_networks)
        self._kept: OrderedDict[tuple[str, int], tuple[Any, Tensor, Tensor]] = OrderedDict()

    def features(
        self, model: nn.Module, dataset: Any, *, key: str | None = None, **settings: Any
    ) -> tuple[Tensor, Tensor]:
        """Return what :func:`extract_features` does, from memory if it is there.

        :param model: see :func:`extract_features`.
        :param dataset: see :func:`extract_features`; its content must not change.
        :param key: the model's :func:`fingerprint`, if it is already known.
        :param settings: further arguments of :func:`extract_features`.
        :return: features ``(N, D)`` and labels ``(N,)``: not to be changed.
        """
        key = fingerprint(model) if key is None else key
        place = (key, id(dataset))
        if place not in self._kept or self._kept[place][0] is not dataset:
            # The data set is kept as well: its id must not be given to another one, as it was in
            # the process that wrote a checkpoint.
            self._kept[place] = (dataset, *extract_features(model, dataset, **settings))
        self._kept.move_to_end(place)
        networks = list(dict.fromkeys(known for known, _ in reversed(self._kept)))
        for gone in [p for p in self._kept if p[0] in networks[self.max_networks :]]:
            del self._kept[gone]  # a network that was trained on does not come back
        while len(self._kept) > 1 and self.mib > self.max_mib:
            self._kept.popitem(last=False)
        return self._kept[place][1:]

    @property
    def mib(self) -> float:
        """Memory that the features take, in MiB."""
        tensors = [t for _, x, y in self._kept.values() for t in (x, y)]
        return sum(t.numel() * t.element_size() for t in tensors) / 1024**2

    def __len__(self) -> int:
        """Return the number of (model, data set) pairs."""
        return len(self._kept)

    def __bool__(self) -> bool:
        """Be true also when empty."""
        return True


def fingerprint(model: nn.Module) -> str:
    """Return a text that differs between models of different structure or state.

    :param model: any module.
    :return: hexadecimal digest of its ``repr`` and of the bytes of its ``state_dict``.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation.features import fingerprint
        >>> model = torch.nn.Linear(2, 2)
        >>> before = fingerprint(model)
        >>> model.eval().weight.data += 1
        >>> fingerprint(model) == before, fingerprint(model) == fingerprint(model.train())
        (False, True)
    """
    digest = hashlib.blake2b(repr(model).encode(), digest_size=16)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _minibatches(loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        yield from loader
    except TypeError as error:
        if "default_collate" not in str(error):
            raise
        raise ProbeError(
            "a probe needs images as tensors: give the data set a transform, or the stream an "
            f"eval_transform (for example EvalTransform). {error}"
        ) from error


def _image_and_label(item: Any) -> tuple[Tensor, Tensor]:
    if isinstance(item, Tensor) or len(item) < 2 or not isinstance(item[1], Tensor):
        raise ProbeError("a probe needs labelled data: items (image, label, …) with integer labels")
    if not isinstance(item[0], Tensor):
        raise ProbeError(
            "a probe needs one tensor per image: give the data set's eval transform one view (for "
            "example EvalTransform), not a list of views"
        )
    return item[0], item[1]
