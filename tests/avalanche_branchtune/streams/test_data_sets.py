"""Data sets in their true formats: found, read, and one clear error where they are not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from avalanche.benchmarks.datasets import dataset_utils
from PIL import Image
from torchvision.datasets import CIFAR10

from avalanche_branchtune.errors import (
    BranchTuneError,
    LabelError,
    MissingDirectoryError,
    UnknownOptionError,
    UnreadableImageError,
)
from avalanche_branchtune.streams import (
    HubImages,
    cifar10,
    cifar100_superclasses,
    class_list,
    core50,
    domainnet,
    hub_images,
    image_folder,
    imagenet,
    tiny_imagenet,
)
from tests import fake_archives as fake
from tests.fake_cifar import fake_cifar


def grey(item: Any) -> int:
    """The value of an image's first pixel: by that these tests know which file was read."""
    pixel: int = item[0].getpixel((0, 0))[0]
    return pixel


def test_cifar10_and_the_superclasses_of_cifar100(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = fake_cifar(tmp_path / "10", monkeypatch, kind=CIFAR10)
    train = cifar10(tmp_path / "data", download=True)
    assert train.targets == [0, 1, 2, 3] * 8
    plane = pixels[20, :1024].reshape(32, 32)  # of the second file
    assert np.array_equal(np.asarray(train[20][0])[:, :, 0], plane)
    assert len(cifar10(tmp_path / "data", False)) == 16
    with pytest.raises(MissingDirectoryError, match=r"CIFAR-10,.*cifar-10-batches-py\. Where"):
        cifar10(tmp_path / "10")
    fake_cifar(tmp_path / "100", monkeypatch, classes=6)
    found = cifar100_superclasses(tmp_path / "data", download=True)
    assert found == {"even": [0, 2, 4], "odd": [1, 3, 5]}


def test_tiny_imagenet_is_downloaded_or_found_where_avalanche_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.serve_tiny_imagenet(tmp_path, monkeypatch)
    monkeypatch.setitem(dataset_utils.AVALANCHE_CONFIG, "dataset_location", str(tmp_path / "home"))
    with pytest.raises(MissingDirectoryError, match=r"home/tinyimagenet: no Tiny ImageNet.*unpack"):
        tiny_imagenet(None)
    train = tiny_imagenet(None, download=True)
    names = (tmp_path / "made/tiny-imagenet-200/wnids.txt").read_text().split()
    assert train.classes == names != sorted(names) and train.targets == list(range(200))
    assert Path(train.files[3]).name == f"{names[3]}_0.JPEG" and grey(train[3]) == 7
    fake.without_network(monkeypatch)
    test = tiny_imagenet(None, train=False, download=True)
    assert [Path(file).stem for file in test.files] == [f"val_{i}" for i in range(200)]
    with pytest.raises(MissingDirectoryError, match=r"cannot be downloaded .*no network"):
        tiny_imagenet(tmp_path / "other", download=True)
    (tmp_path / "home/tinyimagenet/tiny-imagenet-200/wnids.txt").write_text(names[0])
    with pytest.raises(MissingDirectoryError, match="or a damaged one"):
        tiny_imagenet(None)
    assert capsys.readouterr().out == ""


def test_imagenet_from_its_archives_and_then_from_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "imagenet"
    fake.imagenet_archives(root, monkeypatch)
    train = imagenet(root)
    assert train.classes == list(fake.WORDNET) and train.targets == [0, 1, 2]
    assert [grey(train[i]) for i in range(3)] == [0, 1, 2]
    assert [grey(imagenet(root, False)[i]) for i in range(3)] == [101, 102, 100], "by ground truth"
    for archive in [*root.glob("*.tar"), *root.glob("*.gz"), *root.glob("*.bin")]:
        archive.unlink()
    list_of_two = tmp_path / "two.txt"
    list_of_two.write_text(f"{fake.WORDNET[2]} kit fox\n{fake.WORDNET[0]}\n")
    assert class_list(list_of_two) == [fake.WORDNET[2], fake.WORDNET[0]]
    two = imagenet(root, classes=list_of_two)
    assert two.classes == [fake.WORDNET[0], fake.WORDNET[2]] and two.targets == [0, 1]
    assert [grey(two[i]) for i in range(2)] == [0, 2]
    with pytest.raises(MissingDirectoryError, match="1 are missing, the first is n09999999"):
        imagenet(root, classes=[fake.WORDNET[0], "n09999999"])
    with pytest.raises(MissingDirectoryError, match=r"no ImageNet.*train/.*image-net\.org"):
        imagenet(tmp_path / "nothing")
    with pytest.raises(MissingDirectoryError, match="a class in each line"):
        imagenet(root, classes=tmp_path)
    (root / "val" / fake.WORDNET[1]).rename(root / "elsewhere")
    assert image_folder(root / "val").classes == [fake.WORDNET[0], fake.WORDNET[2]]


def test_core50_by_its_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.core50(tmp_path)
    (first, second), (test,) = core50(tmp_path, "nc", 1)
    assert [first.targets, second.targets] == [[6, 1, 6, 1], [5, 0, 5, 0]], "objects, not places"
    assert [grey(first[i]) for i in range(4)] == [17, 12, 27, 22]
    assert test.targets == [6, 1, 5, 0] and grey(test[0]) == 37
    assert len(test.classes) == 50
    assert [test.classes[t] for t in test.targets[:2]] == ["mobile_phone2", "plug_adapter2"]
    sessions, (test,) = core50(tmp_path, "ni", 1, objects=False)
    assert [part.targets for part in sessions] == [[0, 0, 1, 1]] * 2
    assert test.classes[:2] == ["plug_adapter", "mobile_phone"]
    for options in ({"run": 0}, {"scenario": "nicv2_79", "run": 1}, {"run": 1, "mini": True}):
        with pytest.raises(MissingDirectoryError, match="no CORe50"):
            core50(tmp_path, **options)  # type: ignore[arg-type]
    with pytest.raises(UnknownOptionError, match="did you mean nicv2_79"):
        core50(tmp_path, "nicv2_97")
    with pytest.raises(UnknownOptionError, match="run"):
        core50(tmp_path, run=10)
    fake.without_network(monkeypatch)
    with pytest.raises(MissingDirectoryError, match=r"cannot be downloaded .*no network"):
        core50(tmp_path / "other", download=True)
    (tmp_path / "batches_filelists/NC_inc/run1/test_filelist.txt").write_text("../secret.png 0\n")
    with pytest.raises(MissingDirectoryError, match="expected files such as"):
        core50(tmp_path, "nc", 1)


@pytest.mark.parametrize("splits", ["", "splits"])
def test_domainnet_by_its_lists(tmp_path: Path, splits: str) -> None:
    fake.domainnet(tmp_path, splits)
    train, test = domainnet(tmp_path, ["painting", "real"])
    assert [d.targets for d in train] == [[0, 1], [0, 1, 2]]
    assert [d.targets for d in test] == [[0, 1, 2]] * 2
    assert {tuple(d.classes) for d in train + test} == {
        ("The_Eiffel_Tower", "aircraft_carrier", "t-shirt")
    }
    assert [grey(item) for d in train for item in (d[i] for i in range(len(d)))] == [
        *(100, 101),
        *(0, 1, 2),
    ]
    with pytest.raises(MissingDirectoryError, match="sketch_train"):
        domainnet(tmp_path, ["real", "sketch"])
    with pytest.raises(UnknownOptionError, match="did you mean quickdraw"):
        domainnet(tmp_path, ["quickdraws"])
    lines = tmp_path / splits / "real_test.txt"
    lines.write_text("real/t-shirt/real_002_test.jpg 1\n")
    with pytest.raises(LabelError, match=r"real_test\.txt: class 1 is 't-shirt' there"):
        domainnet(tmp_path, ["painting", "real"])
    lines.write_text("real/t-shirt/real_002_test.jpg\n")
    with pytest.raises(LabelError, match="line 1: expected a file and its class"):
        domainnet(tmp_path, ["real"])


class Feature:
    """Stands in for a feature of the package, which is known by its class's name."""

    def __init__(self, names: list[str] | None = None) -> None:
        self.names = names


class ClassLabel(Feature): ...


ImageFeature = type("Image", (Feature,), {})


class Table(list[dict[str, Any]]):
    """Stands in for a table of the package."""

    builder_name = "made"

    def __init__(self, features: dict[str, Feature], rows: list[dict[str, Any]]) -> None:
        super().__init__(rows)
        self.features = features

    def __getitem__(self, key: Any) -> Any:
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)


