"""Decoded images in a file, which all processes share: each image is decoded once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from avalanche_branchtune.errors import UnreadableImageError, ViewsError
from avalanche_branchtune.hardware import free_memory
from avalanche_branchtune.writing import replacing

try:
    import fcntl
except ImportError:  # Windows does not have it
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

FORMAT = "avalanche-branchtune pixels 1"
OF_MEMORY, OF_DISK = 1 / 3, 1 / 4
"""How much of what is free a file may take; what does not fit in memory is no faster from disk."""

TRIED = 64
"""Images by which the size of all is estimated before any is written."""


class PixelFile:
    """Decoded images by their number, mapped into memory.

    :param path: of a file that :func:`pixel_file` made.
    :param count: N, its images.

    Example::

        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> from avalanche_branchtune.streams.pixels import pixel_file
        >>> with TemporaryDirectory() as folder:
        ...     made = pixel_file(folder, ["a.png"], lambda i: Image.new("RGB", (4, 3), (1, 2, 3)))
        ...     made.image(0).size, made.image(0).getpixel((0, 0))
        ((4, 3), (1, 2, 3))
    """

    def __init__(self, path: Path, count: int) -> None:
        """See the class."""
        self.path = path
        self.count = count
        self._open()

    def _open(self) -> None:
        self._bytes = np.memmap(self.path, np.uint8, mode="r")
        self._sizes = self._bytes[: 8 * self.count].view(np.int32).reshape(self.count, 2)
        lengths = 3 * self._sizes.astype(np.int64).prod(axis=1)
        self._ends = 8 * self.count + lengths.cumsum()
        self._begins = self._ends - lengths

    def image(self, number: int) -> Image.Image | None:
        """Return an image as RGB, None for one that could not be decoded.

        :param number: below N.
        """
        height, width = self._sizes[number]
        if not height:
            return None
        pixels = self._bytes[self._begins[number] : self._ends[number]]
        return Image.fromarray(pixels.reshape(height, width, 3))

    def __getstate__(self) -> tuple[Path, int]:
        """Copy and pickle the place of the file, not its content."""
        return self.path, self.count

    def __setstate__(self, state: tuple[Path, int]) -> None:
        """Open the file again."""
        self.path, self.count = state
        self._open()


def pixel_file(
    folder: str | os.PathLike[str], files: Sequence[str], decode: Callable[[int], Image.Image]
) -> PixelFile | None:
    """Decode images into a file of a folder, or find the one that has them.

    Its name is made of the files' paths, sizes and times: changed images are decoded anew.  Of
    processes that want it at the same time one decodes, and the others wait.

    :param folder: made if it does not exist.
    :param files: N paths.
    :param decode: from a number below N to the image as RGB; its
        :class:`~avalanche_branchtune.errors.UnreadableImageError` is remembered.
    :return: None if all images together are too large for this machine, which is logged.

    Example::

        >>> import os
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> from avalanche_branchtune.streams.pixels import pixel_file
        >>> with TemporaryDirectory() as folder:
        ...     made = pixel_file(folder, ["a.png", "b.png"], lambda i: Image.new("RGB", (4, 3)))
        ...     found = pixel_file(folder, ["a.png", "b.png"], None)
        ...     made.count, len(os.listdir(folder)), found.image(1).size
        (2, 1, (4, 3))
    """
    path = Path(folder) / f"{_key(files)}.pixels"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(path.with_suffix(".lock")):
            if not path.exists() and not _made(path, len(files), decode):
                return None
    return PixelFile(path, len(files))


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process is in here, if the system knows of it.

    :param path: of an empty file, which is there meanwhile: whoever waited for it looks again
        whether there is anything left to do.
    """
    if fcntl is None:
        yield
        return
    with open(path, "wb") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _made(path: Path, count: int, decode: Callable[[int], Image.Image]) -> bool:
    """Decode all images, if they are not too large for this machine."""
    too_large = _too_large(path.parent, count, decode)
    if too_large:
        logger.info("images are decoded again each time they are read: %s", too_large)
        return False
    with replacing(path) as temporary:
        _write(temporary, count, decode)
    return True


def _write(path: Path, count: int, decode: Callable[[int], Image.Image]) -> None:
    sizes = np.zeros((count, 2), np.int32)
    with open(path, "wb") as stream:
        stream.write(sizes.tobytes())  # their place
        for number, image in enumerate(_decoded(range(count), decode)):
            if image is not None:
                sizes[number] = image.height, image.width
                stream.write(np.asarray(image).tobytes())
        stream.seek(0)
        stream.write(sizes.tobytes())


def _decoded(
    numbers: Sequence[int], decode: Callable[[int], Image.Image]
) -> Iterator[Image.Image | None]:
    for number in numbers:
        try:
            yield decode(number)
        except (UnreadableImageError, ViewsError):
            yield None


def _too_large(folder: Path, count: int, decode: Callable[[int], Image.Image]) -> str:
    some = range(0, count, max(1, count // TRIED))
    images = [image for image in _decoded(some, decode) if image is not None]
    size = 3 * sum(i.height * i.width for i in images) / max(1, len(images)) * count
    for place, share, there in (
        ("memory", OF_MEMORY, free_memory()),
        ("disk", OF_DISK, shutil.disk_usage(folder).free),
    ):
        if size > share * there:
            return f"{size / 1e9:.1f} GB decoded, {there / 1e9:.1f} GB of {place} are free"
    return ""


def _key(files: Sequence[str]) -> str:
    found = hashlib.sha256(FORMAT.encode())
    for file in files:
        try:
            known = os.stat(file)
            what = f"{os.path.abspath(file)}\0{known.st_size}\0{known.st_mtime_ns}\0"
        except OSError:
            what = f"{os.path.abspath(file)}\0"
        found.update(what.encode("utf-8", "surrogateescape"))
    return found.hexdigest()[:32]
