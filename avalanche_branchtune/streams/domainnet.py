"""DomainNet (Peng et al., ICCV 2019): 345 classes in six domains."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from avalanche_branchtune.errors import LabelError, MissingDirectoryError
from avalanche_branchtune.options import one_of
from avalanche_branchtune.streams.folders import ImageFiles

__all__ = ["DOMAINNET", "domainnet"]

DOMAINNET = ("real", "quickdraw", "painting", "sketch", "infograph", "clipart")
"""Its domains, the one with most images first."""


def domainnet(
    root: str | os.PathLike[str],
    domains: Sequence[str] = DOMAINNET,
    *,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[list[ImageFiles], list[ImageFiles]]:
    """Find the images of DomainNet, domain by domain.

    Expected are ``root/real/<class>/*.jpg`` and so on, as its archives have them, and its authors'
    lists ``real_train.txt`` and ``real_test.txt``, in ``root`` or in ``root/splits``: lines such as
    ``real/airplane/real_002_000001.jpg 2``. Images of other lists are left out.

    :param root: the folder. DomainNet is downloaded by hand: http://ai.bu.edu/M3SDA.
    :param domains: which, in the order in which they come.
    :param cache: folder of decoded images, see :class:`ImageFiles`.
    :return: the training images, and the test images, of each domain. A class may be missing in
        one; its number is the same in all.
    :raises MissingDirectoryError: when a list is missing, or empty, or the folder of a domain.
    :raises UnknownOptionError: for an unknown domain.
    :raises LabelError: when a line says no class, or two lists say different ones.

    Example::

        >>> from avalanche_branchtune.streams import domainnet
        >>> domainnet("nowhere", ["real"])
        Traceback (most recent call last):
        avalanche_branchtune.errors.MissingDirectoryError: nowhere: expected DomainNet's ...
    """
    for domain in domains:
        one_of("domainnet(domains=…)", domain, DOMAINNET)
    lists = {(d, part): _lines(Path(root), d, part) for d in domains for part in ("train", "test")}
    names: dict[int, str] = {}
    for (domain, part), lines in lists.items():
        for file, label in lines:
            name = PurePosixPath(file).parts[1]
            if names.setdefault(label, name) != name:
                raise LabelError(
                    f"{domain}_{part}.txt: class {label} is {name!r} there, and {names[label]!r} "
                    "in a list before it: take all lists from one place"
                )
    classes = [names.get(i, f"class {i}") for i in range(1 + max(names))]
    found = {
        key: ImageFiles(
            [str(Path(root, f)) for f, _ in lines], [n for _, n in lines], classes, cache=cache
        )
        for key, lines in lists.items()
    }
    return [found[d, "train"] for d in domains], [found[d, "test"] for d in domains]


def _lines(root: Path, domain: str, part: str) -> list[tuple[str, int]]:
    """Return the files of a list and their classes."""
    name = f"{domain}_{part}.txt"
    places = [folder / name for folder in (root, root / "splits") if (folder / name).is_file()]
    if not places or not (root / domain).is_dir():
        raise MissingDirectoryError(
            f"{root}: expected DomainNet's {domain}/ and {name}, that in splits/ if you like; "
            "download both from http://ai.bu.edu/M3SDA and unpack them there"
        )
    found = []
    for number, line in enumerate(places[0].read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        file, _, label = line.strip().rpartition(" ")
        if not label.isdecimal() or len(PurePosixPath(file).parts) != 3:
            raise LabelError(
                f"{places[0]}, line {number}: expected a file and its class, such as "
                f"'{domain}/airplane/{domain}_002_000001.jpg 2'; got {line[:80]!r}"
            )
        found.append((file, int(label)))
    if not found:
        raise MissingDirectoryError(f"{places[0]}: expected a file in each line; found none")
    return found
