"""Streams by name: which data there are, how they can be divided, and a stream made again.

A stream is data and a way to divide them. :data:`STREAMS` has the data, each with the ways that fit
it, the usual one first; :data:`DIVISIONS` has the ways. The options of both are those of the
functions that they name.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from avalanche.benchmarks import CLScenario

from avalanche_branchtune.errors import RecordError, UnknownOptionError, did_you_mean
from avalanche_branchtune.options import one_of
from avalanche_branchtune.streams.building import Transform, with_recipe
from avalanche_branchtune.streams.cifar import cifar10, cifar100, cifar100_superclasses
from avalanche_branchtune.streams.core50 import core50
from avalanche_branchtune.streams.digits import digits_on_photographs
from avalanche_branchtune.streams.domainnet import domainnet
from avalanche_branchtune.streams.folders import image_folder
from avalanche_branchtune.streams.hub import hub_images
from avalanche_branchtune.streams.imagenet import class_list, imagenet, tiny_imagenet
from avalanche_branchtune.streams.online import online
from avalanche_branchtune.streams.recurring import power_law_revisits, recurring, sparse_classes
from avalanche_branchtune.streams.scenarios import (
    altered_domains,
    class_incremental,
    data_incremental,
    domain_incremental,
    joint,
    predefined,
)
from avalanche_branchtune.streams.semantic import superclass_incremental

__all__ = ["DIVISIONS", "STREAMS", "NamedStream", "named_stream", "remade"]

_GIVEN = ("train_transform", "eval_transform")
"""Options of divisions that are code: they are no part of a recipe."""

Folder = str | os.PathLike[str]

DIVISIONS: Mapping[str, Callable[..., CLScenario]] = {
    "classes": class_incremental,
    "superclasses": superclass_incremental,
    "sparse": sparse_classes,
    "power_law": power_law_revisits,
    "recurring": recurring,
    "instances": data_incremental,
    "altered": altered_domains,
    "joint": joint,
    "domains": domain_incremental,
    "predefined": predefined,
}
"""From data to a stream."""

OF_CLASSES = tuple(name for name in DIVISIONS if name not in ("domains", "predefined"))


@dataclass(frozen=True)
class NamedStream:
    """Data that streams are made of.

    :param title: what they are, in a line.
    :param load: from options to training and test data.
    :param divisions: names of :data:`DIVISIONS` that fit, the usual one first.
    :param superclasses: of the data, from the same options, if they have any.

    Example::

        >>> import inspect
        >>> from avalanche_branchtune.streams import STREAMS
        >>> STREAMS["domainnet"].title
        'DomainNet: 345 classes in six domains, each an experience'
        >>> list(STREAMS["domainnet"].options())
        ['root', 'domains', 'cache']
        >>> STREAMS["split_cifar100"].options()["n_experiences"] is inspect.Parameter.empty
        True
    """

    title: str
    load: Callable[..., tuple[Any, Any]]
    divisions: tuple[str, ...] = OF_CLASSES
    superclasses: Callable[..., dict[str, list[int]]] | None = None

    def options(self, division: str | None = None) -> dict[str, Any]:
        """Return names and defaults of the options, ``inspect.Parameter.empty`` without one.

        :param division: how the data are divided; by default the usual way.
        """
        return _of(self.load) | self.of_division(division)

    def of_division(self, division: str | None) -> dict[str, Any]:
        """Return names and defaults of the options of a way to divide the data alone.

        :param division: see :meth:`options`.
        """
        own = _of(DIVISIONS[division or self.divisions[0]], skip=2)
        found = {name: value for name, value in own.items() if name not in _GIVEN}
        if self.superclasses is not None and "superclasses" in found:
            found["superclasses"] = None
        return found


def _of(function: Callable[..., Any], skip: int = 0) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    return {p.name: p.default for p in parameters}


def _digits(
    size: int = 16,
    samples: int | None = None,
    test_samples: int | None = None,
    backgrounds: int = 5,
    seed: int = 0,
) -> tuple[Any, Any]:
    how: dict[str, Any] = {"size": size, "backgrounds": backgrounds, "seed": seed}
    train = digits_on_photographs(samples=samples, **how)
    return train, digits_on_photographs(False, samples=test_samples, **how)


def _folder(root: Folder, cache: Folder | None = None) -> tuple[Any, Any]:
    train, test = (image_folder(os.path.join(root, p), cache=cache) for p in ("train", "test"))
    return train, test


def _cifar(read: Any, root: Folder | None = None, download: bool = False) -> tuple[Any, Any]:
    return read(root, download=download), read(root, False, download=download)


def _tiny_imagenet(
    root: Folder | None = None, download: bool = False, cache: Folder | None = None
) -> tuple[Any, Any]:
    train = tiny_imagenet(root, download=download, cache=cache)
    return train, tiny_imagenet(root, False, cache=cache)


def _imagenet(
    root: Folder, classes: Folder | Sequence[str] | None = None, cache: Folder | None = None
) -> tuple[Any, Any]:
    train, test = (imagenet(root, part, classes=classes, cache=cache) for part in (True, False))
    return train, test


def _imagenet100(
    root: Folder, classes: Folder | Sequence[str], cache: Folder | None = None
) -> tuple[Any, Any]:
    found = class_list(classes) if isinstance(classes, str | os.PathLike) else list(classes)
    if len(found) != 100:
        raise UnknownOptionError(f"classes: expected those of ImageNet-100; got {len(found)}")
    return _imagenet(root, found, cache)


def _core50(
    root: Folder | None = None,
    scenario: str = "nc",
    run: int = 0,
    objects: bool = True,
    mini: bool = False,
    download: bool = False,
    cache: Folder | None = None,
) -> tuple[Any, Any]:
    how: dict[str, Any] = {"objects": objects, "mini": mini, "download": download, "cache": cache}
    return core50(root, scenario, run, **how)


def _hugging_face(
    data: Folder,
    train: str = "train",
    test: str = "test",
    config: str | None = None,
    image: str | None = None,
    label: str | None = None,
) -> tuple[Any, Any]:
    how: dict[str, Any] = {"config": config, "image": image, "label": label}
    return hub_images(data, train, **how), hub_images(data, test, **how)


STREAMS: Mapping[str, NamedStream] = {
    "digits": NamedStream("Digits on photographs: 10 classes, without a download", _digits),
    "folder": NamedStream("A folder with train/<class>/ and test/<class>/", _folder),
    "split_cifar10": NamedStream("CIFAR-10, as torchvision keeps it", partial(_cifar, cifar10)),
    "split_cifar100": NamedStream(
        "CIFAR-100, as torchvision keeps it, with its 20 superclasses",
        partial(_cifar, cifar100),
        superclasses=cifar100_superclasses,
    ),
    "split_tiny_imagenet": NamedStream(
        "Tiny ImageNet: 200 classes of 64 x 64 pixels", _tiny_imagenet
    ),
    "split_imagenet": NamedStream(
        "ImageNet, or some of its classes by a list of them, from train/ and val/", _imagenet
    ),
    "split_imagenet100": NamedStream(
        "ImageNet-100, by the list of its classes, from ImageNet's folder", _imagenet100
    ),
    "core50": NamedStream(
        "CORe50: 50 objects in 11 sessions, in its authors' order", _core50, ("predefined",)
    ),
    "domainnet": NamedStream(
        "DomainNet: 345 classes in six domains, each an experience", domainnet, ("domains",)
    ),
    "hugging_face": NamedStream(
        "A data set of the Hugging Face hub, or a folder of its library", _hugging_face
    ),
}
"""Data by name."""


def named_stream(
    name: str,
    division: str | None = None,
    *,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    **options: Any,
) -> CLScenario:
    """Make a stream by its name.

    :param name: of :data:`STREAMS`.
    :param division: how the data are divided, of :data:`DIVISIONS`; by default the usual way.
    :param train_transform: transform of the group "train".
    :param eval_transform: transform of the group "eval".
    :param options: of the data and of the division, see :meth:`NamedStream.options`; what both have
        (``seed``) goes to both.
    :return: the benchmark; its ``recipe`` has name and options.
    :raises UnknownOptionError: for an unknown name or option, and for one that is missing.
    :raises BranchTuneError: those of the functions that read the data and divide them.

    Example::

        >>> from avalanche_branchtune.streams import named_stream
        >>> benchmark = named_stream("digits", n_experiences=5, samples=100, size=8)
        >>> [len(e.dataset) for e in benchmark.train_stream]
        [20, 20, 20, 20, 20]
        >>> benchmark = named_stream(
        ...     "digits", "sparse", n_experiences=3, per_experience=2, samples=100, size=8
        ... )
        >>> [len(e.classes_in_this_experience) for e in benchmark.train_stream]
        [2, 2, 2]
        >>> named_stream("digits", n_experience=5)
        Traceback (most recent call last):
        avalanche_branchtune.errors.UnknownOptionError: ...unknown option n_experience; did you ...
    """
    entry = STREAMS[one_of("named_stream(name=…)", name, STREAMS)]
    division = entry.divisions[0] if division is None else division
    one_of(f"named_stream({name!r}, division=…)", division, entry.divisions)
    known = entry.options(division)
    for option in options:
        if option not in known:
            raise UnknownOptionError(
                f"named_stream({name!r}): unknown option {option}{did_you_mean(option, known)}; "
                f"there are {', '.join(known)}"
            )
    missing = [n for n, v in known.items() if v is inspect.Parameter.empty and n not in options]
    if missing:
        raise UnknownOptionError(f"named_stream({name!r}): {missing[0]}=… is needed")
    of_data = {n: options[n] for n in _of(entry.load) if n in options}
    how = {n: options[n] for n in entry.of_division(division) if n in options}
    if "superclasses" in known and how.get("superclasses") is None and entry.superclasses:
        own = _of(entry.superclasses)
        how["superclasses"] = entry.superclasses(**{n: of_data.get(n) for n in own})
    data = entry.load(**of_data)
    transforms = {"train_transform": train_transform, "eval_transform": eval_transform}
    benchmark = DIVISIONS[division](*data, **how, **transforms)
    where = {"name": name, "data": _plain(of_data)}
    return with_recipe(benchmark, {**where, **getattr(benchmark, "recipe", {})})


def remade(
    recipe: Mapping[str, Any],
    data: tuple[Any, Any] | None = None,
    *,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
) -> CLScenario:
    """Make a stream again, as the ``recipe`` of a benchmark, or of a run's record, says.

    :param recipe: plain data. The order of the classes is taken from it and not from a seed.
    :param data: training and test data; they may be left out where the recipe has their name.
    :param train_transform: transform of the group "train", which is no part of a recipe.
    :param eval_transform: transform of the group "eval".
    :return: the benchmark.
    :raises RecordError: for a recipe that cannot be followed.
    :raises BranchTuneError: those of the functions that read the data and divide them.

    Example::

        >>> import json
        >>> from avalanche_branchtune.streams import named_stream, online, remade
        >>> benchmark = online(named_stream("digits", n_experiences=5, samples=100, size=8), 10)
        >>> recipe = json.loads(json.dumps(benchmark.recipe))
        >>> again = remade(recipe)
        >>> [list(e.dataset.targets) for e in again.train_stream] == [
        ...     list(e.dataset.targets) for e in benchmark.train_stream
        ... ]
        True
    """
    how = dict(recipe)
    name, options, cut = how.pop("name", None), how.pop("data", {}), how.pop("online", None)
    makers = {function.__name__: function for function in DIVISIONS.values()}
    make = makers.get(how.pop("made by", ""))
    if make is None or not (data is not None or name in STREAMS):
        raise RecordError(
            "remade(recipe=…): expected how a stream was made ('made by': one of "
            f"{', '.join(makers)}) and the name of its data, or data; got {dict(recipe)!r}"
        )
    unknown = [n for n in how if n not in _of(make, skip=2)]
    unknown += [n for n in options if data is None and n not in _of(STREAMS[str(name)].load)]
    if unknown:
        raise RecordError(f"remade(recipe=…): {make.__name__} and its data know no {unknown[0]!r}")
    train, test = STREAMS[str(name)].load(**options) if data is None else data
    transforms = {"train_transform": train_transform, "eval_transform": eval_transform}
    benchmark = make(train, test, **how, **transforms)
    named = {} if name is None else {"name": name, "data": options}
    benchmark = with_recipe(benchmark, {**named, **getattr(benchmark, "recipe", {})})
    return benchmark if cut is None else online(benchmark, **cut)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as a record keeps them."""
    found = {}
    for name, value in options.items():
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        found[name] = list(value) if listed else path
    return found
