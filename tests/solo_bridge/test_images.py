"""Folders of images, each with one thing the matter."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avalanche_branchtune.errors import (
    MissingDirectoryError,
    UnknownOptionError,
    UnreadableImageError,
)
from avalanche_branchtune.streams import image_folder
from solo_bridge import cli, images
from solo_bridge.images import examine, look
from solo_bridge.views import to_rgb

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def encoded(mode: str, kind: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(NOISE)
    Image.merge("RGB", picture.split()).convert(mode).save(stream, kind, **settings)
    return stream.getvalue()


def sixteen(top: int) -> bytes:
    stream = io.BytesIO()
    values = np.linspace(0, top, 1024).reshape(32, 32)
    Image.fromarray(values.astype(np.uint16 if top < 65536 else np.int32)).save(stream, "TIFF")
    return stream.getvalue()


def floats() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(stream, "TIFF")
    return stream.getvalue()


def animated() -> bytes:
    more = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    return encoded("RGB", "WEBP", save_all=True, append_images=more)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("RGB", "JPEG", exif=exif)


JPEG, PNG = encoded("RGB", "JPEG"), encoded("RGB", "PNG")

ERRORS: dict[str, tuple[bytes, str, str]] = {
    "empty.jpg": (b"", "empty", "0 bytes"),
    "text.jpg": (b"no image", "unreadable", "is no JPEG, PNG"),
    "header.jpg": (JPEG[:20], "unreadable", "is no JPEG"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated or damaged", "image file is truncated"),
    "half.png": (PNG[: len(PNG) // 2], "truncated or damaged", "truncated"),
    "flipped.png": (PNG[:99] + bytes([PNG[99] ^ 4]) + PNG[100:], "truncated or damaged", "decoded"),
    "script.jpg": (b"%!PS-Adobe-3.0\n%%BoundingBox: 0 0 9 9\n", "unreadable", "is no JPEG"),
    "large.tif": (sixteen(70000), "mode", "mode I with values from 0 to 70000"),
    "floats.tiff": (floats(), "mode", "mode F with values from 0.5 to 0.5"),
}

NOTES: dict[str, tuple[bytes, str, str]] = {
    "cmyk.jpg": (encoded("CMYK", "JPEG"), "mode", "mode CMYK: becomes RGB"),
    "grey16.tif": (sixteen(60000), "mode", "mode I;16, more than 8 bits: is scaled to 8"),
    "bits.png": (encoded("1", "PNG"), "mode", "mode 1: becomes RGB"),
    "palette.png": (encoded("P", "PNG"), "mode", "mode P: becomes RGB"),
    "hole.png": (encoded("P", "PNG", transparency=0), "transparency", "mode P: becomes RGB, and"),
    "alpha.png": (encoded("RGBA", "PNG"), "transparency", "mode RGBA"),
    "grey_alpha.PNG": (encoded("LA", "PNG"), "transparency", "mode LA"),
    "film.webp": (animated(), "animated", "has 3 frames"),
    "turned.jpg": (turned(), "turned", "orientation 6"),
}

FINE = {
    "a.jpg": JPEG,
    "b.png": PNG,
    "grey.png": encoded("L", "PNG"),
    "c.PPM": encoded("RGB", "PPM"),
}


@pytest.mark.parametrize("name", [*ERRORS, *NOTES, *FINE])
def test_a_file(tmp_path: Path, name: str) -> None:
    """What is an error ends a run of an image folder's, or its image is not that of the views."""
    cases = {**ERRORS, **NOTES}
    content = FINE[name] if name in FINE else cases[name][0]
    (tmp_path / "class").mkdir()
    path = tmp_path / "class" / name
    path.write_bytes(content)
    mode, found = look(str(path))
    if name in FINE:
        assert (mode, found) == (Image.open(io.BytesIO(content)).mode, [])
    else:
        assert [(f.path, f.kind, f.error) for f in found] == [
            (str(path), cases[name][1], name in ERRORS)
        ]
        assert cases[name][2] in found[0].problem
    assert usable(tmp_path) == (name not in ERRORS)


