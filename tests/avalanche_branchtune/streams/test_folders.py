from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image
from torch.utils.data import DataLoader

from avalanche_branchtune.errors import MissingDirectoryError, UnreadableImageError
from avalanche_branchtune.streams import ImageFiles, image_folder, unlabelled_folder


def save(path: Path, colour: tuple[int, ...] = (200, 10, 10), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 4), colour if mode == "RGB" else colour[0]).save(path)
    return path


def keep(batch: list) -> list:
    return batch


def test_image_folder_reads_classes_in_order(tmp_path: Path) -> None:
    save(tmp_path / "b" / "1.png", (0, 255, 0))
    save(tmp_path / "a" / "deep" / "2.png", (255, 0, 0))
    save(tmp_path / "b" / "0.PNG", (0, 0, 255))
    (tmp_path / "b" / "notes.txt").write_text("no image")
    data = image_folder(tmp_path)
    assert data.classes == ["a", "b"] and data.targets == [0, 1, 1] and len(data) == 3
    assert [Path(file).name for file in data.files] == ["2.png", "0.PNG", "1.png"]
    image, label = data[2]
    assert image.mode == "RGB" and image.size == (6, 4) and label == 1
    assert image.getpixel((0, 0)) == (0, 255, 0)


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    save(tmp_path / "a" / "grey.png", (77,), mode="L")
    assert image_folder(tmp_path)[0][0].getpixel((1, 1)) == (77, 77, 77)


def test_unlabelled_folder_is_recursive_and_sorted(tmp_path: Path) -> None:
    save(tmp_path / "z.png")
    save(tmp_path / "a" / "b" / "x.JPG")
    save(tmp_path / "a" / "y.bmp")
    data = unlabelled_folder(str(tmp_path))
    names = [Path(file).relative_to(tmp_path).as_posix() for file in data.files]
    assert names == ["a/b/x.JPG", "a/y.bmp", "z.png"]
    assert data.targets == [-1, -1, -1] and data.classes == []
    assert data[1][1] == -1 and data[1][0].mode == "RGB"


def test_files_are_opened_only_when_read(tmp_path: Path) -> None:
    broken = save(tmp_path / "a" / "x.png")
    broken.write_bytes(b"not an image")
    data = image_folder(tmp_path)
    with pytest.raises(UnreadableImageError, match=r"x\.png"):
        data[0]


@pytest.mark.parametrize("read", [image_folder, unlabelled_folder])
def test_missing_and_empty_roots(read, tmp_path: Path) -> None:
    with pytest.raises(MissingDirectoryError, match=r"nowhere: expected .*images.*found nothing"):
        read(tmp_path / "nowhere")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(MissingDirectoryError, match="found a file"):
        read(file)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MissingDirectoryError, match="empty: expected a directory"):
        read(empty)
    with pytest.raises(FileNotFoundError):
        read(empty)


def test_class_folder_without_images_is_named(tmp_path: Path) -> None:
    save(tmp_path / "cats" / "1.png")
    (tmp_path / "dogs").mkdir()
    with pytest.raises(MissingDirectoryError, match="dogs"):
        image_folder(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_jpeg_raises(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a" / "cut.jpg"
    path.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    assert image_folder(tmp_path)[0][0].size == (40, 40)
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableImageError, match=r"cut\.jpg: cannot be decoded") as caught:
        image_folder(tmp_path)[0]
    assert isinstance(caught.value, OSError) and caught.value.__cause__ is not None
    assert str(caught.value.__cause__) in str(caught.value)


@pytest.mark.parametrize("cause", [OSError, SyntaxError, KeyError, Image.DecompressionBombError])
def test_whatever_pillow_raises_is_reported_with_the_file(
    cause: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise cause("bad block")

    save(tmp_path / "a" / "x.png")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UnreadableImageError, match=r"x\.png: cannot be decoded.*bad block"):
        image_folder(tmp_path)[0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_formats_whatever_the_name(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (6, 4), (255, 255, 255)).save(tmp_path / "x.jpg", format=kind)
    image, _ = unlabelled_folder(tmp_path)[0]
    assert (image.mode, image.size, image.getpixel((5, 3))) == ("RGB", (6, 4), (255, 255, 255))


def test_programs_in_a_file_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: started.append(a))
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "x.jpg").write_text(text)
    with pytest.raises(UnreadableImageError, match=r"x\.jpg: cannot be decoded"):
        unlabelled_folder(tmp_path)[0]
    assert not started
    with Image.open(tmp_path / "x.jpg") as image:  # what Pillow would make of it
        assert image.format == "EPS"


def test_a_few_bytes_that_say_they_are_a_large_image(tmp_path: Path) -> None:
    (tmp_path / "x.ppm").write_bytes(b"P6 20000 20000 255\n123")
    with pytest.raises(UnreadableImageError, match=r"x\.ppm: .*decompression bomb"):
        unlabelled_folder(tmp_path)[0]


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match=r"x\.png is no file"):
        unlabelled_folder(tmp_path)[0]


def test_error_survives_loader_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # After an error torch waits this long for each worker before it ends it.
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    save(tmp_path / "a" / "good.png")
    (tmp_path / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    loader = DataLoader(image_folder(tmp_path), batch_size=1, num_workers=2, collate_fn=keep)
    with pytest.raises(UnreadableImageError, match=r"broken\.jpg: cannot be decoded"):
        list(loader)
    gc.collect()  # the iterator ends its workers when it is collected


def test_data_set_and_error_can_be_pickled(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.png", (1, 2, 3))
    copy = pickle.loads(pickle.dumps(image_folder(tmp_path)))
    assert isinstance(copy, ImageFiles) and copy[0][0].getpixel((0, 0)) == (1, 2, 3)
    error = pickle.loads(pickle.dumps(UnreadableImageError("x.png: cannot be decoded")))
    assert type(error) is UnreadableImageError and str(error) == "x.png: cannot be decoded"


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path) -> None:
    values = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image, _ = ImageFiles([str(tmp_path / "a.png")], [0])[0]
    assert image.mode == "RGB" and np.asarray(image)[0, :, 0].tolist() == [0, 1, 100, 255]
    Image.fromarray(np.array([[0.5, 70000.0]], dtype=np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(UnreadableImageError, match=r"b\.tif: .*mode F with values from 0\.5 to 7"):
        ImageFiles([str(tmp_path / "b.tif")], [0])[0]
