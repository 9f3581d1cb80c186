"""What a preset is: the settings of a paper's runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avalanche_branchtune.errors import UnknownOptionError, did_you_mean
from solo_bridge.augmentation import Augmentation


@dataclass(frozen=True)
class MethodPreset:
    """How a paper ran one of solo-learn's methods.

    :param script: where its settings stand, a path in the preset's repository.
    :param method_kwargs: all of solo-learn's settings of the method.
    :param augmentations: pipelines of the views.
    :param lr: learning rate for a batch of 256.
    :param weight_decay: weight decay.
    :param optimizer: name of the optimizer.
    :param optimizer_settings: further fields of
        :class:`solo_bridge.optim.OptimizerSettings`.
    :param tau: first and last decay of the momentum network; None without one.
    :param plugins: name → options of its plugin that belong to this method alone.
    """

    script: str
    method_kwargs: Mapping[str, Any]
    augmentations: tuple[Augmentation, ...]
    lr: float
    weight_decay: float
    optimizer: str = "lars"
    optimizer_settings: Mapping[str, Any] = field(default_factory=dict)
    tau: tuple[float, float] | None = None
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """The settings of a paper's runs on one stream.

    :param name: ``"paper/data set"``.
    :param title: the paper, in words.
    :param arxiv: its number there.
    :param repository: the authors' code, ``owner/name`` on GitHub.
    :param commit: the commit that was read.
    :param methods: solo-learn's name of a method → how it was run.
    :param data: name of the data set.
    :param image_size: side of the views in pixels.
    :param num_classes: classes of the whole stream.
    :param experiences: experiences of the stream, class-incremental.
    :param train_epochs: epochs of each experience.
    :param train_mb_size: images in a minibatch, on all GPUs together.
    :param precision: ``"32"``, ``"16"`` or ``"bf16"``.
    :param strategies: what is compared there, as :func:`solo_bridge.build` takes it.
    :param plugins: name → options of its plugin, for all methods.
    :param notes: what no setting says, for who compares figures.
    """

    name: str
    title: str
    arxiv: str
    repository: str
    commit: str
    methods: Mapping[str, MethodPreset]
    data: str
    image_size: int
    num_classes: int
    experiences: int
    train_epochs: int
    train_mb_size: int
    precision: str
    strategies: tuple[str, ...]
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def method(self, name: str) -> MethodPreset:
        """Return how a method was run.

        :param name: solo-learn's name.
        :raises UnknownOptionError: if it was not, with those that were.
        """
        if name not in self.methods:
            raise UnknownOptionError(
                f"preset {self.name!r}: {name!r} was not run there; it has "
                f"{', '.join(sorted(self.methods))}{did_you_mean(name, self.methods)}"
            )
        return self.methods[name]

    def training(self, name: str) -> dict[str, Any]:
        """Return the arguments of :class:`solo_bridge.SelfSupervised` that it sets.

        :param name: the method's.
        :raises UnknownOptionError: see :meth:`method`.
        """
        run = self.method(name)
        return {
            "optimizer": run.optimizer,
            "lr": run.lr,
            "weight_decay": run.weight_decay,
            "optimizer_settings": dict(run.optimizer_settings),
            "train_epochs": self.train_epochs,
            "train_mb_size": self.train_mb_size,
            "precision": self.precision,
        }

    def options(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the options of plugins, by their names.

        :param name: the method's.
        :raises UnknownOptionError: see :meth:`method`.
        """
        own = self.method(name).plugins
        every = [*self.plugins, *(n for n in own if n not in self.plugins)]
        return {n: {**self.plugins.get(n, {}), **own.get(n, {})} for n in every}
