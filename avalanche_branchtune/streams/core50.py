"""CORe50 (Lomonaco and Maltoni, CoRL 2017): 50 objects in 11 sessions, in its authors' order."""

from __future__ import annotations

import os
import re
from pathlib import Path

from avalanche.benchmarks.datasets.core50 import core50_data
from avalanche.benchmarks.datasets.core50.core50 import CORe50Dataset

from avalanche_branchtune.errors import MissingDirectoryError
from avalanche_branchtune.options import one_of
from avalanche_branchtune.streams.finding import folder_of, looking_for
from avalanche_branchtune.streams.folders import ImageFiles

__all__ = ["CORE50_SCENARIOS", "core50"]

CORE50_SCENARIOS = {
    "ni": "batches_filelists/NI_inc",
    "nc": "batches_filelists/NC_inc",
    "nic": "batches_filelists/NIC_inc",
    "nicv2_79": "NIC_v2_79",
    "nicv2_196": "NIC_v2_196",
    "nicv2_391": "NIC_v2_391",
}
"""Folders of the lists of files: new instances (a session each), new classes, and both."""

_OBJECT = re.compile(r"s\d+/o(\d+)/")


def core50(
    root: str | os.PathLike[str] | None,
    scenario: str = "nc",
    run: int = 0,
    *,
    objects: bool = True,
    mini: bool = False,
    download: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[list[ImageFiles], list[ImageFiles]]:
    """Find the images of each experience of CORe50.

    Expected are its images, ``root/core50_128x128/s1/o1/C_01_01_000.png`` and so on, and its lists,
    ``root/batches_filelists/NC_inc/run0/train_batch_00_filelist.txt`` and so on (for ``nicv2_…``
    ``root/NIC_v2_391/run0/…``): as Avalanche downloads them.

    Classes are what is seen, the same in each scenario and run: the lists' own numbers follow the
    order of a run.

    :param root: the folder; None for Avalanche's own.
    :param scenario: one of ``ni``, ``nc``, ``nic``, ``nicv2_79``, ``nicv2_196`` and ``nicv2_391``.
    :param run: which of its authors' orders, 0 to 9.
    :param objects: whether the 50 objects are the classes, else the 10 kinds of them.
    :param mini: whether images are those of 32 x 32 pixels (``core50_32x32``).
    :param download: whether to download it if it is not there.
    :param cache: folder of decoded images, see :class:`ImageFiles`.
    :return: the training images of each experience; and the test images, sessions 3, 7 and 10.
    :raises MissingDirectoryError: if it is neither there nor can be downloaded.
    :raises UnknownOptionError: for an unknown scenario or run.

    Example::

        >>> from avalanche_branchtune.streams import core50
        >>> core50("nowhere")
        Traceback (most recent call last):
        avalanche_branchtune.errors.MissingDirectoryError: nowhere: no CORe50, or a damaged one, ...
    """
    one_of("core50(scenario=…)", scenario, CORE50_SCENARIOS)
    one_of("core50(run=…)", run, range(10))
    root = folder_of(root, "core50")
    images = "core50_32x32" if mini else "core50_128x128"
    lists = Path(root, CORE50_SCENARIOS[scenario], f"run{run}")
    place = f"{images} and {CORE50_SCENARIOS[scenario]}"
    archives = [core50_data.extra_data[1] if mini else core50_data.data[0], *core50_data.data[1:3]]
    urls = [url for _, url, _ in archives]
    advice = f"Where there is a network, download and unpack {', '.join(urls)} in {root}"
    with looking_for("CORe50", root, place, advice, download):
        if download and not (Path(root, images).is_dir() and lists.is_dir()):
            CORe50Dataset(root, mini=mini, download=True)
        files = sorted(lists.glob("train_batch_*_filelist.txt"))
        if not files or not Path(root, images).is_dir():
            raise MissingDirectoryError(
                f"{root}: no CORe50, or a damaged one, in {place}. {advice}"
            )
        parts = [_read(file) for file in [*files, lists / "test_filelist.txt"]]
    *train, test = (_images(Path(root, images), part, objects, cache) for part in parts)
    return train, [test]


def _read(file: Path) -> list[str]:
    return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line]


def _images(
    folder: Path, names: list[str], objects: bool, cache: str | os.PathLike[str] | None
) -> ImageFiles:
    numbers = []
    for name in names:
        found = _OBJECT.match(name)
        if found is None or not 1 <= int(found[1]) <= 50:
            raise MissingDirectoryError(
                f"{folder}: expected files such as s1/o1/C_01_01_000.png in CORe50's lists; "
                f"got {name}"
            )
        numbers.append(int(found[1]) - 1)
    kinds = sorted(core50_data.name2cat, key=core50_data.name2cat.__getitem__)
    each = 50 // len(kinds)
    classes = [f"{kind}{i + 1}" for kind in kinds for i in range(each)] if objects else kinds
    targets = numbers if objects else [number // each for number in numbers]
    return ImageFiles([str(folder / name) for name in names], targets, classes, cache=cache)
