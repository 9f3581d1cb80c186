"""Images decoded once into a file that all processes map."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avalanche_branchtune.errors import UnreadableImageError
from avalanche_branchtune.streams import ImageFiles, image_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of JPEG, PNG and grey images of several sizes, one of them broken."""
    generator, root = np.random.default_rng(0), tmp_path / "images"
    for i in range(6):
        place = root / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        shape = (4 + i, 9, 3) if i % 3 else (4 + i, 9)
        image = Image.fromarray(generator.integers(256, size=shape, dtype=np.uint8))
        image.save(place / f"{i}.{'jpg' if i < 3 else 'png'}")
    (root / "b" / "9.png").write_bytes(b"no image")
    return root


def readable(data: ImageFiles) -> list[tuple[bytes, tuple[int, int], int]]:
    found = (data[i] for i in range(len(data)) if not data.files[i].endswith("9.png"))
    return [(image.tobytes(), image.size, label) for image, label in found]


def test_what_is_mapped_is_what_is_decoded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = readable(image_folder(folder))
    made = image_folder(folder, cache=tmp_path / "cache")
    copied = pickle.loads(pickle.dumps(made))
    found = image_folder(folder, cache=tmp_path / "cache")
    assert len(os.listdir(tmp_path / "cache")) == 1
    with monkeypatch.context() as broken:
        broken.setattr(Image, "open", None)  # nothing is decoded any more
        assert readable(made) == readable(copied) == readable(found) == expected
    with pytest.raises(UnreadableImageError, match=r"9\.png"):
        made[made.files.index(str(folder / "b" / "9.png"))]
    assert pickle.dumps(made).count(b"\0") < 1000, "its place, not its content"


def test_a_changed_file_is_decoded_anew(folder: Path, tmp_path: Path) -> None:
    image_folder(folder, cache=tmp_path)
    Image.new("RGB", (3, 3), (1, 2, 3)).save(folder / "a" / "4.png")
    assert readable(image_folder(folder, cache=tmp_path)) == readable(image_folder(folder))


@pytest.mark.parametrize("limit", ["OF_MEMORY", "OF_DISK"])
def test_what_is_too_large_is_decoded_each_time(
    limit: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"avalanche_branchtune.streams.pixels.{limit}", 0)
    assert readable(image_folder(folder, cache=tmp_path / "none")) == readable(image_folder(folder))
    assert os.listdir(tmp_path / "none") == []


def test_an_interruption_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avalanche_branchtune.streams.pixels.TRIED", 1)
    decode, count = ImageFiles._decoded, 0

    def interrupted(self: ImageFiles, index: int) -> Image.Image:
        nonlocal count
        count += 1
        if count > 4:
            raise KeyboardInterrupt
        return decode(self, index)

    with monkeypatch.context() as once, pytest.raises(KeyboardInterrupt):
        once.setattr(ImageFiles, "_decoded", interrupted)
        image_folder(folder, cache=tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []
    assert readable(image_folder(folder, cache=tmp_path / "cache")) == readable(
        image_folder(folder)
    )


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_processes_that_want_a_folder_at_once_one_decodes_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, decoded = tmp_path / "cache", tmp_path / "decoded"
    monkeypatch.setattr(ImageFiles, "_decoded", noted(ImageFiles._decoded, decoded))
    context = multiprocessing.get_context("fork")
    some = [context.Process(target=image_folder, args=(folder,), kwargs={"cache": cache})]
    some += [context.Process(target=image_folder, args=(folder,), kwargs={"cache": cache})]
    for process in some:
        process.start()
    for process in some:
        process.join(30)
        assert process.exitcode == 0
    assert len(os.listdir(cache)) == 1
    assert len({line.split()[0] for line in decoded.read_text().splitlines()}) == 1


def noted(decode: Callable[[ImageFiles, int], Any], path: Path) -> Any:
    """Decode slowly, and note which process does."""

    def slow(self: ImageFiles, index: int) -> Any:
        with path.open("a") as file:
            file.write(f"{os.getpid()} {index}\n")
        time.sleep(0.02)
        return decode(self, index)

    return slow
