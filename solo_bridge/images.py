"""Image folders before a run: files that cannot be read, or are not what they seem."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from avalanche_branchtune.errors import MissingDirectoryError, ViewsError
from avalanche_branchtune.options import at_least, at_least_one
from avalanche_branchtune.streams.folders import DEEP, FORMATS, is_hidden
from solo_bridge.views import to_rgb

PARTS = ("train", "test")
"""Folders of which each holds the classes."""

FEW = 256
"""Images for which no process of its own is worth its start."""

PHOTOGRAPHS = (".heic", ".heif", ".avif", ".gif")
"""Endings of images that are not read."""

SHOWN = 20
"""Notes of one kind that are printed."""

_WITH_TRANSPARENCY = ("LA", "La", "PA", "RGBA", "RGBa")


@dataclass(frozen=True, order=True)
class Finding:
    """What is the matter with a file or folder.

    :param path: of it.
    :param kind: in a word.
    :param problem: in a sentence.
    :param error: whether a run would end at it or be spoilt by it; else it is converted.
    """

    path: str
    kind: str
    problem: str
    error: bool = True


@dataclass
class Report:
    """What was found in a folder.

    :param folder: that was examined.
    :param images: number of files that would be loaded.
    :param modes: how many of them have each of Pillow's modes; unreadable ones have none.
    :param ignored: how many files would not be loaded, by suffix.
    :param findings: sorted by path.
    """

    folder: str
    images: int = 0
    modes: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """Findings at which a run would end, or be spoilt."""
        return [f for f in self.findings if f.error]

    @property
    def notes(self) -> list[Finding]:
        """The others."""
        return [f for f in self.findings if not f.error]

    def plain(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {**asdict(self), "errors": len(self.errors), "notes": len(self.notes)}

    def text(self) -> str:
        """Return a line for each error, for each note up to :data:`SHOWN` of a kind, and a sum."""
        lines = [f"error: {f.path}: {f.problem}" for f in self.errors]
        kinds: Counter[str] = Counter()
        for note in self.notes:
            kinds[note.kind] += 1
            if kinds[note.kind] <= SHOWN:
                lines.append(f"note: {note.path}: {note.problem}")
        more = {kind: n - SHOWN for kind, n in kinds.items() if n > SHOWN}
        lines += [f"note: {n} more: {kind}" for kind, n in sorted(more.items())]
        if self.ignored:
            lines.append(f"ignored, since their names do not end as images': {_sum(self.ignored)}")
        unread = [ending for ending in self.ignored if ending.lower() in PHOTOGRAPHS]
        if unread:
            lines.append(
                f"note: {', '.join(unread)}: images of these kinds are not read; convert them"
            )
        lines.append(
            f"{self.images} images ({_sum(self.modes) or 'none'}), {len(self.errors)} errors, "
            f"{len(self.notes)} notes in {_shown(self.folder)}"
        )
        return "\n".join(lines)


def examine(
    folder: str | os.PathLike[str],
    *,
    size: int | None = None,
    workers: int | None = None,
    bar: bool = False,
) -> Report:
    """Decode every image that a run would load, and look at how the folder is laid out.

    A folder with ``train`` and ``test`` holds the classes in each of them; in another one its
    sub-folders are the classes, unless images lie beside them: then it has no labels.

    :param folder: that holds the images.
    :param size: side in pixels under which an image is noted.
    :param workers: processes; None for as many as there are cores, if there is much to do.
    :param bar: whether to show the progress on a terminal.
    :return: sorted, the same for any number of workers.
    :raises MissingDirectoryError: for no folder.
    :raises UnknownOptionError: for a size or a number of workers that is none.
    """
    if size is not None:
        at_least_one("examine(size=…)", size)
    if workers is not None:
        at_least(0, "examine(workers=…)", workers)
    root = str(Path(folder))
    if not os.path.isdir(root):
        found = "a file" if os.path.exists(root) else "nothing"
        raise MissingDirectoryError(f"{root}: expected a folder with images; found {found}")
    report, files = Report(root), []
    for path in _walk(root, report.findings):
        if path.lower().endswith(IMG_EXTENSIONS):
            files.append(path)
        else:
            suffix = Path(path).suffix.lower() or "no suffix"
            report.ignored[suffix] = report.ignored.get(suffix, 0) + 1
    report.images = len(files)
    report.findings += _layout(root, files)
    modes: Counter[str] = Counter()
    for mode, findings in _looked_at(sorted(files), size, workers, bar):
        modes.update([mode] if mode else [])
        report.findings += findings
    report.modes, report.ignored = dict(sorted(modes.items())), dict(sorted(report.ignored.items()))
    report.findings.sort()
    return report


# ---- folders


def _walk(root: str, findings: list[Finding]) -> Iterator[str]:
    """Yield all files below a folder, through links, but into no folder that it is in itself."""
    above: dict[str, frozenset[tuple[int, int]]] = {root: frozenset()}

    def unreadable(error: OSError) -> None:
        problem = f"cannot be listed ({error.strerror}): its images would be left out unseen"
        findings.append(Finding(_shown(error.filename), "unreadable folder", problem))

    for folder, folders, files in os.walk(root, onerror=unreadable, followlinks=True):
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        outer = above.pop(folder, frozenset())
        if identity in outer:
            problem = "is a link to a folder above it: its images would be loaded over and over"
            findings.append(Finding(_shown(folder), "loop", problem))
            folders.clear()
            continue
        folders.sort()
        above.update({os.path.join(folder, f): outer | {identity} for f in folders})
        yield from (os.path.join(folder, file) for file in files)


def _layout(root: str, files: list[str]) -> Iterator[Finding]:
    """Say what a labelled folder would be refused for."""
    if not files:
        yield Finding(_shown(root), "no images", f"no file ends in {', '.join(IMG_EXTENSIONS)}")
        return
    parts = [part for part in PARTS if os.path.isdir(os.path.join(root, part))]
    loose = Counter(os.path.dirname(file) for file in files)
    if not parts and root in loose:
        return  # without labels
    if len(parts) == 1:
        missing = next(part for part in PARTS if part not in parts)
        yield Finding(_shown(root), "classes", f"has {parts[0]}, but no {missing}")
    filled = {str(above) for file in files for above in Path(file).parents}
    classes = {part: _classes(os.path.join(root, part)) for part in parts or [""]}
    for part, names in classes.items():
        folder = Path(root, part)
        if not names:
            yield Finding(_shown(str(folder)), "classes", "has no folders, which are the classes")
        for name in names:
            if str(folder / name) not in filled:
                problem = "no images in it or below it: as a class it is refused"
                yield Finding(_shown(str(folder / name)), "empty class", problem)
            for other in parts:
                if name not in classes[other]:
                    problem = f"a class of {part} that is not in {other}"
                    yield Finding(_shown(str(folder / name)), "classes", problem)
        if loose[str(folder)]:
            problem = f"{loose[str(folder)]} images beside the classes, which are not loaded"
            yield Finding(_shown(str(folder)), "no class", problem, error=False)


def _classes(folder: str) -> list[str]:
    try:
        found = (entry.name for entry in os.scandir(folder) if entry.is_dir())
        return sorted(name for name in found if not is_hidden(name))
    except OSError:  # it is among the findings
        return []


# ---- files


class _Looks(Dataset[tuple[str, list[Finding]]]):
    """Each image file's mode and findings."""

    def __init__(self, files: list[str], size: int | None) -> None:
        self.files = files
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[str, list[Finding]]:
        return look(self.files[index], self.size)


