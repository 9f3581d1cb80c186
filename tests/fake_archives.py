"""Small data sets in the layouts and archives of the real ones."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from avalanche.benchmarks.datasets import TinyImagenet
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import imagenet as torchvision_imagenet
from torchvision.datasets import utils

WORDNET = ("n01440764", "n01443537", "n02119789")
"""Three leaves of ImageNet's 1000, and their words."""
WORDS = ("tench, Tinca tinca", "goldfish, Carassius auratus", "kit fox, Vulpes macrotis")
INNER = ("n00001740", "entity")
"""A synset that is no class: it has children."""


def image(value: int, side: int = 4) -> Image.Image:
    return Image.new("RGB", (side, side), (value, value, value))


def saved(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image(value).save(path)
    return path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    for name in ("_urlretrieve", "_get_redirect_url"):
        monkeypatch.setattr(utils, name, refused)


def tiny_imagenet(root: Path, classes: int = 200) -> Path:
    """Write ``root/tiny-imagenet-200``: an image of each class in both parts."""
    folder = root / "tiny-imagenet-200"
    names = [f"n{10_000_000 + 7919 * i % 100_003:08d}" for i in range(classes)]
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(names) + "\n")
    lines = []
    for number, name in enumerate(names):
        own = folder / "train" / name / "images"
        own.mkdir(parents=True)
        (folder / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t1\t1\n")
        (own / f"{name}_0.JPEG").touch()
        (folder / "val" / "images" / f"val_{number}.JPEG").touch()
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t1\t1")
    image(7).save(folder / "train" / names[3] / "images" / f"{names[3]}_0.JPEG")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(reversed(lines)) + "\n")
    return folder


def serve_tiny_imagenet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Avalanche download an archive of it."""
    folder = tiny_imagenet(root / "made", 200)
    served = Path(shutil.make_archive(str(root / "served"), "zip", folder.parent, folder.name))

    def copied(url: str, path: str) -> None:
        shutil.copyfile(url.removeprefix("file://"), path)

    monkeypatch.setattr(utils, "_urlretrieve", copied)
    monkeypatch.setattr(TinyImagenet, "filename", ("tiny-imagenet-200.zip", served.as_uri()))
    monkeypatch.setattr(TinyImagenet, "md5", md5(served))


def imagenet_archives(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write ImageNet's three archives: of each class one training and one validation image."""
    root.mkdir(parents=True)
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
    kind = np.dtype([(name, object) for name in fields])
    rows = [(i + 1, w, words, "", 0) for i, (w, words) in enumerate(zip(WORDNET, WORDS))]  # noqa: B905
    synsets = np.array([*rows, (1001, *INNER, "", 3)], dtype=kind)
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": synsets[:, None]})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n1\n2\n")
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(data.parent, data.parent.name)
    shutil.rmtree(data.parent)
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for number, name in enumerate(WORDNET):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                _add(inner, f"{name}_1.JPEG", _jpeg(number))
            _add(outer, f"{name}.tar", buffer.getvalue())
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as archive:
        for number in range(3):
            _add(archive, f"ILSVRC2012_val_0000000{number + 1}.JPEG", _jpeg(100 + number))
    sums = {
        part: (name, md5(root / name))
        for part, (name, _) in torchvision_imagenet.ARCHIVE_META.items()
    }
    monkeypatch.setattr(torchvision_imagenet, "ARCHIVE_META", sums)


def core50(root: Path) -> None:
    """Write images of two objects of each of two kinds, and the lists of two scenarios."""
    objects = (1, 2, 6, 7)  # two plug adapters, two mobile phones
    for session in (1, 2, 3):
        for thing in objects:
            name = f"s{session}/o{thing}/C_{session:02d}_{thing:02d}_000.png"
            saved(root / "core50_128x128" / name, 10 * session + thing)
    nc, ni = (root / "batches_filelists" / f / "run1" for f in ("NC_inc", "NI_inc"))
    for folder in (nc, ni):
        folder.mkdir(parents=True)

    def line(session: int, thing: int, label: int) -> str:
        return f"s{session}/o{thing}/C_{session:02d}_{thing:02d}_000.png {label}\n"

    order = (7, 2, 6, 1)  # in which this run brings the objects: its labels are 0 … 3
    for batch in range(2):
        here = order[2 * batch : 2 * batch + 2]
        text = "".join(line(s, o, order.index(o)) for s in (1, 2) for o in here)
        (nc / f"train_batch_{batch:02d}_filelist.txt").write_text(text)
    test = "".join(line(3, o, order.index(o)) for o in order)
    (nc / "test_filelist.txt").write_text(test)
    for batch in range(2):
        text = "".join(line(batch + 1, o, o - 1) for o in objects)
        (ni / f"train_batch_{batch:02d}_filelist.txt").write_text(text)
    (ni / "test_filelist.txt").write_text("".join(line(3, o, o - 1) for o in objects))


def domainnet(root: Path, splits: str = "") -> None:
    """Write two domains: one lacks a class in training, as the real painting does."""
    lists = root / splits
    lists.mkdir(parents=True, exist_ok=True)
    names = ("The_Eiffel_Tower", "aircraft_carrier", "t-shirt")
    for place, domain in enumerate(("real", "painting")):
        for part in ("train", "test"):
            text = ""
            for label, name in enumerate(names):
                if (domain, part, name) == ("painting", "train", "t-shirt"):
                    continue
                file = f"{domain}/{name}/{domain}_{label:03d}_{part}.jpg"
                saved(root / file, 100 * place + label)
                text += f"{file} {label}\n"
            (lists / f"{domain}_{part}.txt").write_text(text)
    saved(root / "real" / "t-shirt" / "on_no_list.jpg")


def _jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    image(value).save(buffer, "JPEG")
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