def usable(folder: Path) -> bool:
    data = image_folder(folder)
    try:
        picture, _ = data[0]
        with Image.open(data.files[0]) as image:
            return to_rgb(image).tobytes() == picture.tobytes()
    except (UnreadableImageError, ValueError):
        return False


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow refuses images of more than twice its limit, and warns of those above it."""
    (tmp_path / "a.png").write_bytes(PNG)  # of 1024 pixels
    for limit, expected in ((400, ("decompression bomb", True)), (600, ("warning", False))):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert [(f.kind, f.error) for f in examine(tmp_path).findings] == [expected]


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a.jpg").write_bytes(JPEG)
    report = examine(tmp_path)
    assert [(Path(f.path).name, f.problem) for f in report.errors] == [
        ("gone.jpg", "is a link to nothing"),
        ("pipe.jpg", "is no file"),
    ]
    assert report.images == 3 and report.modes == {"RGB": 1}


def test_small_ones(tmp_path: Path) -> None:
    Image.new("RGB", (40, 24)).save(tmp_path / "a.png")
    assert examine(tmp_path, size=24).findings == []
    (note,) = examine(tmp_path, size=32).notes
    assert note.problem == "40×24 pixels, smaller than 32: it is enlarged"


# ---- folders


def dataset(root: Path, *classes: str) -> None:
    for name in classes:
        folder = root / name
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(JPEG)


def problems(root: Path) -> list[tuple[str, str]]:
    return [(str(Path(f.path).relative_to(root)), f.problem) for f in examine(root).findings]


def test_a_data_set_in_order(tmp_path: Path) -> None:
    dataset(tmp_path, "train/cat", "train/dog/small", "test/cat", "test/dog")
    (tmp_path / "train" / "cat" / "notes.TXT").write_text("x")
    (tmp_path / "train" / "README").write_text("x")
    report = examine(tmp_path)
    assert report.images == 4 and report.findings == []
    assert report.ignored == {".txt": 1, "no suffix": 1}
    assert report.text().splitlines() == [
        "ignored, since their names do not end as images': 1 .txt, 1 no suffix",
        f"4 images (4 RGB), 0 errors, 0 notes in {tmp_path}",
    ]


def test_classes_that_do_not_fit(tmp_path: Path) -> None:
    dataset(tmp_path, "train/cat", "train/dog", "test/cat", "test/horse")
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "train" / "loose.jpg").write_bytes(JPEG)
    assert problems(tmp_path) == [
        ("test/horse", "a class of test that is not in train"),
        ("train", "1 images beside the classes, which are not loaded"),
        ("train/dog", "a class of train that is not in test"),
        ("train/empty", "a class of train that is not in test"),
        ("train/empty", "no images in it or below it: as a class it is refused"),
    ]
    with pytest.raises(MissingDirectoryError, match="empty"):
        image_folder(tmp_path / "train")


def test_half_a_data_set_and_none(tmp_path: Path) -> None:
    dataset(tmp_path / "a", "train/cat")
    assert problems(tmp_path / "a") == [(".", "has train, but no test")]
    dataset(tmp_path / "b", "cat", "dog")
    assert problems(tmp_path / "b") == []
    dataset(tmp_path / "c", "train/cat", "test")
    assert ("test", "has no folders, which are the classes") in problems(tmp_path / "c")
    (tmp_path / "d" / "no_class").mkdir(parents=True)
    (tmp_path / "d" / "1.jpg").write_bytes(JPEG)
    assert problems(tmp_path / "d") == []
    (tmp_path / "e").mkdir()
    assert "no file ends in .jpg" in problems(tmp_path / "e")[0][1]


def test_links(tmp_path: Path) -> None:
    """Those that go round, and a folder that is there twice, as it is loaded twice."""
    dataset(tmp_path, "cat", "dog")
    (tmp_path / "dog" / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "bird").symlink_to(tmp_path / "cat", target_is_directory=True)
    report = examine(tmp_path)
    assert report.images == 3
    assert [(f.path, f.kind) for f in report.findings] == [
        (str(tmp_path / "dog" / "round"), "loop")
    ]


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path, "cat", "dog", "dog/secret")
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)  # root may read everything
    (error,) = examine(tmp_path).errors
    assert error.path.endswith("dog/secret") and "(Permission denied)" in error.problem


# ---- the command


def test_any_number_of_workers_finds_the_same_in_the_same_order(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for i, (name, case) in enumerate(sorted({**ERRORS, **NOTES}.items())):
            folder = tmp_path / part / f"class{i % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(case[0])
            for k in range(5):
                (folder / f"{i}{k}.jpg").write_bytes(JPEG)
    found = [examine(tmp_path, workers=n).plain() for n in (0, 2)]
    assert found[0] == found[1]
    assert found[0]["errors"] == 2 * len(ERRORS) and found[0]["notes"] == 2 * len(NOTES)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = tmp_path / "images", tmp_path / "found.json"
    folder.mkdir()
    (folder / "b.png").write_bytes(NOTES["alpha.png"][0])
    assert cli.main(["check", str(folder)]) == 0
    (folder / "a.jpg").write_bytes(b"")
    (folder / "l\nine\udcff.jpg").write_bytes(b"")
    assert cli.main(["check", str(folder), "--json", str(file)]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[2:] == [
        f"error: {folder}/a.jpg: has 0 bytes",
        f"error: {folder}/l\\nine\\xff.jpg: has 0 bytes",
        f"note: {folder}/b.png: mode RGBA: becomes RGB, and what is transparent is seen",
        f"3 images (1 RGBA), 2 errors, 1 notes in {folder}",
    ]
    assert printed.err == "", "a bar is for terminals"
    content = json.loads(file.read_text(encoding="utf-8"))
    assert [f["kind"] for f in content["findings"]] == ["empty", "transparency", "empty"]
    assert cli.main(["check", str(tmp_path / "nothing")]) == 2
    assert "expected a folder with images; found nothing" in capsys.readouterr().err


def test_many_notes_of_one_kind_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "SHOWN", 2)
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(NOTES["palette.png"][0])
    lines = examine(tmp_path).text().splitlines()
    assert len(lines) == 4 and lines[2] == "note: 3 more: mode"


@pytest.mark.parametrize("options", [{"size": 0}, {"workers": -1}])
def test_unknown_options(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(UnknownOptionError, match="whole number"):
        examine(tmp_path, **options)


def test_what_programs_leave_behind_is_no_class(tmp_path: Path) -> None:
    for name in ("cat", ".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "2.HEIC").touch()
    assert image_folder(tmp_path).classes == ["cat"]
    text = examine(tmp_path).text()
    assert "images of these kinds are not read" in text and "MACOSX" not in text