def _looked_at(
    files: list[str], size: int | None, workers: int | None, bar: bool
) -> Iterator[tuple[str, list[Finding]]]:
    if workers is None:
        workers = 0 if len(files) < FEW else os.cpu_count() or 1
    loader = DataLoader(_Looks(files, size), batch_size=64, num_workers=workers, collate_fn=list)
    off = not (bar and sys.stderr.isatty())
    with tqdm(total=len(files), desc="images", unit="image", disable=off) as progress:
        for batch in loader:
            progress.update(len(batch))
            yield from batch


def look(path: str, size: int | None = None) -> tuple[str, list[Finding]]:
    """Decode an image file in full.

    :param path: of the file.
    :param size: side in pixels under which it is noted.
    :return: its mode as Pillow calls it, empty if it cannot be read; and what is the matter.
    """
    found: list[Finding] = []

    def say(kind: str, problem: str, *, error: bool = False) -> None:
        found.append(Finding(_shown(path), kind, problem, error))

    if not os.path.isfile(path):  # a pipe would be waited for
        broken = os.path.islink(path) and not os.path.exists(path)
        say("unreadable", "is a link to nothing" if broken else "is no file", error=True)
        return "", found
    try:
        if os.path.getsize(path) == 0:
            say("empty", "has 0 bytes", error=True)
            return "", found
        with warnings.catch_warnings(record=True) as warned, open(path, "rb") as stream:
            warnings.simplefilter("always")
            with Image.open(stream, formats=FORMATS) as image:
                mode, (width, height) = image.mode, image.size
                image.load()
                _say_mode(image, say)
                with contextlib.suppress(Exception):  # no run reads it
                    _say_what_is_left_out(image, say)
    except UnidentifiedImageError:
        say("unreadable", f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}", error=True)
        return "", found
    except Image.DecompressionBombError as error:
        say("decompression bomb", str(error), error=True)
        return "", found
    except Exception as error:  # damaged files fail in a great many ways
        say("truncated or damaged", f"cannot be decoded in full ({error})", error=True)
        return "", found
    for warning in {str(w.message).strip(): w for w in warned}:
        say("warning", f"Pillow warns: {warning}")
    if size is not None and min(width, height) < size:
        say("small", f"{width}×{height} pixels, smaller than {size}: it is enlarged")
    return mode, found


def _say_mode(image: Image.Image, say: Any) -> None:
    """Say what becomes of an image that is neither of colours nor of grey values."""
    mode = image.mode
    try:
        to_rgb(image)
    except ViewsError as error:
        say("mode", str(error), error=True)
        return
    if mode in DEEP:
        say("mode", f"mode {mode}, more than 8 bits: is scaled to 8")
    elif mode in _WITH_TRANSPARENCY or "transparency" in image.info:
        say("transparency", f"mode {mode}: becomes RGB, and what is transparent is seen")
    elif mode not in ("RGB", "L"):
        say("mode", f"mode {mode}: becomes RGB")


def _say_what_is_left_out(image: Image.Image, say: Any) -> None:
    turned = image.getexif().get(ExifTags.Base.Orientation, 1)
    if turned != 1:
        say("turned", f"EXIF says it is turned (orientation {turned}), which is not followed")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        say("animated", f"has {frames} frames, of which the first is taken")


def _sum(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {_shown(name)}" for name, n in counts.items())


def _shown(path: str) -> str:
    """Return a path on one line, also one that is no text."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text.replace("\n", "\\n").replace("\r", "\\r")
