"""solo-learn's methods behind the interface of :mod:`solo_bridge.interface`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune.errors import BatchSizeError, UnknownOptionError, expected_one_of
from avalanche_branchtune.options import at_least, at_least_one, between, one_of, positive
from solo_bridge.augmentation import Augmentation, resized
from solo_bridge.backbones import features_dim, resolve
from solo_bridge.compat import Generation, MethodSettings, load, memories, parts
from solo_bridge.compat.trainer import TrainerStandIn
from solo_bridge.config import Config, settings_from_config
from solo_bridge.defaults import DEFAULTS
from solo_bridge.interface import Plan, SelfSupervisedMethod
from solo_bridge.presets import Preset, preset
from solo_bridge.spreading import shares
from solo_bridge.views import EvalTransform, Views, check_views, solo_views

CIFAR_STEM_UP_TO = 64
"""Largest image side, in pixels, for which a ResNet gets the CIFAR stem unless told otherwise."""


class SoloMethod(SelfSupervisedMethod):
    """A solo-learn method: its own modules and its own loss, without trainer and labels.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/methods and solo/losses: called here.

    :param name: ``"simclr"``, ``"byol"``, ``"barlow_twins"`` …, see
        :func:`available_methods`.
    :param backbone: name of one of solo-learn's backbones, of any timm or
        torchvision model, or any module from ``(N, C, H, W)`` to ``(N, D)``;
        by default ResNet-18 (ViT-Tiny for MAE).
    :param image_size: side of the views in pixels.
    :param num_classes: number of classes of the whole stream, against which
        labels are checked; None if there are none.
    :param large_views: number of full-size views; by default the method's.
    :param small_views: number of small views (multi-crop).
    :param cifar_stem: 3×3 stem without max-pool for ResNets; by default up to
        64 pixels.
    :param augmentations: pipelines of the views; the method's own by default.
    :param backbone_kwargs: arguments of the backbone's constructor.
    :param tau: first and last decay of the momentum network; by default the
        method's.
    :param queues: what becomes of embeddings that the method has stored
        (MoCo v2+, NNCLR, NNBYOL, NNSiam, ReSSL, All4One) when the next
        experience begins: ``"keep"``, as if training went on (so CaSSLe's
        code), or ``"clear"``.
        SwAV's queue and DeepClusterV2's memory always start anew: solo-learn
        makes them when training starts.
    :param prototypes: ``"keep"`` or ``"clear"`` the prototypes of SwAV and
        DINO.  DeepClusterV2 recomputes its own in each epoch.
    :param method_kwargs: solo-learn's settings of the method, over the
        defaults: ``proj_hidden_dim``, ``temperature`` …
    :raises UnknownOptionError: for an unknown method, backbone or setting.
    :raises UnsupportedSoloLearnError: if solo-learn is not there.
    """

    large_views: int

    preset: str | None = None
    """Name of the preset that :meth:`from_preset` made it of."""

    def __init__(
        self,
        name: str,
        backbone: str | nn.Module | None = None,
        *,
        image_size: int = 32,
        num_classes: int | None = None,
        large_views: int | None = None,
        small_views: int = 0,
        cifar_stem: bool | None = None,
        augmentations: Sequence[Augmentation] | None = None,
        backbone_kwargs: Mapping[str, Any] | None = None,
        tau: tuple[float, float] | None = None,
        queues: str = "keep",
        prototypes: str = "keep",
        **method_kwargs: Any,
    ) -> None:
        """See the class."""
        super().__init__()
        generation = load()
        _check(name, small_views, method_kwargs, generation)
        at_least_one("SoloMethod(image_size=…)", image_size)
        at_least(0, "SoloMethod(small_views=…)", small_views)
        for name_of, count in (("num_classes", num_classes), ("large_views", large_views)):
            if count is not None:
                at_least_one(f"SoloMethod({name_of}=…)", count)
        for decay in tau or ():
            between(0, 1, "SoloMethod(tau=…)", decay)
        for option, value in (("queues", queues), ("prototypes", prototypes)):
            one_of(f"SoloMethod({option}=…)", value, ("keep", "clear"))
        defaults = DEFAULTS[name]
        net, kwargs = resolve(
            backbone or defaults.backbone, generation, image_size, backbone_kwargs or {}
        )
        self.large_views = large_views or defaults.large_views
        settings = MethodSettings(
            backbone=net,
            cifar_stem=image_size <= CIFAR_STEM_UP_TO if cifar_stem is None else cifar_stem,
            num_classes=num_classes or 1,
            large_views=self.large_views,
            small_views=small_views,
            backbone_kwargs=kwargs,
            method_kwargs={**defaults.method_kwargs, **method_kwargs},
            tau=tau or defaults.tau,
        )
        try:
            self.solo = generation.build(name, settings)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise UnknownOptionError(
                f"SoloMethod({name!r}, {backbone if isinstance(backbone, str) else '…'!r}): "
                f"solo-learn ({generation.name}) refuses these settings: {error!r}"
            ) from error
        named = net if isinstance(net, str) else type(net).__name__
        self.settings = replace(settings, backbone=named)  # what checkpoints describe it by
        features_dim(self.backbone, image_size)
        self.trainer = TrainerStandIn()
        self.name = name
        self.image_size = image_size
        self.num_classes = num_classes
        self.small_views = small_views
        self.queues = queues
        self.prototypes = prototypes
        self.needs = defaults.needs
        self.evaluates = defaults.evaluates
        self.optimizer = defaults.optimizer
        self.optimizer_settings = dict(defaults.optimizer_settings)
        self.lr = defaults.lr
        self.weight_decay = defaults.weight_decay
        self.augmentations = list(
            augmentations
            if augmentations is not None
            else resized(defaults.augmentations, image_size)
        )
        self._experiences = 0
        memories.detach_normed_weights(self)

    def eval_transform(self) -> EvalTransform:
        """Return the transform of the images that the network is judged on.

        :return: of the method's image size, normalised as its views are, for ``eval_transform`` of
            a stream.
        """
        assert self.image_size is not None
        return EvalTransform.beside(self.augmentations, self.image_size)

    @classmethod
    def from_config(cls, config: Config) -> SoloMethod:
        """Build the method that a configuration of solo-learn's main branch describes.

        Its epochs, batch, optimizer, schedule, precision and memory format become the
        method's own, by which :class:`solo_bridge.SelfSupervised` trains it unless it is
        told otherwise.

        :param config: path of a yaml file, or its content as a mapping; see
            :func:`solo_bridge.config.settings_from_config`, which gives the same
            settings without a method.
        :return: the method, newly initialised.
        :raises ConfigError: see there.
        :raises UnknownOptionError: also for settings that solo-learn refuses.
        """
        found = settings_from_config(config)
        method = cls(**found.method)
        training = dict(found.strategy)
        said = training.pop("optimizer_settings")
        method.optimizer_settings = {**method.optimizer_settings, **said}
        for name, value in training.items():
            setattr(method, name, value)
        return method

    @classmethod
    def from_preset(cls, name: str, of: str | Preset, **overrides: Any) -> SoloMethod:
        """Build a method as a paper ran it.

        What the preset says of epochs, batch, optimizer, schedule and precision becomes the
        method's own, by which :class:`solo_bridge.SelfSupervised` trains it unless it is told
        otherwise; ``build(…, preset=…)`` takes the options of plugins from the preset too.

        :param name: ``"simclr"`` …, one that the preset has.
        :param of: the preset, or its name: see :data:`solo_bridge.presets.PRESETS`.
        :param overrides: arguments of the class that shall be others than the
            preset's: a backbone, ``image_size`` (to which the views are resized),
            ``temperature`` …
        :return: the method, newly initialised; its attribute ``preset`` is the name.
        :raises UnknownOptionError: for a preset that is none, for a method that it
            does not have, and as the class does.
        """
        found = of if isinstance(of, Preset) else preset(of)
        run, training = found.method(name), found.training(name)
        size = overrides.get("image_size", found.image_size)
        settings: dict[str, Any] = {
            "image_size": size,
            "num_classes": found.num_classes,
            "augmentations": resized(run.augmentations, size),
            **({} if run.tau is None else {"tau": run.tau}),
            **run.method_kwargs,
        }
        method = cls(name, **{**settings, **overrides})
        method.preset = found.name
        for key, value in training.items():
            setattr(method, key, value)
        return method

    def departures(self, of: Preset) -> list[str]:
        """Return where its settings are not a preset's, but for backbone and size.

        :param of: the preset.
        :return: ``"temperature 0.1 instead of 0.2"`` …, what it is and what the preset says.
        :raises UnknownOptionError: for a method that the preset does not have.
        """
        run = of.method(self.name)
        kept = {"queues": "keep", "prototypes": "keep"}
        tau = self.settings.tau
        own = {**self.settings.method_kwargs, "tau": tau, **{k: getattr(self, k) for k in kept}}
        theirs = {**run.method_kwargs, "tau": tau if run.tau is None else run.tau, **kept}
        found = [f"{k} {own[k]} instead of {v}" for k, v in theirs.items() if own[k] != v]
        views, said = (_each(resized(v, 1)) for v in (self.augmentations, run.augmentations))
        if len(views) != len(said):
            found.append(f"{len(views)} views instead of {len(said)}")
        for i, (view, wanted) in enumerate(zip(views, said, strict=False)):
            here, there = asdict(view), asdict(wanted)
            found += [
                f"{key} {here[key]} instead of {value} in view {i + 1}"
                for key, value in there.items()
                if here[key] != value
            ]
        return found

    @property
    def backbone(self) -> nn.Module:
        """The online backbone: images ``(N, C, H, W)`` to features ``(N, D)``."""
        return load().backbone(self.solo)

    @property
    def momentum_backbone(self) -> nn.Module | None:
        """The momentum backbone, which follows the online one; None if the method has none."""
        return load().momentum_backbone(self.solo)

    @property
    def projector(self) -> nn.Module | None:
        """The online projector: features ``(N, D)`` to embeddings ``(N, P)``; MAE has none."""
        return parts.projector(self.solo)

    @property
    def momentum_projector(self) -> nn.Module | None:
        """The momentum projector, which follows the online one; None if the method has none."""
        return parts.momentum_projector(self.solo)

    @property
    def mean_over_samples(self) -> bool:  # type: ignore[override]
        """Whether the loss is a mean over the samples: MAE's, which has no projector."""
        return self.projector is None

    @property
    def prototype_heads(self) -> list[nn.Module]:
        """SwAV's, DINO's and DeepClusterV2's: embeddings ``(N, P)`` of length 1 to scores."""
        return parts.prototype_heads(self.solo)

    @property
    def features_dim(self) -> int:
        """Number of features, D."""
        return int(self.solo.features_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the online backbone's features ``(N, D)`` of images ``(N, C, H, W)``."""
        features: Tensor = self.backbone(x)
        return features

    def loss(
        self,
        views: Sequence[Tensor],
        *,
        index: Tensor | None = None,
        labels: Tensor | None = None,
        **needed: Tensor,
    ) -> Tensor:
        """Return solo-learn's own loss, to which no label contributes (but for SupCon).

        :param views: ``large_views + small_views`` tensors ``(N, C, H, W)``.
        :param index: numbers of the samples ``(N,)``, for DeepClusterV2; of the whole minibatch,
            where the views are a share of it.
        :param labels: classes of the samples ``(N,)``, for SupCon; likewise.
        :param needed: nothing else.
        :return: scalar.
        """
        samples, device = views[0].shape[0] * shares(), views[0].device
        self._check_minibatch(samples)
        if not self.training:
            memories.rewind_queue(self.solo)  # buffers are put back after an evaluation
        if index is None:
            # Positives are found by index: within a minibatch every sample needs its own.
            index = torch.arange(samples, device=device)
        if labels is None or "labels" not in self.needs:
            labels = torch.full((samples,), -1, device=device)
        batch = [index, list(views), labels]
        loss: Tensor = self._attached().training_step(batch, self._batch)
        return loss

    def default_views(self) -> Views:
        """Return the transform from an image to this method's views."""
        return solo_views(self.augmentations)

    def check_views(self, views: Sequence[Tensor]) -> None:
        """Refuse views that do not fit; see :func:`solo_bridge.views.check_views`."""
        check_views(views, self.large_views, self.small_views, self.name)

    def use_channels_last(self, use: bool) -> None:
        """Lay kernels out for channels that come last, and let solo-learn do so with images."""
        super().use_channels_last(use)
        parts.use_channels_last(self.solo, use)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return solo-learn's groups without the online classifier, which is not trained."""
        return parts.trained_groups(self.solo)

    def start_experience(self, plan: Plan) -> None:
        """Start solo-learn's counters, schedules and memories anew; see ``queues``.

        :param plan: the experience's lengths.
        :raises BatchSizeError: for minibatches that the loss cannot take, see
            :meth:`why_not_batch`.
        """
        solo, batch = self.solo, min(plan.batch_size, plan.samples)
        self._check_minibatch(batch)
        self.trainer = TrainerStandIn(plan.steps_per_epoch, plan.epochs, plan.samples)
        solo.to(next(self.parameters()).device)  # tells Lightning's module where it is
        memories.restart(solo, plan.epochs, batch, plan.place)
        if self._experiences and self.queues == "clear":
            memories.clear_queues(solo)
        if self._experiences and self.prototypes == "clear":
            memories.clear_prototypes(solo)
        self._experiences += 1
        self._attached().on_train_start()

    def why_not_batch(self, samples: int) -> str | None:
        """Say why solo-learn's loss cannot take a minibatch: a queue's size, whitening in parts.

        MoCo v2+, NNCLR, NNBYOL, NNSiam, ReSSL and All4One take any number of samples up to
        their queue's size; solo-learn's queues do not go round, see
        :mod:`solo_bridge.compat.queues`.

        :param samples: N.
        """
        reason = memories.why_not_batch(self.solo, samples)
        return None if reason is None else f"{self.name}: {reason}"

    def _check_minibatch(self, samples: int) -> None:
        reason = self.why_not_batch(samples)
        if reason is not None:
            raise BatchSizeError(
                f"{reason}: change train_mb_size or eval_mb_size, or pass "
                "SoloMethod(queue_size=…) or (whitening_size=…)"
            )

    def set_steps(self, steps_per_epoch: int) -> None:
        """Let solo-learn's momentum schedule count the iterations that there will be."""
        self.trainer.train_dataloader.steps = steps_per_epoch

    def start_epoch(self, epoch: int) -> None:
        """Tell solo-learn that an epoch begins."""
        self.trainer.current_epoch = epoch
        self._attached().on_train_epoch_start()

    def expects_nan(self, epoch: int) -> bool:
        """Tell whether a NaN loss is meant to be: DeepClusterV2 has no targets at first."""
        return epoch == 0 and DEFAULTS[self.name].first_epoch_is_nan

    def after_backward(self) -> None:
        """Let solo-learn clip gradients or hold its prototypes still."""
        self._attached().on_after_backward()

    def after_step(self) -> None:
        """Count the step and let solo-learn update its momentum network."""
        index = self._batch
        self.trainer.global_step += 1
        load().end_batch(self._attached(), [], index)
        memories.detach_normed_weights(self)

    def _attached(self) -> Any:
        """Return solo-learn's module with its trainer, which copies and pickles leave behind."""
        self.solo.trainer = self.trainer
        return self.solo

    @property
    def _batch(self) -> int:
        """Index of the current minibatch in its epoch."""
        return self.trainer.global_step % max(1, self.trainer.num_training_batches)


def _each(augmentations: Sequence[Augmentation]) -> list[Augmentation]:
    """Return one pipeline for each view."""
    return [replace(a, num_crops=1) for a in augmentations for _ in range(a.num_crops)]


def available_methods() -> dict[str, str | None]:
    """Say which solo-learn methods work with the solo-learn that is installed.

    :return: name → None if it works, else the reason why it does not.
    """
    return {name: None if name in DEFAULTS else "unknown" for name in sorted(load().classes)}


def _check(
    name: str, small_views: int, method_kwargs: Mapping[str, Any], generation: Generation
) -> None:
    """Refuse a method that is not there, and settings that it does not have."""
    problem = available_methods().get(name, "unknown")
    if problem is not None:
        works = [n for n, p in available_methods().items() if p is None]
        raise expected_one_of(f"SoloMethod({name!r}): method", name, works)
    known = DEFAULTS[name].method_kwargs
    unknown = sorted(set(method_kwargs) - set(known))
    if unknown:
        raise UnknownOptionError(
            f"SoloMethod({name!r}, {unknown[0]}=…): unknown setting; {name} has "
            f"{', '.join(known)} (optimizer, learning rate and epochs belong to SelfSupervised)"
        )
    for key, value in method_kwargs.items():
        argument = f"SoloMethod({key}=…)"
        if key.endswith(("_dim", "_size", "_heads")):
            at_least_one(argument, value)
        elif "temperature" in key and not key.endswith("_epochs"):
            positive(argument, value)
    if small_views and name not in generation.multicrop:
        raise UnknownOptionError(
            f"SoloMethod({name!r}, small_views={small_views}): this method cannot compare "
            f"small views; in solo-learn's {generation.name} {sorted(generation.multicrop)} can"
        )
