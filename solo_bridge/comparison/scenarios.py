"""The streams of comparisons: which data, and how they come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.options import at_least, one_of
from avalanche_branchtune.streams import (
    altered_domains,
    cifar100,
    class_incremental,
    digits_on_photographs,
    few,
    image_folder,
)
from avalanche_branchtune.streams.labels import find_labels
from solo_bridge.views import EvalTransform

CIFAR100 = "cifar100:"
"""What the folder of torchvision's CIFAR-100 is written behind, as data."""

ALTERATIONS = ("plain", "inverted", "edges", "rotated", "blurred", "noise")
"""Of the domains, in the order of the experiences."""

SCENARIOS = {
    "classes": "class-incremental",
    "unequal": "class-incremental, half of the classes in the first experience",
    "domains": f"domain-incremental ({', '.join(ALTERATIONS)})",
}
"""How data become a stream, by name."""


@dataclass(frozen=True)
class StreamSettings:
    """A stream, by what it is made of.

    :param data: folder with ``train`` and ``test``, each with a folder for each
        class; ``"cifar100:FOLDER"`` for CIFAR-100 as torchvision keeps it there; by
        default digits on photographs, which need no download.
    :param samples: training images, of the digits.
    :param size: side of the images in pixels.
    :param scenario: name of :data:`SCENARIOS`.
    :param experiences: number of experiences.
    :param per_class: training images of each class of ``data`` that are used; None for all.
    :param test_per_class: the same of its test images.
    :param later_per_class: training images of each class that comes after the first experience:
        few of them can be over-learnt; None for as many as in the first.
    :param seed: of the stream.
    :param class_seed: of the order of the classes; None for that of the stream.
    """

    data: str | None = None
    samples: int = 4000
    size: int = 16
    scenario: str = "classes"
    experiences: int = 5
    per_class: int | None = None
    test_per_class: int | None = None
    later_per_class: int | None = None
    seed: int = 0
    class_seed: int | None = None

    @property
    def eval_view(self) -> EvalTransform:
        """Of the images that networks are judged on."""
        return EvalTransform(self.size)

    def stream(self, cache: Path | None = None, view: EvalTransform | None = None) -> Any:
        """Return the stream.

        :param cache: folder for the decoded images of ``data``, see
            :class:`~avalanche_branchtune.streams.ImageFiles`.
        :param view: of the images that networks are judged on, instead of :attr:`eval_view`.
        """
        train, test = self._digits() if self.data is None else self._images(self.data, cache)
        view = self.eval_view if view is None else view
        if self.scenario == "domains":
            names = ALTERATIONS[: self.experiences]
            return altered_domains(train, test, names, eval_transform=view, seed=self.seed)
        parts: Any = self.experiences
        if self.scenario == "unequal":
            parts = unequal(len(set(find_labels(train).true)), self.experiences)
        order = self.seed if self.class_seed is None else self.class_seed
        stream = class_incremental(train, test, parts, eval_transform=view, seed=order)
        if self.later_per_class is None:
            return stream
        later = [c for e in stream.train_stream[1:] for c in e.classes_in_this_experience]
        train = few(train, dict.fromkeys(later, self.later_per_class), seed=self.seed)
        return class_incremental(train, test, parts, eval_transform=view, seed=order)

    def _digits(self) -> tuple[Any, Any]:
        test = digits_on_photographs(False, size=self.size, seed=self.seed)
        options: dict[str, Any] = {"size": self.size, "samples": self.samples, "seed": self.seed}
        return digits_on_photographs(True, **options), test

    def _images(self, folder: str, cache: Path | None) -> tuple[Any, Any]:
        train: Any
        test: Any
        if folder.startswith(CIFAR100):
            root = folder.removeprefix(CIFAR100)
            train, test = cifar100(root), cifar100(root, train=False)
        else:
            train = image_folder(f"{folder}/train", cache=cache)
            test = image_folder(f"{folder}/test", cache=cache)
        if self.per_class is not None:
            train = few(train, self.per_class, seed=self.seed)
        if self.test_per_class is not None:
            test = few(test, self.test_per_class, seed=self.seed)
        return train, test

    def check_stream(self) -> None:
        """Refuse what cannot be, before any data are read.

        :raises UnknownOptionError: naming the setting.
        """
        one_of("scenario", self.scenario, SCENARIOS)
        for name in ("samples", "size", "experiences"):
            at_least(1, name, getattr(self, name))
        at_least(0, "seed", self.seed)
        if self.data is not None and self.samples != StreamSettings.samples:
            raise UnknownOptionError(
                f"samples {self.samples}: of the digits; of {self.data} all images are used, or "
                "per_class of each class"
            )
        for name in ("per_class", "test_per_class"):
            if getattr(self, name) is not None:
                at_least(1, name, getattr(self, name))
                if self.data is None:
                    raise UnknownOptionError(f"{name}: of a folder of images; digits have samples")
        if self.later_per_class is not None:
            at_least(1, "later_per_class", self.later_per_class)
            if self.scenario == "domains":
                raise UnknownOptionError("later_per_class: the domains have the same classes")
        if self.scenario == "unequal":
            at_least(2, "experiences of scenario 'unequal'", self.experiences)
        if self.scenario == "domains" and self.experiences > len(ALTERATIONS):
            raise UnknownOptionError(
                f"experiences {self.experiences}: scenario 'domains' has {len(ALTERATIONS)}"
            )

    def stream_facts(self) -> dict[str, Any]:
        """Return what stands beside the numbers."""
        data = self.data or f"digits on photographs, {self.samples} training images"
        counts = {"training": self.per_class, "test": self.test_per_class}
        chosen = [f"{n} {what} images of each class" for what, n in counts.items() if n is not None]
        later = ""
        if self.later_per_class is not None:
            later = f", {self.later_per_class} training images of each class after the first"
        return {
            "data": ", ".join([data, *chosen]),
            **self.eval_view.facts(),
            "stream": f"{SCENARIOS[self.scenario]}, {self.experiences} experiences{later}",
            **({} if self.class_seed is None else {"seed of the class order": self.class_seed}),
        }


def classes_of(stream: Any) -> int:
    """Return how many classes there are, in all experiences.

    :param stream: see :meth:`StreamSettings.stream`.
    """
    return 1 + max(max(e.classes_in_this_experience) for e in stream.train_stream)


def unequal(classes: int, experiences: int) -> list[int]:
    """Return how many classes each experience has: half in the first, the rest divided equally.

    :param classes: how many there are.
    :param experiences: how many, at least two.
    """
    rest, others = classes // 2, experiences - 1
    return [classes - rest, *(rest // others + (i < rest % others) for i in range(others))]
