"""Images in a directory, decoded when they are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from avalanche_branchtune.errors import MissingDirectoryError, UnreadableImageError, ViewsError
from avalanche_branchtune.streams.labels import NO_LABEL
from avalanche_branchtune.streams.pixels import pixel_file

__all__ = ["ImageFiles", "image_folder", "unlabelled_folder"]

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What a file may be, whatever its name; others run programs (PostScript) or are no photographs."""

DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of more than 8 bits."""


class ImageFiles(Dataset[tuple[Image.Image, int]]):
    """Image files with a class each.

    An item is ``(image, class)``, the image as RGB at its own size. Reading one raises
    :class:`~avalanche_branchtune.errors.UnreadableImageError` when its file cannot be decoded
    in full (Pillow's global ``ImageFile.LOAD_TRUNCATED_IMAGES`` must be off, as it is unless
    somebody sets it). Grey images of 16 bits are scaled to 8 (torchvision's reader clips them).

    :param files: N paths.
    :param targets: N class numbers, -1 where there is no label.
    :param classes: the name of class 0, 1 …; empty without labels.
    :param cache: folder of decoded images, which all processes share: each file is decoded once,
        now, unless the folder has it from before; made anew when a file changes.  What is too large
        for this machine's memory or disk is decoded each time, which is logged.

    Example::

        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> from avalanche_branchtune.streams import ImageFiles
        >>> with TemporaryDirectory() as folder:
        ...     Image.new("L", (4, 3), 7).save(f"{folder}/1.png")
        ...     image, label = ImageFiles([f"{folder}/1.png"], targets=[1])[0]
        >>> image.mode, image.size, image.getpixel((0, 0)), label
        ('RGB', (4, 3), (7, 7, 7), 1)
    """

    def __init__(
        self,
        files: Sequence[str],
        targets: Sequence[int],
        classes: Sequence[str] = (),
        *,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        """Keep the paths; no file is opened unless there is to be a cache."""
        self.files = list(files)
        self.targets = list(targets)
        self.classes = list(classes)
        self._pixels = None if cache is None else pixel_file(cache, self.files, self._decoded)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Decode the file at ``index``."""
        image = None if self._pixels is None else self._pixels.image(index)
        return self._decoded(index) if image is None else image, self.targets[index]

    def _decoded(self, index: int) -> Image.Image:
        file = self.files[index]
        if os.path.exists(file) and not os.path.isfile(file):  # a pipe would be waited for
            raise UnreadableImageError(f"{file} is no file: remove it")
        try:
            with open(file, "rb") as stream, Image.open(stream, formats=FORMATS) as image:
                return eight_bit(image).convert("RGB")
        except Exception as cause:  # damaged files fail in a great many ways
            raise UnreadableImageError(
                f"{file}: cannot be decoded as an image ({cause}); replace or remove the file"
            ) from cause


def eight_bit(image: Image.Image) -> Image.Image:
    """Scale an image of 16-bit grey values, which Pillow's conversion to RGB would cut off at 255.

    :param image: of any mode.
    :return: the image itself if it has no more than 8 bits.
    :raises ViewsError: for grey values that are neither of 8 nor of 16 bits.

    Example::

        >>> import numpy as np
        >>> from PIL import Image
        >>> from avalanche_branchtune.streams.folders import eight_bit
        >>> grey = Image.fromarray(np.array([[0, 25700, 65535]], dtype=np.uint16))
        >>> np.asarray(eight_bit(grey)).tolist()
        [[0, 100, 255]]
    """
    if image.mode not in DEEP:
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535 or image.mode == "F":
        raise ViewsError(
            f"cannot make views of an image of mode {image.mode} with values from {values.min():g} "
            f"to {values.max():g}: expected grey values of 8 or 16 bits"
        )
    return Image.fromarray((values.astype(np.uint32) // 257).astype(np.uint8))


def image_folder(
    root: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> ImageFiles:
    """Find the images of a labelled directory, ``root/<class>/**/<image>``.

    The sub-folders of ``root`` are the classes 0, 1 … in the order of their names, but for hidden
    ones (``.ipynb_checkpoints``) and ``__MACOSX``. Files with
    another extension than torchvision's ``IMG_EXTENSIONS`` are no images.

    :param root: the directory that holds one sub-folder a class.
    :param classes: names of the sub-folders that count, in any order; by default all.
    :param cache: folder of decoded images, see :class:`ImageFiles`.
    :return: the images, sorted by class and path.
    :raises MissingDirectoryError: when ``root`` is no directory, has no sub-folder, or lacks one
        of ``classes``; when there are no images in one.

    Example::

        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from avalanche_branchtune.streams import image_folder
        >>> with TemporaryDirectory() as root:
        ...     for folder in (Path(root, "dog"), Path(root, "cat")):
        ...         _ = folder.mkdir(), (folder / "1.png").touch(), (folder / "notes.txt").touch()
        ...     image_folder(root).classes, image_folder(root).targets
        (['cat', 'dog'], [0, 1])
    """
    expected = "a directory with one sub-folder of images for each class"
    _check_directory(root, expected)
    try:
        names = find_classes(root)[0] if classes is None else sorted(set(classes))
        names = [name for name in names if classes is not None or not is_hidden(name)]
        lacking = [name for name in names if not Path(root, name).is_dir()]
        if lacking:
            raise FileNotFoundError(f"{len(lacking)} are missing, the first is {lacking[0]}")
        numbers = {name: number for number, name in enumerate(names)}
        found = make_dataset(root, numbers, IMG_EXTENSIONS)
    except FileNotFoundError as cause:
        raise MissingDirectoryError(f"{os.fspath(root)}: expected {expected}; {cause}") from cause
    return ImageFiles([f for f, _ in found], [label for _, label in found], names, cache=cache)


def is_hidden(name: str) -> bool:
    """Tell whether a sub-folder is one that programs leave behind, and no class.

    :param name: of the folder.

    Example::

        >>> from avalanche_branchtune.streams.folders import is_hidden
        >>> is_hidden(".ipynb_checkpoints"), is_hidden("dog")
        (True, False)
    """
    return name.startswith(".") or name == "__MACOSX"


def unlabelled_folder(root: str | os.PathLike[str]) -> ImageFiles:
    """Find all images in a directory and below it; every label is -1.

    :param root: the directory. Links to directories are followed.
    :return: the images, sorted by path.
    :raises MissingDirectoryError: when ``root`` is no directory or holds no images.

    Example::

        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from avalanche_branchtune.streams import unlabelled_folder
        >>> with TemporaryDirectory() as root:
        ...     for name in ("2.png", "1.jpg", "notes.txt"):
        ...         Path(root, name).touch()
        ...     [Path(file).name for file in unlabelled_folder(root).files]
        ['1.jpg', '2.png']
    """
    expected = f"a directory with images ({', '.join(IMG_EXTENSIONS)}) in it or below it"
    _check_directory(root, expected)
    files = sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.lower().endswith(IMG_EXTENSIONS)
    )
    if not files:
        raise MissingDirectoryError(f"{os.fspath(root)}: expected {expected}; found none")
    return ImageFiles(files, [NO_LABEL] * len(files))


def _check_directory(root: str | os.PathLike[str], expected: str) -> None:
    if not Path(root).is_dir():
        found = "a file" if Path(root).exists() else "nothing"
        raise MissingDirectoryError(f"{os.fspath(root)}: expected {expected}; found {found}")