def test_tables_of_images() -> None:
    features = {"img": ImageFeature(), "fine": ClassLabel(["a", "b"]), "coarse": ClassLabel(["c"])}
    rows: list[dict[str, Any]] = [
        {"img": Image.new("L", (2, 2), 5), "fine": 1, "coarse": 0},
        {"img": None, "fine": 0, "coarse": 0},
    ]
    table = Table(features, rows)
    with pytest.raises(UnknownOptionError, match=r"label=….*coarse, fine, img: 2 of them"):
        HubImages(table)
    data = HubImages(table, label="fine")
    assert data.targets == [1, 0] and data.classes == ["a", "b"] and len(data) == 2
    assert data[0][0].mode == "RGB" and grey(data[0]) == 5 and data[0][1] == 1
    with pytest.raises(UnreadableImageError, match="image 1 of made"):
        data[-1]
    with pytest.raises(UnknownOptionError, match="did you mean fine"):
        HubImages(table, label="fines")


def test_the_hub_without_the_package_or_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UnknownOptionError, match="pip install datasets"):
        hub_images("uoft-cs/cifar10", "train")

    def refused(*args: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=refused))
    with pytest.raises(MissingDirectoryError, match=r"\(ConnectionError: no network\)"):
        hub_images("uoft-cs/cifar10", "train")
    features = {"image": ImageFeature(), "label": ClassLabel(["a"])}
    table = Table(features, [{"image": Image.new("L", (2, 2)), "label": 0}])
    parts = SimpleNamespace(load_from_disk=lambda folder: {"train": table})
    monkeypatch.setitem(sys.modules, "datasets", parts)
    assert len(hub_images(tmp_path, "train")) == 1
    with pytest.raises(UnknownOptionError, match="did you mean train"):
        hub_images(tmp_path, "trian")


def test_what_the_package_itself_has_written(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [fake.image(3), fake.image(4)], "label": [1, 0]}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    table = datasets.Dataset.from_dict(rows, features)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "saved")
    data = hub_images(tmp_path / "saved", "test")
    assert data.targets == [1, 0] and data.classes == ["cat", "dog"]
    assert [grey(data[i]) for i in range(2)] == [3, 4]
    with pytest.raises(BranchTuneError, match="neither a folder that"):
        hub_images(tmp_path / "nothing", "test")
